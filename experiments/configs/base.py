"""Every field that the programs read, with its meaning; configs change some of them."""

from collections.abc import Sequence

import ml_collections

from experiments import fields, methods


def get_config() -> ml_collections.ConfigDict:
    """The fields and their defaults. A config is locked once it has been read."""
    config = ml_collections.ConfigDict()

    config.seed = 0  # of the initial latents, the order of the data and augmentation
    config.num_epochs = 10
    config.batch_size = 128  # over all devices
    config.eval_batch_size = 500  # likewise; the last batch is filled up
    config.warmup_epochs = 0.0  # in which the learning rates rise linearly from 0
    config.label_smoothing = 0.0  # share of a label that all classes get alike

    # Or pydoc_topics, a text, or a TFDS name: cifar10, fashion_mnist, mnist, ..., or
    # folder/NAME: images in the folder NAME of `data_dir`, always streamed; see
    # experiments/data/image_folder.py. Or text/NAME: .txt, .jsonl, .parquet or .arrow
    # files in the folder NAME, or one file, streamed too; see text_files.py there.
    config.dataset = "digits"
    config.data_dir = ""  # folder of data sets; default $TFDS_DATA_DIR
    config.cache_dir = ""  # decoded images, packed text; default ~/.cache/adaste_jax
    config.num_train = 0  # number of training images; 0 is all
    config.num_test = 0  # number of test images; 0 is all
    config.validation = 0.1  # share of the training images; 0.0 is none
    config.augment = "none"  # or flip, or pad_crop_flip
    config.resident = True  # images on the device; False streams them through Grain
    config.text_length = 128  # tokens in an example of text/NAME
    config.tokenizer = ""  # of text/NAME: a tokenizer.json; without it tokens are bytes
    config.vocabulary_size = 0  # of the network; 0 is that of the tokenizer
    config.image_size = 0  # of streamed images; 0 keeps it, for a folder chooses

    config.model = "mlp"  # see experiments/models
    config.model_options = ml_collections.ConfigDict()
    config.dtype = "float32"  # of the activations; or bfloat16
    config.flax_api = "linen"  # or nnx: the Flax API of the network's modules

    # Every kernel is binary except these: regular expressions on the path of the
    # parameter. ("^Dense_0/",) keeps the first layer real.
    config.binary_exclude = ()

    config.method = "adaste"  # one of the names below
    config.methods = methods.defaults()
    config.optimiser = "adam"  # of the latents, where the method has none; or muon
    config.momentum = 0.9  # of that optimiser
    config.real_learning_rate = 1e-3  # Adam, cosine to 0: parameters that stay real

    # A workdir, or WORKDIR/checkpoints/STEP: start from its parameters and batch-norm
    # statistics. The network must have the same shapes. Not used to resume. Or, for the
    # network `decoder`, a folder of Hugging Face (Qwen3, Llama).
    config.init_from = ""

    # A workdir, or WORKDIR/checkpoints/STEP, of a finished run: also learn from the
    # outputs of its network.
    config.teacher = ""
    config.distill_weight = 0.5  # weight of the teacher in the loss, not the labels
    config.distill_temperature = 4.0  # both outputs are divided by it
    # And from the outputs of its layers: ("Block_1", "Block_3=Block_7"), that of the
    # student first where their names differ.
    config.distill_features = ()
    config.distill_feature_weight = 1.0  # of their distance, added to the loss

    # While training weights are soft, batch-norm statistics are re-estimated before an
    # evaluation, under the deployed weights, on this number of training batches.
    config.reestimate_batches = 50

    # Number of consecutive updates that may be skipped because they are not finite; 0
    # stops the run at the first loss that is not finite.
    config.skip_nonfinite = 0

    config.steps_per_call = 0  # optimiser steps in one compiled call; 0 chooses
    config.eval_every_epochs = 1
    config.checkpoint_every_epochs = 1
    config.checkpoint_every_steps = 0  # also within an epoch; 0 turns this off
    config.keep_checkpoints = 2  # the latest; the best on validation is kept too
    config.tensorboard = True  # if tensorboardX is installed

    return config


def check_variant(variant: str, known: Sequence[str] = ("full", "smoke")) -> None:
    """Checks the variant of a config, FILE:VARIANT.

    Raises:
        ValueError: If it is unknown; the message lists the known ones.
    """
    if variant not in known:
        names = " or ".join([", ".join(known[:-1]), known[-1]])
        meant = fields.guess(variant, known)
        raise ValueError(f"variant must be {names}, got {variant!r}{meant}.")
