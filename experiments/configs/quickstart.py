r"""A binary multilayer perceptron on the handwritten digits that ship with the package.

    make quickstart

or

    python -m experiments.main \
        --config=experiments/configs/quickstart.py --workdir=runs/quickstart

Result: see the table in README.md.
"""

import ml_collections

from experiments.configs import base


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """`variant` is "full", or "smoke" for a run of seconds."""
    base.check_variant(variant)
    config = base.get_config()
    config.num_epochs = 20
    config.batch_size = 64
    config.model_options.features = (128, 128)
    config.methods.ste.learning_rate = 1e-2
    config.methods.adaste.learning_rate = 1e-2
    config.methods.adaste_released.learning_rate = 1e-2
    config.methods.bayesbinn.learning_rate = 1e-2
    config.reestimate_batches = 10
    if variant == "smoke":
        config.num_epochs = 2
    return config
