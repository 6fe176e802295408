"""What a run depends on besides its config: data, and networks it starts from."""

from collections.abc import Mapping
from typing import Any


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], *, begun: bool
) -> list[str]:
    """Differences between the origin that a run recorded and the origin now.

    Args:
        before: The recorded origin: `data`, `init_from` and `teacher`, as JSON.
        now: The origin now.
        begun: Whether the run has checkpoints; then `init_from` is ignored.

    Returns:
        A line for each difference.
    """
    lines = differences(before["data"], now["data"])
    for name in ("teacher",) if begun else ("teacher", "init_from"):
        there, here = (origin.get(name) or {} for origin in (before, now))
        if there != here:
            words = [f"step {one['step']}" if one else "none" for one in (there, here)]
            lines.append(f"{name}: {words[0]} then, {words[1]} now, other bits")
    return lines


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences between two identities of data, one line each.

    Args:
        before: Identity from `datasets.Splits.identity`, perhaps read from JSON.
        now: The identity to compare with it.

    Returns:
        The lines; none if no difference was found.
    """
    lines = []
    for part in ("train", "validation", "test"):
        one, other = before.get(part), now.get(part)
        if one is None or other is None:
            continue
        sizes = [known["examples"] for known in (one, other)]
        digests = [known["digest"] for known in (one, other)]
        if sizes[0] != sizes[1]:
            lines.append(f"{part}: {sizes[0]} examples then, {sizes[1]} now")
        elif None in digests or digests[0] == digests[1]:
            continue
        elif one["source"] != other["source"]:
            lines.append(f"{part}: {one['source']} then, {other['source']} now")
        else:
            lines.append(f"{part}: {sizes[0]} examples then and now, but other ones")
    if "classes" in before and before["classes"] != now.get("classes"):
        lines.append(
            f"classes: {_listing(before['classes'])} then, "
            f"{_listing(now.get('classes'))} now"
        )
    return lines


def _listing(classes: Any) -> str:
    if not isinstance(classes, list | tuple):
        return str(classes)
    shown = ", ".join(map(str, classes[:5]))
    return f"{len(classes)} ({shown}{', ...' if len(classes) > 5 else ''})"
