"""Decoders in the shape of Qwen3 and Llama: what llama.cpp and `transformers` run."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from experiments.models import layers

ACTIVATIONS = {"silu": nn.silu, "relu2": lambda x: jnp.square(nn.relu(x))}
"""Of the gate of the MLP, by the names of Hugging Face: SwiGLU and ReLU²."""

SCANS = ("auto", "on", "off")
"""Whether blocks are one program that is scanned; see `Decoder`."""


class Cache(NamedTuple):
    """Keys and values of the tokens so far, for every block.

    Attributes:
        keys: [depth, batch, capacity, kv_heads, head_dim].
        values: The same.
        length: Number of tokens in it, an int32 of shape [].
    """

    keys: jax.Array
    values: jax.Array
    length: jax.Array


class Block(layers.Network):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    The MLP is contract(f(gate(x)) * expand(x)). Attributes are those of `Decoder`.
    """

    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    activation: str
    qk_norm: bool
    sub_norm: bool
    rope_theta: float
    norm_eps: float
    dtype: Dtype | None = None

    @nn.nowrap
    def wire(
        self,
        make: layers.Layers,
        x: jax.Array,
        past: tuple[jax.Array, jax.Array] | None,
        start: jax.Array,
    ) -> Any:
        """Activations [batch, length, width] to the next ones, and the cache's parts.

        Args:
            make: Layers of the network.
            x: Activations.
            past: Keys and values of the cache, [batch, capacity, kv_heads, head_dim];
                or None, and only the tokens here are looked at.
            start: Position of the first token, an integer of shape [].
        """
        norm = lambda name: make.rms_norm(name=name, eps=self.norm_eps)
        width, length = x.shape[-1], x.shape[1]
        seen = norm("attention_norm")(x)

        def heads(name: str, number: int) -> jax.Array:
            found = make.dense(number * self.head_dim, name=name)(seen)
            return found.reshape(*x.shape[:2], number, self.head_dim)

        query, key = heads("query", self.heads), heads("key", self.kv_heads)
        value = heads("value", self.kv_heads)
        if self.qk_norm:
            query, key = norm("query_norm")(query), norm("key_norm")(key)
        positions = start + jnp.arange(length)
        query = rotate(query, positions, self.rope_theta)
        key = rotate(key, positions, self.rope_theta)
        if past is not None:
            place = (0, start, 0, 0)
            key, value = (
                jax.lax.dynamic_update_slice(before, new.astype(before.dtype), place)
                for before, new in zip(past, (key, value), strict=True)
            )
        looks = jnp.arange(key.shape[1])[None] <= positions[:, None]
        found = jax.nn.dot_product_attention(
            query,
            key.astype(query.dtype),
            value.astype(query.dtype),
            mask=looks[None, None],
        )
        found = found.reshape(*x.shape[:2], self.heads * self.head_dim)
        if self.sub_norm:
            found = norm("out_norm")(found)
        x = x + make.dense(width, name="out")(found)
        seen = norm("mlp_norm")(x)
        gate = ACTIVATIONS[self.activation](make.dense(self.hidden, name="gate")(seen))
        inner = gate * make.dense(self.hidden, name="expand")(seen)
        if self.sub_norm:
            inner = norm("contract_norm")(inner)
        x = x + make.dense(width, name="contract")(inner)
        return x, None if past is None else (key, value)


