r"""A small binary vision transformer on Fashion-MNIST.

Patches have 7 x 7 pixels, so that an epoch takes half a minute on one CPU core. On
CIFAR-10 a useful result needs an accelerator and many epochs:

    python -m experiments.main --config=experiments/configs/vit_fashion_mnist.py \
        --workdir=runs/vit_cifar10 --config.dataset=cifar10 \
        --config.augment=pad_crop_flip --config.num_epochs=200 \
        --config.model_options.patch=4 --config.model_options.width=256

This config:

    python -m experiments.main --config=experiments/configs/vit_fashion_mnist.py \
        --workdir=runs/vit_fashion_mnist [--config.method=ste]

Result: see docs/results/transformers.md.
"""

import ml_collections

from experiments.configs import base


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """`variant` is "full", or "smoke" for a run of seconds."""
    base.check_variant(variant)
    config = base.get_config()
    config.dataset = "fashion_mnist"
    config.num_epochs = 6
    config.model = "vit"
    config.model_options.patch = 7
    config.model_options.width = 64
    config.model_options.depth = 4
    config.model_options.heads = 4
    # Chosen on validation images after two epochs of 10,000 images, from 1e-3 and 3e-3
    # in full precision, from 3e-3 and 1e-2 else.
    config.methods.full_precision.learning_rate = 3e-3
    config.methods.ste.learning_rate = 3e-3
    config.methods.adaste.learning_rate = 3e-3
    if variant == "smoke":
        config.num_epochs = 1
        config.batch_size = 32
        config.num_train = 128
        config.num_test = 128
        config.validation = 0.00213  # 128 too, so that evaluation compiles once
        config.model_options.patch = 14
        config.model_options.width = 16
        config.model_options.depth = 1
        config.model_options.heads = 2
    return config
