"""Reports of one run or several: a page with curves, layers, sizes and config.

    python -m experiments.report --workdir runs/a runs/b --out=report.html

A run writes `report.html` into its workdir when it ends. The page is one file. Its
charts are SVG of Matplotlib, so it needs neither scripts nor a network, follows dark
mode, and can be read on a phone.
"""

from experiments.report.html import page

__all__ = ["page"]