class Decoder(layers.Network):
    """An embedding, blocks that look back only, a norm and a `head`; no biases.

    With `qk_norm` it is Qwen3, without it Llama; with `sub_norm` in the place of
    `qk_norm` it is BitNet b1.58. `hugging_face` writes and reads those forms.

    Each dense layer has inputs that a norm, or a norm and a gate, has brought to size
    1; its weights need the right size. Plain signs are too large by the square root of
    the number of inputs: take a method whose weights have scales, such as
    `methods.scaled_sign(group=128)`.

    Attributes:
        num_classes: Number of different tokens, and of logits.
        width: Features of a token.
        depth: Number of blocks.
        heads: Heads of the queries.
        kv_heads: Heads of keys and values (grouped-query attention), a divisor of
            `heads`; 0 for as many as `heads`.
        head_dim: Features of a head, an even number; 0 for width / heads.
        hidden: Features within the MLP; 0 for 3 * width.
        activation: Of the gate: a key of `ACTIVATIONS`.
        qk_norm: RMS norm of queries and keys, over each head.
        sub_norm: RMS norm before the last product of attention and MLP (SubLN).
        tied: Whether the embedding is the head too.
        rope_theta: Base of the wave lengths of the rotary positions.
        norm_eps: What the norms add to the mean square.
        scan: "on" makes one program of all blocks, which is run over their parameters,
            so that it is as long for 24 blocks as for 2; the weights are copied once a
            step for it. "off" writes all of them out. "auto" is "off" on CPUs, where
            the loop is compiled no faster and XLA fuses less, and "on" elsewhere.
        dtype: Dtype of the activations. Default: that of the parameters. Norms, rotary
            positions, softmax and logits are computed in float32.

    Reference:
        Yang et al., "Qwen3 Technical Report", 2025, https://arxiv.org/abs/2505.09388;
        Touvron et al., "LLaMA", 2023, https://arxiv.org/abs/2302.13971; SubLN: Wang et
        al., "BitNet", 2023, https://arxiv.org/abs/2310.11453; rotary positions: Su et
        al., 2021, https://arxiv.org/abs/2104.09864; ReLU²: So et al., "Primer", 2021,
        https://arxiv.org/abs/2109.08668.
    """

    num_classes: int
    width: int = 256
    depth: int = 4
    heads: int = 4
    kv_heads: int = 0
    head_dim: int = 0
    hidden: int = 0
    activation: str = "silu"
    qk_norm: bool = True
    sub_norm: bool = False
    tied: bool = True
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    scan: str = "auto"
    dtype: Dtype | None = None

    @nn.nowrap
    def wire(
        self, make: layers.Layers, tokens: jax.Array, cache: Cache | None = None
    ) -> Any:
        """Logits of the next token, and with a cache the cache after these tokens.

        Args:
            make: Layers of the network.
            tokens: Integers [batch, length] of any dtype.
            cache: What was there before, from `new_cache` or an earlier call. There
                must be room for the tokens: where they do not fit, what is computed is
                wrong.

        Returns:
            Logits, float32 [batch, length, num_classes], which depend on the tokens up
            to their position alone; or the pair of logits and cache.
        """
        embed = make.embed(self.num_classes, self.width, name="embed")
        blocks = make.blocks(
            Block,
            self.depth,
            scanned=self._scanned(),
            **self.sizes(),
            dtype=self.dtype,
        )
        start = jnp.zeros((), jnp.int32) if cache is None else cache.length
        past = None if cache is None else (cache.keys, cache.values)
        x = embed(tokens)
        x, new = blocks(x, past, start)
        x = make.rms_norm(name="last_norm", eps=self.norm_eps)(x)
        if self.tied:
            logits = embed.attend(x).astype(jnp.float32)
        else:
            logits = make.dense(self.num_classes, name="head")(x).astype(jnp.float32)
        if cache is None:
            return logits
        keys, values = new
        return logits, Cache(keys, values, cache.length + tokens.shape[1])

    @nn.nowrap
    def new_cache(self, batch: int, capacity: int) -> Cache:
        """A cache without tokens.

        Args:
            batch: Sequences.
            capacity: Most tokens in one of them.
        """
        block = self.sizes()
        heads = block["kv_heads"], block["head_dim"]
        shape = self.depth, batch, capacity, *heads
        keys, values = (jnp.zeros(shape, self.dtype or jnp.float32) for _ in range(2))
        return Cache(keys, values, jnp.zeros((), jnp.int32))

    @nn.nowrap
    def _scanned(self) -> bool:
        on = {"on": True, "off": False, "auto": jax.default_backend() != "cpu"}
        return on[self.scan]

    @nn.nowrap
    def sizes(self) -> dict[str, Any]:
        """The attributes of a block, with the sizes that are left open filled in."""
        return {
            "heads": self.heads,
            "kv_heads": self.kv_heads or self.heads,
            "head_dim": self.head_dim or self.width // self.heads,
            "hidden": self.hidden or 3 * self.width,
            "activation": self.activation,
            "qk_norm": self.qk_norm,
            "sub_norm": self.sub_norm,
            "rope_theta": self.rope_theta,
            "norm_eps": self.norm_eps,
        }


def rotate(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
    """Rotary positions: feature i of the first half turns with i of the second.

        angle = position theta^(-2i/d),  i = 0 ... d/2 - 1

    Args:
        x: [batch, length, heads, d].
        positions: [length].
        theta: Base of the wave lengths.
    """
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.outer(positions, frequencies)[None, :, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
