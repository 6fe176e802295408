"""The arithmetic of one bit: a sign that is never zero, and scales of a tensor."""

import jax
import jax.numpy as jnp


@jax.jit
def sign(x: jax.Array) -> jax.Array:
    """Gives +1 where x >= 0 (at 0 and -0.0 too) and -1 elsewhere, in the dtype of x.

    The only sign of the library: training, deployment and packing all call it. It is
    always compiled, because compiled code flushes subnormal numbers to zero
    (`-1e-40 >= 0` holds there and not in NumPy) and a weight must have one sign
    everywhere. `jnp.sign` will not do: it is 0 at 0.
    """
    one = jnp.ones((), x.dtype)
    return jnp.where(x >= 0, one, -one)


def root_mean_square(x: jax.Array) -> jax.Array:
    """Root mean square of all entries, and 1 for a tensor of zeros.

    Entries are divided by the largest magnitude first, so that squares of finite
    entries neither overflow nor vanish.
    """
    largest = jnp.max(jnp.abs(x))
    largest = jnp.where(largest > 0, largest, jnp.ones((), x.dtype))
    rms = largest * jnp.sqrt(jnp.mean(jnp.square(x / largest)))
    return jnp.where(rms > 0, rms, jnp.ones((), x.dtype))
