"""The pages of the three questions about annealing."""

import pathlib
from collections.abc import Iterable, Iterator

from experiments.studies import pages
from experiments.studies.study import FLOAT, Book, Part

STE, ADASTE = "STE", "AdaSTE"
"""Names of the rows that others are compared with."""

_NOTHING = "Nothing is trained yet."


def write(book: Book, folder: pathlib.Path) -> None:
    """Writes the page of a question, and its pictures."""
    name = book.study.name.removeprefix("annealing_")
    if name == "from_float":
        texts, body = _from_float(book, folder)
    else:
        texts, body = {"which": _which, "lasts": _lasts}[name](book, folder)
    command = (
        f"    python -m experiments.studies.annealing {name} --workdir=runs/annealing"
    )
    pages.write(book, folder, texts._replace(command=command), body)


def _which(book: Book, folder: pathlib.Path) -> tuple[pages.Texts, list[str]]:
    conclusion = " ".join(_leads(book) or [_NOTHING])
    about = (
        "All rows train from scratch with Adam. For each the learning rate, and then "
        "the momentum, was chosen on validation with another seed; the test images "
        "were used once for each seed. Annealing ends after 80 % of the steps. Maps "
        "are `adaste`, `parq`, `blend` and `md_tanh_s` of `adaste_jax.methods`, with "
        "the unit of the row. Digits: perceptron 64-128-128-10, 20 epochs; "
        "Fashion-MNIST: perceptron 784-512-512-10, 5 epochs; CIFAR-10: ResNet-8 of 8, "
        "16 and 32 channels on 10,000 images, 10 epochs without augmentation. Such "
        "short runs of small networks say nothing about long training."
    )
    title = "Is it AdaSTE, or any annealed map?"
    return pages.Texts(title, conclusion, about, ""), _sections(book, folder)


def _leads(book: Book) -> list[str]:
    """AdaSTE over STE; then rivals that are told apart from AdaSTE."""
    found = []
    leads = list(_said(book, ADASTE, STE))
    if not leads:
        return []
    found.append(f"AdaSTE is {_listed(leads)}.")
    told, rivals = [], 0
    for part in book.study.parts:
        for row in part.rows:
            if row in (STE, ADASTE, FLOAT):
                continue
            gap = pages.gap(book, part, row, ADASTE)
            rivals += gap is not None and gap.half is not None
            if gap is not None and gap.sure:
                where = "ahead of" if gap.mean > 0 else "behind"
                told.append(f"{row} ({where} it on {part.name}, {pages.said(gap)})")
    if rivals and told:
        found.append(f"Told apart from AdaSTE are {_listed(told)}; the others are not.")
    elif rivals:
        found.append("No other annealed map is told apart from it.")
    return found


def _lasts(book: Book, folder: pathlib.Path) -> tuple[pages.Texts, list[str]]:
    leads = list(_said(book, ADASTE, STE))
    sentences = (
        [f"After the whole training AdaSTE is {_listed(leads)}."] if leads else []
    )
    floats = list(_said(book, FLOAT, STE))
    if floats:
        sentences.append(f"The float network is {_listed(floats)}.")
    about = (
        "All of CIFAR-10 but 5,000 validation images (45,000), cropped and flipped, 30 "
        "epochs of batches of 128 (10,530 steps), cosine to 0. ResNet-8 has three "
        "stages of one block, of 16, 32 and 64 channels, ResNet-20 three blocks in "
        "each; shortcuts are projections. Every kernel is binary, except in the parts "
        "with real ends: there stem and head are real. Learning rates were chosen on "
        "validation after 3 epochs, with another seed. For comparison: ReSTE reports "
        "91.32 % for ResNet-20 with binary weights after long training."
    )
    title = "Does the lead of annealing last?"
    texts = pages.Texts(title, " ".join(sentences) or _NOTHING, about, "")
    return texts, _sections(book, folder)


def _said(book: Book, row: str, base: str) -> Iterator[str]:
    """How a row stands to another, for each part that has both."""
    for part in book.study.parts:
        gap = pages.gap(book, part, row, base)
        if gap is None:
            continue
        seeds = f"{gap.seeds} seeds" if gap.seeds > 1 else "one seed"
        numbers = f"{pages.said(gap)} points, {seeds}"
        if gap.sure:
            side = "ahead of" if gap.mean > 0 else "behind"
            yield f"{side} {base} on {part.name} ({numbers})"
        else:
            yield f"not told apart from {base} on {part.name} ({numbers})"


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _sections(book: Book, folder: pathlib.Path) -> list[str]:
    """A table and a picture for each part that has lines."""
    body = []
    for part in book.study.parts:
        if not any(book.tested(part, row) for row in part.rows):
            continue
        bases = [base for base in (STE, ADASTE) if base in part.rows]
        body += [f"## {part.name}", pages.table(book, part, bases).rstrip()]
        letters = "".join(c if c.isalnum() else "_" for c in part.name.lower())
        picture = f"{book.study.name}_{letters}.png"
        if pages.draw_seeds(book, part, folder / picture, STE):
            body.append(f"![seeds and differences]({picture})")
    return body


