"""Text from a decoder, token by token."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.models.decoder import Cache, Decoder


def generate(
    network: Decoder,
    params: Any,
    prompt: Sequence[int],
    *,
    count: int,
    temperature: float = 1.0,
    key: jax.Array,
) -> Iterator[int]:
    """Draws tokens that follow a prompt, each from softmax(logits / temperature).

    Keys and values of past tokens are kept, so that a token costs one position.

    Args:
        network: The network.
        params: Its weights, those that are shipped.
        prompt: Tokens, at least one.
        count: How many tokens follow.
        temperature: 0 takes the most probable token each time.
        key: PRNG key.

    Yields:
        The tokens, one after the other. The same key gives the same tokens.

    Raises:
        ValueError: If the prompt is empty.
    """
    if not prompt:
        raise ValueError("`prompt` must have at least one token.")

    cache = network.new_cache(1, len(prompt) + count)
    tokens = jnp.asarray(prompt, jnp.int32)[None]
    for _ in range(count):
        tokens, cache, key = _step(
            network, bool(temperature), params, tokens, cache, temperature, key
        )
        yield int(tokens[0, 0])


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def _step(
    network: Decoder,
    random: bool,
    params: Any,
    tokens: jax.Array,
    cache: Cache,
    temperature: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Cache, jax.Array]:
    """The next token, [1, 1], what is known after `tokens`, and the next key."""
    found: Any = network.apply({"params": params}, tokens, cache, train=False)
    logits, cache = found
    key, own = jax.random.split(key)
    last = logits[0, -1]
    if random:
        token = jax.random.categorical(own, last / temperature)
    else:
        token = jnp.argmax(last)
    return token[None, None], cache, key
