"""Several processes on this machine train as one does, and survive the loss of one."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import time

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import errors
from experiments.configs import quickstart
from experiments.runs import processes
from tests.experiments import test_loop

HEARTBEAT = 10
DEADLINE = 400


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Job:
    """The training program in several processes, with logs beside the workdir."""

    def __init__(
        self, path, count, *, devices, epochs, method="adaste", only=None, own=()
    ):
        flags = "--xla_force_host_platform_device_count"
        self.logs = [path.with_name(f"{path.name}.log{rank}") for rank in range(count)]
        environment = {
            **os.environ,
            "XLA_FLAGS": f"{flags}={devices}",
            "COLUMNS": "200",
        }
        together = [f"--coordinator=127.0.0.1:{free_port()}"]
        together += [f"--num_processes={count}", f"--heartbeat_timeout={HEARTBEAT}"]
        self.processes = []
        for rank, log in enumerate(self.logs[:only]):
            arguments = [
                "--config=experiments/configs/quickstart.py:smoke",
                f"--workdir={path}",
                f"--config.num_epochs={epochs}",
                "--config.num_train=400",
                f"--config.method={method}",
                "--config.tensorboard=False",
            ]
            if count > 1:
                arguments += [*together, f"--process_id={rank}"]
                arguments += own[rank] if own else []
            with open(log, "w") as file:
                self.processes.append(
                    subprocess.Popen(
                        test_loop.command(*arguments),
                        cwd=test_loop.ROOT,
                        env=environment,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def wait(self, seconds=DEADLINE):
        """Statuses of all processes."""
        end = time.monotonic() + seconds
        return [
            process.wait(max(0.1, end - time.monotonic())) for process in self.processes
        ]

    def text(self):
        logs = self.logs[: len(self.processes)]
        return "\n".join(log.read_text(errors="replace") for log in logs)


def steps(path):
    folder = path / "checkpoints"
    names = [file.name for file in folder.iterdir()] if folder.exists() else []
    return {int(name) for name in names if name.isdigit()}


def wait_for_a_new_step(path, job):
    """Until the job has saved something, which it does between two steps."""
    before, end = steps(path), time.monotonic() + DEADLINE
    while not steps(path) - before:
        assert time.monotonic() < end
        assert all(process.poll() is None for process in job.processes), job.text()
        time.sleep(0.02)


def assert_the_last_word_is_ours(log):
    """It may come a moment after the end of the process."""
    end = time.monotonic() + 10
    while True:
        last = log.read_text(errors="replace").strip().splitlines()[-1]
        if last.startswith("error: process ") or time.monotonic() > end:
            break
        time.sleep(0.1)
    assert "has lost the others" in last or "ended from outside" in last
    assert "continues from the latest checkpoint" in last


def final_state(path, **fields):
    config = quickstart.get_config("smoke")
    config.update({"num_train": 400, **fields})
    return test_loop.final_state(path, config)


@pytest.mark.slow
def test_one_two_and_four_processes_with_four_devices_train_alike(tmp_path):
    """Six steps of the adaptive rule on an average; one process to rounding.

    It adds in another order than several, which agree to the bit. Where a ReLU lies at
    its kink, rounding decides whether an example counts for that unit: up to two units
    of a layer, that is columns of its kernel, may differ by more.
    """
    method = "adaste_averaged"
    states = []
    for count in (1, 2, 4):
        path = tmp_path / str(count)
        with Job(path, count, devices=4 // count, epochs=1, method=method) as job:
            assert job.wait() == [0] * count, job.text()
        if count > 1:
            assert "test accuracy" in job.logs[0].read_text()
            assert "test accuracy" not in job.logs[1].read_text()
        states.append(final_state(path, num_epochs=1, method=method))
        result, answers = (
            json.loads((path / name).read_text())
            for name in ("result.json", "answers.json")
        )
        assert np.sum(answers["confusion"]) == answers["images"] == 360
        right = np.trace(answers["confusion"]) / 360
        assert right == pytest.approx(result["test_accuracy"])
    one, two, four = states
    assert int(one.step) == 6
    for a, b in zip(*map(jax.tree.leaves, (two, four)), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert test_loop.records(tmp_path / "2") == test_loop.records(tmp_path / "4")
    lines = [test_loop.layer_lines(tmp_path / count) for count in ("2", "4")]
    assert lines[0] == lines[1]
    for name in ("params", "model_state"):
        pairs = zip(
            *(jax.tree.leaves(getattr(state, name)) for state in (one, two)),
            strict=True,
        )
        for a, b in pairs:
            close = np.isclose(a, b, rtol=1e-5, atol=1e-6 * float(np.abs(b).max()))
            units = np.all(close.reshape(-1, close.shape[-1]), axis=0)
            assert np.sum(~units) <= 2


@pytest.mark.slow
def test_answers_to_a_stream_belong_to_their_images(tmp_path):
    """Red says the class of an image, and 19 of them do not divide among 2 devices."""
    for split, count in (("train", 60), ("test", 19)):
        for number in range(count):
            label = number % 3
            folder = tmp_path / "data" / "marked" / split / f"class {label}"
            folder.mkdir(parents=True, exist_ok=True)
            colour = (80 * label, *((number * at) % 256 for at in (37, 71)))
            Image.new("RGB", (8, 8), colour).save(folder / f"{number:02}.png")
    flags = [f"--config.data_dir={tmp_path / 'data'}", "--config.num_train=0"]
    flags += ["--config.dataset=folder/marked", "--config.batch_size=8"]
    flags += ["--config.eval_batch_size=8"]
    path = tmp_path / "run"
    with Job(path, 2, devices=1, epochs=1, own=[flags, flags]) as job:
        assert job.wait() == [0, 0], job.text()
    answers = json.loads((path / "answers.json").read_text())
    assert answers["images"] == 19
    assert np.sum(answers["confusion"], axis=1).tolist() == [7, 6, 6]
    wrong = 19 - np.trace(answers["confusion"])
    assert 0 < wrong == len(answers["samples"])
    for sample in answers["samples"]:
        assert sample["truth"] != sample["answer"]
        with Image.open(io.BytesIO(base64.b64decode(sample["png"]))) as image:
            assert f"class {image.getpixel((0, 0))[0] // 80}" == sample["truth"]


@pytest.mark.slow
def test_a_job_survives_a_kill_a_preemption_and_another_number_of_processes(
    tmp_path,
):
    path = tmp_path / "run"
    with Job(path, 2, devices=2, epochs=60) as job:
        wait_for_a_new_step(path, job)
        job.processes[1].send_signal(signal.SIGKILL)
        statuses = job.wait(HEARTBEAT + 60)
        assert statuses[0] not in (0, errors.STOPPED)
        assert_the_last_word_is_ours(job.logs[0])
        assert_the_last_word_is_ours(job.logs[1])
    assert not (path / "result.json").exists()
    with Job(path, 2, devices=2, epochs=60) as job:
        wait_for_a_new_step(path, job)
        job.processes[1].send_signal(signal.SIGINT)  # passed on as a SIGTERM
        assert job.wait() == [errors.STOPPED] * 2, job.text()
        assert "ended from outside" not in job.text()
        assert "resuming at step" in job.text()
        assert "the same command continues" in job.text()
    stopped = max(steps(path))
    with Job(path, 1, devices=4, epochs=60) as job:
        assert job.wait() == [0], job.text()
        assert f"resuming at step {stopped}" in job.text()
    epochs = [record["epoch"] for record in test_loop.records(path, "train")]
    assert epochs == list(range(1, 61))


@pytest.mark.slow
def test_the_loss_of_the_first_process_ends_the_others(tmp_path):
    path = tmp_path / "run"
    with Job(path, 2, devices=2, epochs=60) as job:
        wait_for_a_new_step(path, job)
        job.processes[0].send_signal(signal.SIGKILL)
        statuses = job.wait(HEARTBEAT + 60)
        assert statuses[1] not in (0, errors.STOPPED)
        assert_the_last_word_is_ours(job.logs[1])


@pytest.mark.slow
def test_an_error_of_the_first_process_reaches_the_others(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("text")
    with Job(tmp_path / "run", 2, devices=2, epochs=2) as job:
        assert all(status not in (0, errors.STOPPED) for status in job.wait(120))
        assert "holds files but no config.json" in job.logs[0].read_text()


@pytest.mark.parametrize(
    "arguments", [("localhost:1",), (None, 2), (None, None, 1), ("localhost:1", 2)]
)
def test_flags_that_belong_together_are_given_together(arguments):
    with pytest.raises(errors.RunError, match="must be given together"):
        processes.initialize(*arguments)
    assert not jax.distributed.is_initialized()


def test_one_process_agrees_with_itself():
    assert processes.gather(3) == [3]
    processes.agree(None)
    with pytest.raises(errors.RunError, match="why"):
        processes.agree(errors.RunError("why"))
    assert processes.primary_first(lambda: 5) == 5


@pytest.mark.slow
def test_processes_with_other_configs_end_and_name_the_fields(tmp_path):
    own = [[], ["--config.label_smoothing=0.1", "--config.methods.ste.learning_rate=1"]]
    job = Job(tmp_path / "run", 2, devices=1, epochs=1, own=own)
    with job:
        assert job.wait() == [1, 1]
    for log in job.logs:
        text = " ".join(log.read_text().split())
        assert "label_smoothing: 0.1 in process 1, 0.0 in process 0" in text
        assert "methods" not in text  # options of a method that is not used
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_whose_others_do_not_come_ends_and_says_so(tmp_path):
    own = [["--join_timeout=5"]]
    job = Job(tmp_path / "run", 2, devices=1, epochs=1, only=1, own=own)
    with job:
        (status,) = job.wait(120)
    assert status not in (0, errors.STOPPED)
    end = time.monotonic() + 10
    while "have not met" not in job.logs[0].read_text(errors="replace"):
        assert time.monotonic() < end
        time.sleep(0.1)
