r"""ResNet-18 with binary weights on CIFAR-100.

Every kernel is binary, the first and the last included.

    python -m experiments.main --workdir=runs/cifar100_resnet18 \
        --config=experiments/configs/cifar100_resnet18.py
    python -m experiments.main --workdir=runs/cifar100_resnet18_fast \
        --config=experiments/configs/cifar100_resnet18.py:fast

The first command is the released protocol of AdaSTE, the second the recommended form
in a tenth of the epochs; see `protocols.py`. Both are for an accelerator.

Reported by the authors, with annealing: 75.03 % (not re-checked).
Result: not yet measured.
"""

import ml_collections

from experiments.configs import protocols


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """`variant` is one of `protocols.VARIANTS`."""
    config = protocols.start("cifar100", "resnet18")
    config.methods.adaste_released.momentum = 0.0  # of the protocol for CIFAR-100
    return protocols.finish(config, variant, num_epochs=500)
