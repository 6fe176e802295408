r"""A binary language model of bytes, on the text of Python's language reference.

A causal transformer on pieces of 128 bytes. All matrix products use one-bit weights;
the embedding, positions and norms stay real. The text ships with Python, so nothing is
downloaded, but other versions of Python have other texts.

    python -m experiments.main --config=experiments/configs/language_model.py \
        --workdir=runs/language_model [--config.method=ste]

Result: see docs/results/transformers.md.
"""

import ml_collections

from experiments.configs import base


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """`variant` is "full", or "smoke" for a run of seconds."""
    base.check_variant(variant)
    config = base.get_config()
    config.dataset = "pydoc_topics"
    config.num_epochs = 4
    config.batch_size = 16
    config.eval_batch_size = 64
    config.model = "language_model"
    config.model_options.width = 64
    config.model_options.depth = 2
    config.model_options.heads = 2
    # Chosen on validation text after one epoch, from 1e-3 and 3e-3 in full precision,
    # from 3e-3 and 1e-2 else: the larger one is the better one for all three.
    config.methods.full_precision.learning_rate = 3e-3
    config.methods.ste.learning_rate = 1e-2
    config.methods.adaste.learning_rate = 1e-2
    if variant == "smoke":
        config.num_epochs = 1
        config.eval_batch_size = 16
        config.num_train = 48
        config.num_test = 32
        config.validation = 0.0122  # 32 too, so that evaluation compiles once
        config.model_options.width = 16
        config.model_options.depth = 1
        config.model_options.heads = 2
    return config
