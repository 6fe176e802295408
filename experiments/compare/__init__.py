"""Trains methods alike, and says which is better and how sure that is.

    python -m experiments.compare --config=experiments/configs/quickstart.py \
        --methods=full_precision,ste,adaste --seeds=10 --workdir=runs/compare \
        [--learning_rates=0.3,1,3] [--config.field=value ...]

Network, data, their order, epochs, augmentation and evaluation are the same for all
methods: the deployed network of the last epoch, with batch-norm statistics taken anew
where the training weights were soft. For each method the learning rate, and the option
that matters most beside it, are chosen on the validation split, as `search` says. Then
it is trained with seeds 1 to N, and the test split is looked at once.

A method that fails is a row that says so. What is finished stands in the workdir: the
same command continues where it was interrupted, and methods and seeds may be added.
"""

from experiments.compare.entry import Variant
from experiments.compare.own import compare

__all__ = ["Variant", "compare"]
