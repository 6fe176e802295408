"""The page of a one-bit file on a hub of models, made from the run that trained it.

Such a page is a `README.md` beside the file: what hubs read stands at its top, between
two lines of dashes. Nothing is sent anywhere.
"""

import hashlib
import os
import pathlib
import pprint
import shlex
from collections.abc import Mapping
from typing import Any

from experiments import errors
from experiments.runs import identity, small_files, workdir

NAME = "README.md"


def write(
    folder: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    licence: str,
    name: str = "",
) -> pathlib.Path:
    """Writes the card beside the file.

    The card has the test accuracy of the run, the size of the file and its checksum,
    how to run it, and the config with which the run can be repeated, without paths of
    this machine.

    Args:
        folder: The workdir of the run, which has ended.
        file: The file that `experiments.export` wrote.
        licence: Identifier of the licence of the weights, "apache-2.0". You choose it;
            the data may restrict the choice.
        name: Title of the card. Default: the name of the file without its ending.

    Returns:
        The path of the card.

    Raises:
        RunError: If the run has no result or the file cannot be read, or a card that
            was not written by this function stands there.
    """
    file = pathlib.Path(file)
    result = workdir.finished(folder)
    if result is None:
        raise errors.RunError(
            f"{folder} has no {workdir.RESULT}: a card needs the test accuracy of a "
            "run that has ended. The command of the run continues it."
        )
    try:
        data = file.read_bytes()
    except OSError as error:
        raise errors.RunError(f"cannot read {file}: {error}") from error
    card = file.parent / NAME
    check(file.parent)
    small_files.write(card, _card(result, file.name, data, licence, name or file.stem))
    return card


def check(folder: pathlib.Path) -> None:
    """Refuses a folder in which another card stands than one that was written here.

    Raises:
        RunError: If there is one.
    """
    card = folder / NAME
    if card.exists() and _MARK not in card.read_text("utf-8", "replace"):
        raise errors.RunError(
            f"{card} is not a card that was written here: move it, or put the file "
            "into a folder of its own."
        )


_MARK = "library_name: adaste_jax"


def _card(
    result: Mapping[str, Any], file: str, data: bytes, licence: str, name: str
) -> str:
    """The text of a card."""
    config = identity.config_of(result["config"])
    kept = identity.changed(config)
    fields = pprint.pformat(kept, sort_dicts=False).replace("\n", "\n        ")
    accuracy = result["test_accuracy"]
    binary, real = result["one_bit_parameters"], result["real_parameters"]
    data_set = small_files.dumps(config.dataset)
    heads = [
        f"license: {small_files.dumps(licence)}",
        _MARK,
        "tags: [jax, flax, quantization, one-bit]",
        "model-index:",
        f"- name: {small_files.dumps(name)}",
        "  results:",
        "  - task: {type: classification}",
        f"    dataset: {{name: {data_set}, type: {data_set}}}",
        f"    metrics: [{{type: accuracy, value: {accuracy:.6g}}}]",
    ]
    versions = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    rows = {
        "test accuracy": f"{100 * accuracy:.2f} %, on {config.dataset}",
        "method": f"`{config.method}`, seed {result['seed']}",
        "parameters": f"{binary:,} of one bit, {real:,} real",
        "file": f"`{file}`, {len(data):,} bytes: "
        f"{8 * len(data) / (binary + real):.2f} bits a parameter",
        "SHA-256": f"`{hashlib.sha256(data).hexdigest()}`",
        "versions": versions,
    }
    lines = ["---", *heads, "---", "", f"# {name}", "", "| | |", "| --- | --- |"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join(lines) + _REST.format(
        file=file, argument=shlex.quote(file), fields=fields
    )


_REST = """

## Run it

```sh
adaste predict --model={argument}
```

or `adaste_jax.export.load("{file}")` for its weights.

## Train it again

With this as `config.py`, `adaste train config.py --workdir=run`:

```python
from experiments.runs import identity


def get_config():
    return identity.config_of(
        {fields}
    )
```
"""
