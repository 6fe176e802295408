"""What to watch while binary weights train: flips, saturation, dead gradients.

Every share takes parameter trees, gives a float32 scalar, and may be called inside
`jit`. It is between 0 and 1, 0 where there are no entries, and NaN where one of them is
NaN. `by_path` gives a share of each leaf; `nonfinite` counts what is NaN or infinite in
any tree.

Which leaves are latents says `method`, from `adaste_jax.methods`; without one `where`,
by regular expressions on the path, a tree of booleans, or a function from the tree to
one. The default is all leaves called `kernel`. A method also says what is shipped of
them; without one that is the sign.
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