def _networks(book: Book) -> dict[tuple[str, bool], list[Part]]:
    """The parts of each network, without and with a teacher, by share."""
    found: dict[tuple[str, bool], list[Part]] = {}
    for part in book.study.parts:
        assert part.start is not None
        found.setdefault((part.start.name, part.distil), []).append(part)
    by_epochs = lambda part: part.config.num_epochs
    return {name: sorted(parts, key=by_epochs) for name, parts in found.items()}


def share(part: Part) -> float:
    """The steps of a part, in % of those of the float network."""
    assert part.start is not None
    return 100 * part.config.num_epochs / part.start.config.num_epochs


def _from_float(book: Book, folder: pathlib.Path) -> tuple[pages.Texts, list[str]]:
    networks = _networks(book)
    body, panels = [], []
    for (name, distil), parts in networks.items():
        start = parts[0].start
        assert start is not None
        reference = pages.values(book, start, FLOAT)
        table = _shares(book, parts, reference)
        heading = f"## {name}" + (", distilled" if distil else "")
        if table:
            body += [heading, table]
        curves = {
            row: {share(part): pages.values(book, part, row) for part in parts}
            for row in parts[0].rows
        }
        label = "test accuracy (%)" if parts[0].measure == "accuracy" else "bits a byte"
        xlabel = "steps, % of the float network's"
        title = heading.removeprefix("## ")
        panels.append(pages.Panel(title, xlabel, label, curves, reference))
    picture = f"{book.study.name}.png"
    if pages.draw_curves(folder / picture, panels):
        body.insert(0, f"![over the share of the steps]({picture})")
    about = (
        "A float network is trained for 100 epochs, one for each seed; then all rows "
        "start from it and are trained on for a share of its steps, without a teacher "
        "or with the float network as one (weight 0.5, temperature 4). Learning rates "
        "were chosen on validation at a share of 5 %, without a teacher, and used for "
        "all shares. STE, the linear blend (identity: AdaSTE's map without its bound "
        "and margin, which starts at the latents), PARQ, two stages (the blend in the "
        "first half, STE in the second, each with its own cosine) and the progressive "
        "tanh have a scale for each channel; AdaSTE is its recommended form. Cells: "
        "mean over seeds, and in brackets how much better than STE, with the 95 % "
        "interval of the paired difference. Vision transformer: Fashion-MNIST, 5,000 "
        "images; language model: bits per byte on the text of Python's reference, "
        "1,200 examples; ResNet-8: CIFAR-10, 10,000 images, cropped and flipped, stem "
        "and head real."
    )
    title = "From a float network: does annealing pay?"
    conclusion = " ".join(_aims(book, networks) or [_NOTHING])
    return pages.Texts(title, conclusion, about, ""), body


def _shares(book: Book, parts: list[Part], reference: pages.Values) -> str:
    """A row of a table for each row, a column for each share."""
    head = ["row", *(f"{share(part):g} %" for part in parts)]
    lines = [head, ["---"] * len(head)]
    digits = 2 if parts[0].measure == "accuracy" else 3
    for row in parts[0].rows:
        cells = []
        for part in parts:
            found = pages.values(book, part, row)
            gap = pages.gap(book, part, row, STE) if row != STE else None
            mean = sum(found.values()) / len(found) if found else 0.0
            text = f"{mean:.{digits}f}" if found else ""
            cells.append(text + (f" ({pages.said(gap, digits)})" if gap else ""))
        if any(cells):
            lines.append([row, *cells])
    if len(lines) == 2:
        return ""
    if reference:
        mean = sum(reference.values()) / len(reference)
        lines.append([FLOAT, f"{mean:.{digits}f}", *[""] * (len(parts) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _aims(book: Book, networks: dict[tuple[str, bool], list[Part]]) -> list[str]:
    """Who is ahead of STE on all networks, by share; and how far from float."""
    sentences = []
    for distil in (False, True):
        chosen = [parts for (_, one), parts in networks.items() if one == distil]
        for same in zip(*chosen, strict=True):
            rows = [row for row in same[0].rows if row != STE]
            gaps = {
                row: [pages.gap(book, one, row, STE) for one in same] for row in rows
            }
            known = {row: [g for g in found if g] for row, found in gaps.items()}
            known = {
                row: found for row, found in known.items() if len(found) == len(same)
            }
            if not known:
                continue
            ahead = [
                row
                for row, found in known.items()
                if all(gap.sure and gap.mean > 0 for gap in found)
            ]
            teacher = " with a teacher" if distil else ""
            names = _listed(ahead) if ahead else "nothing"
            sentences.append(
                f"At {share(same[0]):g} % of the float steps{teacher}, ahead of STE on "
                f"all {len(same)} networks by an interval that excludes 0: {names}."
            )
    for (name, distil), parts in networks.items():
        start = parts[0].start
        assert start is not None
        if not name.startswith("ResNet"):
            continue
        reference = pages.values(book, start, FLOAT)
        for part in parts:
            if round(share(part)) != 10:
                continue
            behind = {
                row: pages.of_values(
                    pages.values(book, part, row), reference, "accuracy"
                )
                for row in part.rows
            }
            best = max(
                ((gap.mean, row, gap) for row, gap in behind.items() if gap),
                default=None,
            )
            if best:
                teacher = " with a teacher" if distil else ""
                sentences.append(
                    f"On {name} at 10 %{teacher} the best row is {best[1]}, "
                    f"{pages.said(best[2])} points to float."
                )
    return sentences
