"""Sends a one-bit file with its card to a hub of models, or fetches one.

    adaste hub --push=NAME/digits --model=digits.safetensors --workdir=runs/digits \
        --licence=apache-2.0
    adaste hub --pull=NAME/digits --out=digits

NAME is an account of huggingface.co, whose client is a package of its own,
`huggingface_hub`; `hf auth login` tells it who you are. A hub that begins with `.`, `/`
or `~` is a folder, and needs no client: so you see what would be sent.
"""

import functools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from experiments import command_line, errors
from experiments import console as consoles
from experiments.deployment import model_card, networks


def push(
    hub: str,
    file: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    licence: str,
    name: str = "",
    private: bool = False,
) -> str:
    """Sends a file and its card.

    Args:
        hub: Repository of the hub, `"NAME/digits"`, made if it is not there; or a
            folder.
        file: The file that `experiments.export` wrote.
        workdir: Folder of the run that trained it, which has ended.
        licence: Identifier of the licence of the weights, "apache-2.0".
        name: Title of the card. Default: the name of the file without its ending.
        private: Whether a new repository is private.

    Returns:
        Where it is: an address, or the path of the folder.

    Raises:
        RunError: If the file is no one-bit file, the run has no result, there is no
            client, or the hub refuses. Nothing is sent then.
    """
    file = pathlib.Path(file)
    networks.load(file)
    folder = _folder(hub)
    client: Any = None if folder else _client()
    with tempfile.TemporaryDirectory() as made:
        copy = pathlib.Path(shutil.copy(file, made))
        sent = [copy]
        if (beside := networks.tokenizer_beside(file)).exists():
            sent.append(pathlib.Path(shutil.copy(beside, made)))
        card = model_card.write(workdir, copy, licence=licence, name=name)
        if folder:
            model_card.check(folder)
            _copy([*sent, card], folder)
            return os.fspath(folder)

        def send() -> str:
            api = client.HfApi()
            api.create_repo(hub, exist_ok=True, private=private or None)
            api.upload_folder(repo_id=hub, folder_path=made)
            return f"{client.constants.ENDPOINT}/{hub}"

        return _refusals(hub, send)


def pull(hub: str, out: str | os.PathLike[str]) -> pathlib.Path:
    """Fetches the one-bit file of a repository and its card.

    Args:
        hub: Repository of the hub, `"NAME/digits"`; or a folder.
        out: Folder to which they are written.

    Returns:
        Path of the file, which has been checked: `networks.load` takes it.

    Raises:
        RunError: If there is no client, the hub refuses, or there is not one one-bit
            file.
    """
    out, there = pathlib.Path(out), _folder(hub)
    if there is None:
        client: Any = _client()
        kinds = ["*.safetensors", "*.tokenizer.json", model_card.NAME]
        call = functools.partial(client.snapshot_download, hub, allow_patterns=kinds)
        there = pathlib.Path(_refusals(hub, call))
    found = sorted(there.glob("*.safetensors"))
    if len(found) != 1:
        raise errors.RunError(
            f"{hub} must hold one .safetensors file; it holds "
            f"{', '.join(file.name for file in found) or 'none'}."
        )
    networks.load(found[0])
    beside = networks.tokenizer_beside(found[0]), there / model_card.NAME
    _copy([*found, *(file for file in beside if file.exists())], out)
    return out / found[0].name


def _copy(files: Sequence[pathlib.Path], folder: pathlib.Path) -> None:
    """Copies files into a folder, which is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise errors.RunError(f"cannot write to {folder}: {error}") from error


def _folder(hub: str) -> pathlib.Path | None:
    """The folder that is meant; None for a repository."""
    return pathlib.Path(hub).expanduser() if hub[:1] in (".", "/", "~") else None


def _client() -> Any:
    """The package `huggingface_hub`.

    Raises:
        RunError: If it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise errors.RunError(
            f"a hub needs the package huggingface_hub ({error}): pip install "
            '"adaste_jax[hub]". A folder, ./NAME, needs none.'
        ) from error
    return huggingface_hub


def _refusals(hub: str, call: Callable[[], str]) -> str:
    """What the call gives; what its client and the hub refuse is a RunError."""
    try:
        return call()
    except (OSError, ValueError) as error:  # those of the client are among them
        reason = str(error).strip().split("\n")[0]
        raise errors.RunError(
            f"{hub}: {reason or type(error).__name__}. `hf auth login` says who you "
            "are; a folder begins with `.`, `/` or `~`."
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Sends or fetches, and prints where it is."""
    parser = command_line.Parser(
        "experiments.hub",
        "Sends a one-bit file with its card to a hub of models, or fetches one.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--push", metavar="HUB", help="send: NAME/REPOSITORY, or ./FOLDER"
    )
    what.add_argument("--pull", metavar="HUB", help="fetch: the same")
    parser.add_argument("--model", help="with --push: one-bit file")
    parser.add_argument("--workdir", help="with --push: folder of its run")
    parser.add_argument("--licence", help="with --push: of the weights, apache-2.0")
    parser.add_argument("--name", default="", help="with --push: title of the card")
    parser.add_argument(
        "--private", action="store_true", help="with --push: nobody else sees it"
    )
    parser.add_argument("--out", help="with --pull: folder for the file and its card")
    console = consoles.program()
    given = parser.parse_args(argv)
    needed = ("model", "workdir", "licence") if given.push else ("out",)
    other = (
        ("out",) if given.push else ("model", "workdir", "licence", "name", "private")
    )
    word = "push" if given.push else "pull"
    for name in needed:
        if not getattr(given, name):
            parser.error(f"--{word} needs --{name}")
    parser.refuse(given, other, beside=f"--{word}")
    with command_line.refusals(console):
        if given.push:
            place = push(
                given.push,
                given.model,
                given.workdir,
                licence=given.licence,
                name=given.name,
                private=given.private,
            )
            consoles.say(console, f"{given.model} and its card are at {place}")
        else:
            file = pull(given.pull, given.out)
            consoles.say(console, f"{file}: adaste predict --model={file}")


if __name__ == "__main__":
    main()
