r"""ResNet-18 with binary weights on Imagenette: 10 classes of ImageNet, 160 pixels.

Every kernel is binary, including the first and the last. The shorter side of the images
has 160 pixels; we do not know which size the authors used. Accuracy is measured on the
3,925 validation images.

    python -m experiments.main --workdir=runs/imagenette_resnet18 \
        --config=experiments/configs/imagenette_resnet18.py
    python -m experiments.main --workdir=runs/imagenette_resnet18_fast \
        --config=experiments/configs/imagenette_resnet18.py:fast

The first command is the released protocol of AdaSTE, the second the recommended form
in a tenth of the epochs; see `protocols.py`. Both are for an accelerator.

The authors report results on Imagenette, but we do not have the number.
Result: not yet measured.
"""

import ml_collections

from experiments.configs import protocols


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """`variant` is one of `protocols.VARIANTS`."""
    config = protocols.start("imagenette/160px-v2", "resnet18")
    config.model_options.stem = "7x7_pool"
    protocols.stream(config, image_size=160)
    return protocols.finish(config, variant, num_epochs=700)
