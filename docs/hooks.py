"""What the site has besides the Markdown in this folder; MkDocs calls the functions.

The front page is the README. Each page of `methods/` ends with the defaults of its
method and what was measured of it, taken from the code and the tables in `results/`, so
that a number stands in one place.
"""

import importlib
import pathlib
import re
import zlib
from collections.abc import Iterable
from typing import Any

from docs import browser
from experiments import methods

DOCS = pathlib.Path(__file__).parent
# Comparisons of methods, and what their columns are called in the table of all methods.
TABLES = {
    "compare_digits": "digits",
    "compare_fashion_mnist": "Fashion-MNIST",
    "compare_cifar10": "CIFAR-10, a subset",
}
# Files of the repository that are pages too, and their places on the site.
FRONT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
}


def title(path: pathlib.Path) -> str:
    """The first heading of a page."""
    return re.search(r"^# (.+)$", path.read_text("utf-8"), re.MULTILINE)[1]


def rows(path: pathlib.Path) -> dict[str, dict[str, str]]:
    """The rows of the first table with a column `method`, by method and column."""
    lines = path.read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    head = next(i for i, row in enumerate(cells) if row[:1] == ["method"])
    found = {}
    for row in cells[head + 2 :]:
        if not row:
            break
        found[row[0]] = dict(zip(cells[head], row, strict=True))
    return found


