"""What to watch while binary weights train: flips, saturation, dead gradients.

Every share takes parameter trees, returns a float32 scalar, and may be called inside
`jit`. It is between 0 and 1, 0 if there are no entries, and NaN if an entry is NaN.
`by_path` returns a share for each leaf; `nonfinite` counts NaN and infinite entries of
any tree.

`method`, from `adaste_jax.methods`, says which leaves are latents and what is shipped
for them. Without a method `where` selects the leaves, by regular expressions on the
path, a tree of booleans, or a function from the tree to one. Its default is all leaves
called `kernel`, and their signs are shipped.
"""

from adaste_jax.metrics._nonfinite import nonfinite
from adaste_jax.metrics._shares import (
    by_path,
    flip_rate,
    flip_rate_since,
    pack_signs,
    saturated_share,
    zero_share,
)

__all__ = [
    "by_path",
    "flip_rate",
    "flip_rate_since",
    "nonfinite",
    "pack_signs",
    "saturated_share",
    "zero_share",
]
