r"""Trains methods under the same conditions, and says which is better and how surely.

    python -m experiments.compare --config=experiments/configs/quickstart.py \
        --methods=full_precision,ste,adaste --seeds=10 --workdir=runs/compare \
        [--learning_rates=0.3,1,3] [--config.field=value ...]

Network, data, their order, epochs, augmentation and evaluation are the same for all
methods. The deployed network of the last epoch is evaluated, with batch-norm statistics
re-estimated if the training weights were soft. For each method the learning rate and
the most important other option are chosen on the validation split; see `search`. Then
the method is trained with seeds 1 to N, and the test split is used once.

With `--tune` only the learning rates are chosen, one short training for each, and the
test split is not used: how far is the default from what validation chooses?

If a method fails, its row says so. Finished results are in the workdir: the same
command continues where it was interrupted, and methods and seeds may be added.
"""

from experiments.compare.entry import Variant
from experiments.compare.own import compare

__all__ = ["Variant", "compare"]
