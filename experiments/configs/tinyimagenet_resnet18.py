r"""ResNet-18 with binary weights on TinyImageNet: 200 classes, 64 x 64 pixels.

Every kernel is binary, including the first and the last. TinyImageNet is not in TFDS:
unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip in the folder `config.data_dir`,
or $TFDS_DATA_DIR. Its 100,000 training images are read and decoded in every epoch.
Accuracy is measured on its 10,000 validation images. The protocol does not give the
stride of the first convolution; stride 2 is our choice.

    python -m experiments.main --workdir=runs/tinyimagenet_resnet18 \
        --config=experiments/configs/tinyimagenet_resnet18.py
    python -m experiments.main --workdir=runs/tinyimagenet_resnet18_fast \
        --config=experiments/configs/tinyimagenet_resnet18.py:fast

The first command is the released protocol of AdaSTE, the second the recommended form
in a tenth of the epochs; see `protocols.py`. Both are for an accelerator.

Reported by the authors, with annealing, and by a second paper: 54.92 %.
Result: not yet measured.
"""

import ml_collections

from experiments.configs import protocols


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """`variant` is one of `protocols.VARIANTS`."""
    config = protocols.start("folder/tiny-imagenet-200", "resnet18")
    config.model_options.stem = "3x3_stride2"
    config.methods.adaste_released.mu_rate = 1.009  # of the protocol for it
    protocols.stream(config, image_size=64)
    return protocols.finish(config, variant, num_epochs=700)