def table(head: list[str], body: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def method_page(name: str) -> str:
    """Defaults, measurements and commands of one method."""
    options = methods.defaults()[name].to_dict()
    measured = []
    for page in TABLES:
        row = rows(DOCS / "results" / f"{page}.md").get(name)
        if row is not None:
            columns = [key for key in row if key.split(",")[0] in SHOWN]
            link = f"[{title(DOCS / 'results' / f'{page}.md')}](../results/{page}.md)"
            measured.append([link, *(row[key] for key in columns)])
    parts = [
        "## Defaults",
        f"Fields of `config.methods.{name}`.",
        table(
            ["option", "default"],
            [[f"`{key}`", f"`{value!r}`"] for key, value in options.items()],
        ),
        "## Measured",
    ]
    if measured:
        parts += [
            table(["task", *columns], measured),
            "Mean ± standard deviation over seeds; the difference is paired by seed, "
            "with its 95 % interval. Short runs of small networks: they say nothing "
            "about long training.",
        ]
    else:
        parts.append("Nothing yet in the tables of all methods.")
    parts += [
        "## Commands",
        "    python -m experiments.main "
        "--config=experiments/configs/quickstart.py \\\n"
        f"        --workdir=runs/{name} --config.method={name}\n"
        f"    python -m experiments.compare "
        "--config=experiments/configs/quickstart.py \\\n"
        f"        --methods={name},ste --seeds=3 --workdir=runs/compare_{name}",
    ]
    return "\n\n".join(parts)


SHOWN = ("learning rate", "test accuracy", "difference to ste", "flips per epoch")


# Modules of `adaste_jax.methods`, and what their methods have in common.
FAMILIES = {
    "_adaste": "AdaSTE",
    "_straight_through": "Signs, with a gradient of their own",
    "_soft": "Soft weights, most of which sharpen",
    "_random": "Weights drawn at random",
    "_scaled": "Signs with a scale",
    "_periodic": "Weights that are periodic in the latents",
    "_ternary": "Three levels",
    "_optimisers": "By the optimiser alone, and full precision",
}


def picture(name: str) -> str:
    """The first picture of a method, with a link to its page; empty without one."""
    page = (DOCS / "methods" / f"{name}.md").read_text("utf-8")
    found = re.search(r"^!\[.*?\](\(.+?\))", page, re.MULTILINE)
    return f"[![{name}]{found[1]}{{ loading=lazy }}]({name}.md)" if found else ""


def _distinct(pictures: Iterable[str]) -> list[str]:
    """Each picture once, with the first of its links: some methods share one."""
    found: dict[str, str] = {}
    for markup in filter(None, pictures):
        found.setdefault(re.search(r"[\w/.]+\.png", markup)[0], markup)
    return list(found.values())


def methods_by_family() -> str:
    """All methods by family: pictures, and tables with what was measured."""
    found = [rows(DOCS / "results" / f"{page}.md") for page in TABLES]
    heads = [f"[{label}](../results/{page}.md), %" for page, label in TABLES.items()]
    parts = []
    for module, family in FAMILIES.items():
        names = [
            name
            for name, function in methods.METHODS.items()
            if function.__module__ == f"adaste_jax.methods.{module}"
        ]
        body = [
            [
                f"[{title(DOCS / 'methods' / f'{name}.md')}]({name}.md)",
                f"`{name}`",
                *(table.get(name, {}).get("test accuracy, %", "") for table in found),
            ]
            for name in names
        ]
        parts += [
            f"## {family}",
            table(["method", "`config.method`", *heads], body),
            "\n".join(_distinct(map(picture, names))),
        ]
    return "\n\n".join(parts)


def on_config(config: Any) -> Any:
    """Puts the pages of a folder in the place of its name, and new guides last."""
    orders = {"methods/": list(methods.METHODS), "api/": API}

    def pages(folder: str) -> list[str]:
        names = [path.stem for path in (DOCS / folder).glob("*.md")]
        order = ["index", *orders.get(folder, [])]
        key = lambda name: (order.index(name) if name in order else len(order), name)
        return [f"{folder}{name}.md" for name in sorted(names, key=key)]

    named = re.findall(r"[\w/]+\.md", str(config.nav)) + list(FRONT.values())
    others = sorted({path.name for path in DOCS.glob("*.md")} - set(named))
    config.nav = [
        {
            label: pages(value)
            if isinstance(value, str)
            else value + others * (label == "Guides")
            for label, value in entry.items()
        }
        for entry in config.nav
    ]
    return config


API = [
    *("methods", "estimators", "optim", "linen", "nnx"),
    *("train", "metrics", "export", "datasets"),
]


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages whose sources lie outside this folder."""
    from mkdocs.structure.files import File  # the rest of this file needs no MkDocs

    for source, place in FRONT.items():
        text = (DOCS.parent / source).read_text("utf-8")
        text = re.sub(r"\]\(docs/results/\)", "](results/index.md)", text)
        text = text.replace("](docs/", "](").replace("](README.md", "](index.md")
        # What is no page is named only.
        elsewhere = r"(?<!!)\[([^]]*)\]\((?!https?:|#)([\w./-]+)(?<!\.md)\)"
        text = re.sub(elsewhere, r"\1 (`\2`)", text)
        files.append(File.generated(config, place, content=text))
    missing = browser.fetch()
    if missing:
        print(f"The demo is built without its engine, and says so: {missing}.")
    for place, data in browser.files().items():
        files.append(File.generated(config, f"demo/{place}", content=data))
    return files


def on_nav(nav: Any, **_: Any) -> Any:
    """Adds the demo, which is a page of its own and none in Markdown."""
    from mkdocs.structure.nav import Link

    nav.items.append(Link("Demo", "demo/index.html"))
    return nav


def _linked(cell: re.Match[str]) -> str:
    name = cell[1]
    return f"| [{name}](../methods/{name}.md) |" if name in methods.METHODS else cell[0]


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fills a page of a method, and mends links that lead out of the folder."""
    src = page.file.src_uri
    folder, _, name = src.rpartition("/")
    for source, place in FRONT.items():
        up = "../" * (folder.count("/") + 1 if folder else 0)
        markdown = markdown.replace(f"]({up}../{source}", f"]({up}{place}")
    if src == "methods/index.md":
        markdown = markdown.replace("<!-- methods -->", methods_by_family())
    elif folder == "methods":
        markdown = f"{markdown}\n\n{method_page(name.removesuffix('.md'))}\n"
    elif folder == "results":
        markdown = re.sub(r"(?m)^\| (\w+) \|", _linked, markdown)
    # Numbers do not break within a cell.
    return re.sub(
        r"(?m) ([±→]) (?=.*\|$)", "\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", markdown
    )


EXTERNAL: dict[str, list[str]] = {}


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Notes the links that lead elsewhere, and keeps each flag in one piece."""
    for link in re.findall(r'<a [^>]*href="(https?://[^"]+)"', html):
        EXTERNAL.setdefault(link, []).append(page.file.src_uri)
    return re.sub(
        r"<code>(-[^\s<]{1,32})</code>", r'<code class="flag">\1</code>', html
    )


def on_post_build(config: Any) -> None:
    """Lists external links, and checks that the reference has every public name."""
    from mkdocs.exceptions import PluginError

    lines = [f"{link}  {' '.join(sorted(set(on)))}" for link, on in EXTERNAL.items()]
    listed = pathlib.Path(config.site_dir) / "external_links.txt"
    listed.write_text("\n".join(sorted(lines)) + "\n", "utf-8")

    inventory = (pathlib.Path(config.site_dir) / "objects.inv").read_bytes()
    lines = zlib.decompress(inventory.split(b"\n", 4)[4]).decode("utf-8").splitlines()
    shown = {line.split(" ")[0] for line in lines}
    names = {"adaste_jax": importlib.import_module("adaste_jax").__all__}
    for page in API:
        module = f"adaste_jax.{'nn.' if page in ('linen', 'nnx') else ''}{page}"
        found = importlib.import_module(module)
        own = [n for n, v in vars(found).items() if _is_public(n, v, module)]
        names[module] = getattr(found, "__all__", own)
    missing = {f"{m}.{n}" for m, ns in names.items() for n in ns} - shown
    missing -= {"adaste_jax.nn"}  # which holds `linen` and `nnx`, and no more
    if missing:
        raise PluginError(
            f"without a docstring, or not in docs/api: {', '.join(sorted(missing))}."
        )


def _is_public(name: str, value: Any, module: str) -> bool:
    return not name.startswith("_") and getattr(value, "__module__", None) == module
