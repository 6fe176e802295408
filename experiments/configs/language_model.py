r"""A binary language model of bytes, on the text of Python's language reference.

A causal transformer on pieces of 128 bytes. All matrix products use one-bit weights;
the embedding, positions and norms stay real. The text ships with Python, so nothing is
downloaded, but other versions of Python have other texts.

    python -m experiments.main --config=experiments/configs/language_model.py \
        --workdir=runs/language_model [--config.method=ste]

Result: see docs/results/transformers.md.

`:qwen3` is a network in the shape of Qwen3 instead, with a scale for 128 inputs, which
llama.cpp runs; `:qwen3_smoke` is a small one, for a run of seconds:

    python -m experiments.main --workdir=runs/qwen3 \
        --config=experiments/configs/language_model.py:qwen3
    python -m experiments.generate --workdir=runs/qwen3 --prompt="The "
    python -m experiments.export --workdir=runs/qwen3 --out=runs/qwen3.safetensors \
        --gguf=runs/qwen3.gguf
"""

import ml_collections

from experiments.configs import base

VARIANTS = ("full", "smoke", "qwen3", "qwen3_smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """`variant` is one of `VARIANTS`; see above."""
    base.check_variant(variant, VARIANTS)
    config = base.get_config()
    config.dataset = "pydoc_topics"
    config.num_epochs = 4
    config.batch_size = 16
    config.eval_batch_size = 64
    if variant.startswith("qwen3"):
        _qwen3(config)
    else:
        _own(config)
    if variant.endswith("smoke"):
        _smoke(config)
    return config


def _own(config: ml_collections.ConfigDict) -> None:
    config.model = "language_model"
    config.model_options.width = 64
    config.model_options.depth = 2
    config.model_options.heads = 2
    # Chosen on validation text after one epoch, from 1e-3 and 3e-3 in full precision,
    # from 3e-3 and 1e-2 else: the larger one is the better one for all three.
    config.methods.full_precision.learning_rate = 3e-3
    config.methods.ste.learning_rate = 1e-2
    config.methods.adaste.learning_rate = 1e-2


def _qwen3(config: ml_collections.ConfigDict) -> None:
    """Rows of every product divide by 256: groups of 128 and of 256 fill them.

    Learning rates are the defaults of the methods, not tuned.
    """
    config.model = "decoder"
    config.model_options.width = 256
    config.model_options.depth = 4
    config.model_options.heads = 4
    config.model_options.kv_heads = 2
    config.model_options.head_dim = 0  # width / heads
    config.model_options.hidden = 768
    config.model_options.activation = "silu"
    config.model_options.qk_norm = True  # False: Llama
    config.model_options.sub_norm = False
    config.model_options.tied = True
    config.model_options.rope_theta = 10000.0
    config.model_options.norm_eps = 1e-6
    # Products that see int8, as in llama.cpp: ("query", "key", ...); () is none.
    config.model_options.int8_inputs = ()
    config.model_options.int8_group = 32
    config.model_options.scan = "auto"
    config.method = "scaled_sign"
    config.methods.scaled_sign.group = 128  # Q1_0 of llama.cpp
    config.methods.ternary_absmean.group = 256  # TQ2_0 and TQ1_0
    config.methods.ternary_twn.group = 256


def _smoke(config: ml_collections.ConfigDict) -> None:
    config.num_epochs = 1
    config.eval_batch_size = 16
    config.num_train = 48
    config.num_test = 32
    config.validation = 0.0122  # 32 too, so that evaluation compiles once
    config.model_options.depth = 1
    if config.model == "decoder":
        config.model_options.hidden = 512
    else:
        config.model_options.width = 16
        config.model_options.heads = 2
