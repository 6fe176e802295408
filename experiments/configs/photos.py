"""Own photographs in class folders, on a small ResNet: see docs/photos.md.

    adaste train photos --workdir=runs/photos --config.data_dir=DIR

DIR/photos/train/CLASS and DIR/photos/test/CLASS hold the images. Another folder of DIR
is named by --config.dataset=folder/NAME.
"""

import ml_collections

from experiments.configs import base


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """`variant` is "full", or "smoke" for a run of seconds."""
    base.check_variant(variant)
    config = base.get_config()
    config.dataset = "folder/photos"
    config.num_epochs = 40
    config.batch_size = 32
    config.eval_batch_size = 100
    config.augment = "flip"
    config.model = "resnet18"
    config.model_options.width = 16
    config.model_options.stem = "3x3_stride2"  # for images of 64 pixels
    config.methods.adaste.learning_rate = 1e-2
    config.methods.ste.learning_rate = 1e-2
    if variant == "smoke":
        config.num_epochs = 1
        config.batch_size = 8
        config.image_size = 16
        config.model_options.width = 4
        config.model_options.blocks = (1, 1)
        config.reestimate_batches = 4
    return config
