"""Training protocols of the image classification configs: as released, or faster.

full    the released protocol of AdaSTE
fast    the recommended form of AdaSTE, in a tenth of the epochs
smoke   the released protocol for seconds, with a small network and few images
fast_smoke  the protocol `fast` for seconds, with a small network and few images
"""

import ml_collections

from experiments.configs import base

VARIANTS = ("full", "fast", "smoke", "fast_smoke")


def start(dataset: str, model: str) -> ml_collections.ConfigDict:
    """Makes a config for images of a data set; `finish` makes a variant of it."""
    config = base.get_config()
    config.dataset = dataset
    config.model = model
    config.model_options.width = 64
    config.model_options.norm_momentum = 0.9
    config.augment = "pad_crop_flip"
    config.checkpoint_every_epochs = 10
    return config


def stream(config: ml_collections.ConfigDict, *, image_size: int) -> None:
    """Streams the images, cropped at random to a size."""
    config.resident = False
    config.image_size = image_size
    config.augment = "flip"


def finish(
    config: ml_collections.ConfigDict, variant: str, *, num_epochs: int
) -> ml_collections.ConfigDict:
    """Makes the variant of a config.

    Args:
        config: Config from `start`.
        variant: Name of the variant, one of `VARIANTS`.
        num_epochs: Number of epochs in the released protocol.

    Returns:
        The config.

    Raises:
        ValueError: If there is no such variant.
    """
    base.check_variant(variant, VARIANTS)
    if variant.startswith("fast"):
        _fast(config, num_epochs)
    else:
        _released(config, num_epochs)
    if variant.endswith("smoke"):
        _smoke(config)
    return config


def _released(config: ml_collections.ConfigDict, num_epochs: int) -> None:
    """The protocol of https://arxiv.org/abs/2112.02880 and the authors' code.

    The rest are defaults of `methods.adaste_released`: latents that start at +10
    and -10, a learning rate of 3e-4 on a cosine of the epoch, mu times 1.05 before
    every epoch, a second forward pass with the deployed weights in every step.
    """
    config.method = "adaste_released"
    config.num_epochs = num_epochs
    config.batch_size = 128
    config.model_options.norm_momentum = 0.8  # 0.2 in their framework's sense


def _fast(config: ml_collections.ConfigDict, num_epochs: int) -> None:
    """Not tuned: the learning rate was chosen for a small network at batch 128."""
    config.method = "adaste"
    config.methods.adaste.learning_rate = 1e-2
    config.num_epochs = num_epochs // 10
    config.batch_size = 512
    config.warmup_epochs = 2.0
    config.label_smoothing = 0.1
    config.dtype = "bfloat16"


def _smoke(config: ml_collections.ConfigDict) -> None:
    config.num_epochs = 1
    config.batch_size = 16
    config.eval_batch_size = 64
    config.num_train = 48
    config.num_test = 64
    config.validation = 0.0
    config.warmup_epochs = min(config.warmup_epochs, 0.5)
    config.reestimate_batches = 2
    config.model_options.width = 8
    if config.model == "resnet18":
        config.model_options.blocks = (1, 1)
    else:
        config.model_options.convolutions = (1, 1)
