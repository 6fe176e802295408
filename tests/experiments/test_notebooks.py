"""The notebooks run from top to bottom, and what is committed of them is whole."""

import os
import pathlib

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "notebooks"
RUN_HERE = ("binarise_and_ship", "own_loop", "train_cifar10")
NAMES = (*RUN_HERE, "magika")  # which runs in `test_magika.py`


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_all_notebooks_are_tested():
    assert sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def run(name, folder, *, last=""):
    """Runs a notebook in a size of seconds, in a kernel of its own.

    Args:
        name: The notebook.
        folder: An empty folder, for what the notebook and the kernel write.
        last: Code for one more cell at the end.
    """
    book = read(name)
    (place,) = [
        index
        for index, cell in enumerate(book.cells)
        if "parameters" in cell.metadata.get("tags", ())
    ]
    chosen = f'SIZE = "smoke"\nWORKDIR = {str(folder / "run")!r}'
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(chosen))
    book.cells.append(nbformat.v4.new_code_cell(last))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        nbclient.NotebookClient(
            book, timeout=600, resources={"metadata": {"path": str(FOLDER)}}
        ).execute()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN_HERE)
def test_a_notebook_runs(tmp_path, name):
    """On every device there is."""
    if name == "train_cifar10" and "TFDS_DATA_DIR" not in os.environ:
        pytest.skip("TFDS_DATA_DIR is not set: CIFAR-10 would be downloaded")
    run(name, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_outputs_are_of_a_whole_run(name):
    book = read(name)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    kinds = {output.output_type for output in outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    text = (FOLDER / f"{name}.ipynb").read_text()
    assert "\\u001b" not in text  # colours of a terminal
    for folder in ("/tmp/", "/home/", "/root/", "/work/", "/usr/", "site-packages"):
        assert folder not in text
