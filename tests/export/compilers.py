"""C compilers of this machine, and networks that they make programs of."""

import functools
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
import pytest

STRICT = ("-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror")
SANITIZED = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
needs_arm = pytest.mark.skipif(
    not shutil.which("arm-none-eabi-gcc"), reason="needs gcc-arm-none-eabi"
)


@functools.cache
def sanitizers():
    """The flags of the sanitizers, where their libraries are installed."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "empty.c")
        source.write_text("int main(void) { return 0; }\n")
        command = ["gcc", *SANITIZED, str(source), "-o", f"{folder}/empty"]
        done = subprocess.run(command, capture_output=True, check=False)
        return SANITIZED if done.returncode == 0 else ("-O0",)


def compiled(sources, folder, flags=None):
    """The program of sources, which must compile without a warning.

    Errors of memory and undefined behaviour end it, where gcc has what that needs.
    """
    for name, text in sources.items():
        (folder / name).write_text(text)
    flags = sanitizers() if flags is None else flags
    command = ["gcc", *STRICT, *flags, "main.c", "-o", "network"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "network"


def outputs(sources, inputs, folder):
    """The indices that a network prints, and its outputs, as rows."""
    program = compiled(sources, folder)
    given = np.ascontiguousarray(inputs).tobytes()
    done = subprocess.run([program], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    return np.array([int(row[0]) for row in rows]), np.array(
        [[float(number) for number in row[1:]] for row in rows], np.float32
    )


def sizes(sources, folder, compiler, *flags):
    """Bytes of flash and of memory of the network alone, without `main`."""
    for name, text in sources.items():
        (folder / name).write_text(text)
    unit = folder / "unit.c"
    unit.write_text(
        '#include "network.h"\n'
        "void run(const network_input *x, network_output *y) { network(x, y); }\n"
    )
    command = [compiler, *STRICT, "-Os", *flags, "-c", str(unit), "-o", f"{unit}.o"]
    subprocess.run(command, check=True)
    report = subprocess.run(
        ["size", f"{unit}.o"], capture_output=True, text=True, check=True
    )
    text, data, bss = map(int, report.stdout.splitlines()[1].split()[:3])
    return text + data, data + bss
