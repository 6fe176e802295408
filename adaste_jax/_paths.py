"""Choosing leaves of a parameter tree by their paths.

A path is written with slashes, `"body/Dense_0/kernel"`. Every function with a `where`
accepts the same four forms, and raises an error if the choice selects nothing.
"""

import collections
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

Where = Callable[[Any], Any] | Sequence[str] | str | Any
"""Which leaves: a function from the tree to a tree of booleans (like a mask of
`optax.masked`), such a tree, or regular expressions searched for in the path."""


class Method(Protocol):
    """The part of `methods.Method` that is used here."""

    @property
    def where(self) -> Callable[[Any], Any]:
        """From parameters to a tree of booleans: which leaves are latents."""

    @property
    def deploy(self) -> Callable[[Any], Any]:
        """From parameters to the shipped weights."""


def named(tree: Any) -> list[tuple[str, Any]]:
    """Paths and leaves, in the order of `jax.tree.leaves`."""
    return [(_join(path), x) for path, x in jax.tree_util.tree_leaves_with_path(tree)]


def paths(tree: Any) -> list[str]:
    """Paths of all leaves, in the order of `jax.tree.leaves`."""
    return [path for path, _ in named(tree)]


def distinct(tree: Any) -> list[str]:
    """Paths of all leaves, all different, in the order of `jax.tree.leaves`.

    They are those of `paths`. If keys contain slashes, two leaves may have the same
    path, as in `{"a/b": ..., "a": {"b": ...}}`. Then those keys are escaped as in a
    JSON pointer (RFC 6901): the leaf under "a/b" has the path "a~1b".

    If paths are still equal (a container whose keys print alike), every path ends with
    the number of its leaf.
    """
    found = paths(tree)
    shared = collections.Counter(found)
    escaped = ["/".join(map(escape, parts)) for parts in keys(tree)]
    mixed = [
        pointer if shared[path] > 1 else path
        for path, pointer in zip(found, escaped, strict=True)
    ]
    for candidates in (found, mixed, escaped):
        if len(set(candidates)) == len(candidates):
            return candidates
    return [f"{path}[{number}]" for number, path in enumerate(found)]


def keys(tree: Any) -> list[list[str]]:
    """The keys on the way to each leaf, in the order of `jax.tree.leaves`."""
    return [
        [jax.tree_util.keystr((key,), simple=True) for key in path]
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def escape(key: str) -> str:
    """A key as in a JSON pointer: "~" becomes "~0" and "/" becomes "~1"."""
    return key.replace("~", "~0").replace("/", "~1")


def unescape(key: str) -> str:
    """Undoes `escape`."""
    return key.replace("~1", "/").replace("~0", "~")


def _join(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_kernel(path: tuple[Any, ...]) -> bool:
    """Whether a component of a path, as JAX gives them, is called `kernel`."""
    return "kernel" in _join(path).split("/")


def matching(tree: Any, patterns: Sequence[str], *, name: str = "pattern") -> Any:
    """Tree of booleans: true where one of the regular expressions is in the path.

    Raises:
        ValueError: If a pattern is in no path, or is not a regular expression.
    """
    for pattern in patterns:
        try:
            found = any(re.search(pattern, path) for path in paths(tree))
        except re.error as error:
            raise ValueError(
                f"{name} {pattern!r} is not a regular expression: {error}."
            ) from error
        if not found:
            raise ValueError(
                f"{name} {pattern!r} matches nothing. {_listing(paths(tree))}"
            )
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(re.search(pattern, _join(path)) for pattern in patterns),
        tree,
    )


def kernels(*, exclude: Sequence[str] | str = ()) -> Callable[[Any], Any]:
    """Selects the leaves with a path component called `kernel`, as Flax names them.

    Biases, normalisation and embeddings have other names and stay real.

    Args:
        exclude: Regular expressions, searched for in the paths of kernels; kernels
            that match stay real too. `("^stem/", "^head/")` keeps a first and a last
            layer real.

    Returns:
        A function from a parameter tree to a tree of booleans, for `where` of
        `binarize` and for the mask of `optax.masked`. It raises `ValueError` for a
        tree without kernels, and for a pattern that excludes nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> params = {"stem": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
        ...           "body": {"kernel": jnp.ones(2)}}
        >>> kernels(exclude="^stem/")(params)
        {'body': {'kernel': True}, 'stem': {'bias': False, 'kernel': False}}
    """
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)

    def mask(params: Any) -> Any:
        found = jax.tree_util.tree_map_with_path(
            lambda path, _: is_kernel(path), params
        )
        if not any(jax.tree.leaves(found)):
            raise ValueError(
                "no leaf is called `kernel`. For parameters with other names pass "
                "`where`: regular expressions on the path, a tree of booleans, or a "
                f"function that makes one. {_listing(paths(params))}"
            )
        chosen_paths = {path: True for path, chosen in named(found) if chosen}
        excluded = matching(chosen_paths, exclude, name="`exclude` pattern")
        return jax.tree_util.tree_map_with_path(
            lambda path, chosen: chosen and not excluded[_join(path)], found
        )

    return mask


def select(tree: Any, where: Where | None, method: Method | None = None) -> Any:
    """Resolves a `where`, or that of a method, to a tree of booleans like `tree`.

    Raises:
        TypeError: If the mask contains anything but booleans, or both are given.
        ValueError: If `where` selects nothing, or the mask does not fit the tree.
    """
    if method is not None:
        if where is not None:
            raise TypeError(
                "a method comes with `where`: which leaves are latents is the method's "
                "own. Leave one of them out."
            )
        return method.where(tree)
    if where is None:
        where = kernels()
    if isinstance(where, str):
        where = (where,)
    if isinstance(where, Sequence) and where and all(isinstance(w, str) for w in where):
        mask = matching(tree, where)
    else:
        mask = where(tree) if callable(where) else where
        try:
            mask = jax.tree.broadcast(mask, tree)
        except ValueError as error:
            raise ValueError(
                "the mask in `where` does not have the structure of the parameters. "
                f"{_listing(paths(tree))}"
            ) from error
    for path, value in named(mask):
        if not isinstance(value, bool | np.bool_):
            raise TypeError(
                f"`where` must give booleans; at {path!r} it gave {value!r}."
            )
    if not any(jax.tree.leaves(mask)):
        raise ValueError(f"`where` selects nothing. {_listing(paths(tree))}")
    return jax.tree.map(bool, mask)


def _listing(found: Sequence[str], limit: int = 40) -> str:
    shown = ", ".join(repr(path) for path in found[:limit])
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return f"The paths there are: {shown}{more}." if found else "The tree is empty."
