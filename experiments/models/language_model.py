"""A small causal language model of bytes."""

import jax
from flax import linen as nn

from experiments.models import layers, transformer
from experiments.models.classifier import Classifier


class LanguageModel(Classifier):
    """An embedding, positions, blocks that look back only, and a `head`.

    Attributes:
        num_classes: Number of different tokens, and of logits.
        width: Features of a token.
        depth: Number of blocks.
        heads: Heads of each attention.
        dtype: Dtype of the activations. Default: that of the parameters.

    Reference:
        Radford et al., "Language Models are Unsupervised Multitask Learners", OpenAI,
        2019 (GPT-2, whose order of layers this is but for the added norms; see
        `transformer.Block`).
    """

    width: int = 128
    depth: int = 4
    heads: int = 4

    @nn.nowrap
    def wire(self, make: layers.Layers, x: jax.Array) -> jax.Array:
        """Logits [batch, length, num_classes] of the next token, of [batch, length].

        Logits at a position depend on the tokens up to it alone. Tokens are integers of
        any dtype.
        """
        mask = nn.make_causal_mask(x, dtype=bool)
        x = make.embed(self.num_classes, self.width, name="embed")(x)
        x = make.layer_norm(name="embed_norm")(x)
        shape = (1, *x.shape[1:])
        positions = make.param("positions", transformer.POSITION_INIT, shape)
        x = x + positions.astype(x.dtype)
        for _ in range(self.depth):
            block = make.block(transformer.Block, heads=self.heads, dtype=self.dtype)
            x = block(x, mask)
        x = make.layer_norm(name="last_norm")(x)
        return self.logits(make, x, make.layer_norm)
