r"""The VGG of BinaryConnect, with binary weights, on CIFAR-10.

The published network has width 128. On a CPU use a quarter of the width:

    python -m experiments.main --config=experiments/configs/cifar10_vgg_small.py \
        --workdir=runs/cifar10_vgg_small \
        --config.model_options.width=32 --config.model_options.dense=256

Result at full width: not yet measured. At a quarter of it, 45,000 images, 25 epochs:
84.6 % (experiments/notebooks/train_cifar10.ipynb). Smaller networks:
docs/results/cifar10_small.md.
"""

import ml_collections

from experiments.configs import base


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """`variant` is "full", or "smoke" for a run of seconds."""
    base.check_variant(variant)
    config = base.get_config()
    config.dataset = "cifar10"
    config.num_epochs = 100
    config.augment = "pad_crop_flip"
    config.model = "vgg_small"
    config.model_options.width = 128
    config.model_options.dense = 1024
    config.methods.ste.learning_rate = 1e-2
    config.methods.adaste.learning_rate = 1e-2
    if variant == "smoke":
        config.num_epochs = 1
        config.batch_size = 32
        config.num_train = 128
        config.num_test = 128
        config.validation = 0.01
        config.model_options.width = 8
        config.model_options.dense = 32
        config.reestimate_batches = 2
    return config
