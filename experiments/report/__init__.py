"""One page about a run, or several over each other: curves, layers, sizes, config.

    python -m experiments.report --workdir runs/a runs/b --out=report.html

A run writes `report.html` into its workdir when it ends. The page is one file: the
charts are SVG of matplotlib, so it needs neither a script nor a network, follows dark
mode, and can be read on a phone.
"""

from experiments.report.html import page

__all__ = ["page"]
