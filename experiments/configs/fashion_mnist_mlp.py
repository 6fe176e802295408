r"""A binary MLP 784-512-512-10 on Fashion-MNIST.

    python -m experiments.main --config=experiments/configs/fashion_mnist_mlp.py \
        --workdir=runs/fashion_mnist_mlp [--config.method=ste]

Result: see the table in README.md.
"""

import ml_collections

from experiments.configs import base


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """`variant` is "full", or "smoke" for a run of seconds."""
    base.check_variant(variant)
    config = base.get_config()
    config.dataset = "fashion_mnist"
    config.num_epochs = 5
    config.validation = 0.0
    config.model_options.features = (512, 512)
    # Chosen on 6,000 validation images, seeds 0 and 1, from grids of factors of 2 to 3.
    config.methods.adaste.learning_rate = 2e-3
    config.methods.ste.learning_rate = 2e-3
    config.methods.bayesbinn.learning_rate = 3e-3
    config.methods.adaste_paper.learning_rate = 1e-2
    config.methods.adaste_released.learning_rate = 3e-3
    if variant == "smoke":
        config.num_epochs = 1
        config.num_train = 1280
        config.num_test = 500
        config.model_options.features = (32,)
        config.reestimate_batches = 5
    return config
