r"""What does annealing give, and when? Three questions, each in the background.

    python -m experiments.studies.annealing which --workdir=runs/annealing
    python -m experiments.studies.annealing from_float --workdir=runs/annealing
    python -m experiments.studies.annealing lasts --workdir=runs/annealing

`which`: is it AdaSTE, or any map that is annealed in units of the layer? `lasts`: does
its lead last, with all of CIFAR-10 and augmentation? `from_float`: does it help where
one starts from a trained float network, in a small share of its steps?

Every finished training is a line of OUT/annealing_QUESTION.jsonl; the same command goes
on where it was stopped, and writes the page OUT/annealing_QUESTION.md from the lines
that there are. `--dry_run` says how much there is to do and how long it takes,
`--page` only writes the page.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from experiments.configs import (
    base,
    fashion_mnist_mlp,
    language_model,
    quickstart,
    vit_fashion_mnist,
)
from experiments.studies import annealing_pages, command, rivals
from experiments.studies.annealing_pages import ADASTE, STE
from experiments.studies.study import FLOAT, Part, Row, Study, rated

FACTORS = (0.3, 1.0, 3.0)
MOMENTA = (0.8, 0.95)

_ANNEALED: dict[str, Row] = {
    ADASTE: Row("adaste"),
    "linear blend": Row("blend"),
    "PARQ": Row("parq"),
    "linear blend, layer": Row("blend", {"unit": "layer"}),
    "PARQ, layer": Row("parq", {"unit": "layer"}),
    "tanh, layer": Row("md_tanh_s", {"unit": "layer"}),
    "AdaSTE, channel": Row("adaste", {"unit": "channel"}),
    "tanh, channel": Row("md_tanh_s", {"unit": "channel"}),
}
"""Annealed maps; units are those of a channel where nothing is said, of the layer for
AdaSTE."""

SHARES = (0.1, 0.02, 0.05, 0.2)
"""Steps after the float network, in units of its own, in the order of training."""

RESNETS = {"resnet8": (1, 1, 1), "resnet20": (3, 3, 3)}
"""Blocks of the stages."""


def which(smoke: bool = False) -> Study:
    """Rivals of AdaSTE from scratch."""
    digits = quickstart.get_config()
    digits.validation = 0.3
    fashion = fashion_mnist_mlp.get_config()
    fashion.validation = 0.1
    resnet = _resnet("resnet8", width=8)
    resnet.update(num_train=10_000, num_epochs=10, augment="none")
    configs = {
        "digits": rated(digits, 1e-2),
        "Fashion-MNIST": rated(fashion, 3e-3),
        "CIFAR-10": rated(resnet, 1e-2),
    }
    rows = {STE: Row("ste"), **_ANNEALED, FLOAT: Row("full_precision")}
    parts = [
        Part(name, config, rows, factors=FACTORS, momenta=MOMENTA)
        for name, config in configs.items()
    ]
    if smoke:
        rows = {name: rows[name] for name in (STE, ADASTE)}
        small = rated(_tiny(quickstart.get_config()), 1e-2)
        parts = [Part("digits", small, rows, factors=(1.0, 3.0), momenta=(0.8,))]
    return Study("annealing_which", parts, (1, 2) if smoke else (3, 5))


def lasts(smoke: bool = False) -> Study:
    """The best rows for longer, on all of CIFAR-10."""
    rows = {
        STE: Row("ste"),
        ADASTE: Row("adaste"),
        "linear blend": Row("blend"),
        FLOAT: Row("full_precision", most=3),
        "PARQ": Row("parq", most=3),
        "tanh, layer": Row("md_tanh_s", {"unit": "layer"}, most=3),
    }
    few = {name: rows[name] for name in (STE, ADASTE, "linear blend", FLOAT)}
    deep = {
        name: Row(one.method, one.options, most=3)
        for name, one in few.items()
        if name != "linear blend"
    }
    ends = ("^stem/", "^head/")
    parts = []
    for network, exclude, chosen in (
        ("resnet8", (), rows),
        ("resnet8", ends, few),
        ("resnet20", ends, deep),
    ):
        config = rated(_resnet(network, width=16), 1e-2)
        config.update(num_epochs=30, augment="pad_crop_flip", binary_exclude=exclude)
        searched = config.copy_and_resolve_references()
        searched.num_epochs = 3
        name = network.replace("resnet", "ResNet-") + ", ends real" * bool(exclude)
        parts.append(
            Part(
                name,
                config,
                chosen,
                searched=searched,
                factors=FACTORS,
                asked=network == "resnet20",
            )
        )
    if smoke:
        small = rated(_tiny(quickstart.get_config()), 1e-2)
        small.augment = "pad_crop_flip"
        searched = small.copy_and_resolve_references()
        small.num_epochs = 2
        rows = {name: rows[name] for name in (STE, FLOAT)}
        parts = [Part("digits", small, rows, searched=searched, factors=(1.0, 3.0))]
    return Study("annealing_lasts", parts, (1,) if smoke else (1, 2, 3, 4, 5))


def from_float(smoke: bool = False) -> Study:
    """Rows that start from a float network, in shares of its steps."""
    rows = {
        STE: Row("scaled_ste"),
        ADASTE: Row("adaste"),
        "identity": Row("blend"),
        "PARQ": Row("parq"),
        "two stages": Row("two_stage"),
        "progressive": Row("progressive"),
    }
    vit = vit_fashion_mnist.get_config()
    vit.num_train = 5_000
    text = language_model.get_config()
    text.num_train = 1_200
    resnet = _resnet("resnet8", width=16)
    resnet.update(num_train=10_000, augment="pad_crop_flip")
    resnet.binary_exclude = ("^stem/", "^head/")
    networks = {"vision transformer": vit, "language model": text, "ResNet-8": resnet}
    shares: Sequence[float] = SHARES
    if smoke:
        networks = {"perceptron": _tiny(quickstart.get_config())}
        rows, shares = {name: rows[name] for name in (STE, "identity")}, (0.5,)
    epochs = 2 if smoke else 100
    parts = []
    for distil in (False, True):
        for share in shares:
            for name, config in networks.items():
                config = rated(config, 1e-3)
                measure = "bits_per_byte" if name == "language model" else "accuracy"
                start = _float(name, config, epochs, measure, smoke)
                searched = config.copy_and_resolve_references()
                searched.num_epochs = 1 if smoke else round(0.05 * epochs)
                config.num_epochs = round(share * epochs)
                parts.append(
                    Part(
                        f"{name}, {100 * share:g} %" + ", distilled" * distil,
                        config,
                        rows,
                        searched=searched,
                        group=f"{name}, search",
                        factors=(1.0,) if smoke else FACTORS,
                        start=start,
                        distil=distil,
                        measure=measure,
                    )
                )
    return Study("annealing_from_float", parts, (1,) if smoke else (1, 2, 3))


def _float(
    name: str,
    config: ml_collections.ConfigDict,
    epochs: int,
    measure: str,
    smoke: bool,
) -> Part:
    """The float network of a problem, whose rate a tenth of its epochs chooses."""
    config = config.copy_and_resolve_references()
    config.binary_exclude = ()
    config.num_epochs = epochs
    config.eval_every_epochs = config.checkpoint_every_epochs = max(1, epochs // 10)
    config.tensorboard = False
    searched = config.copy_and_resolve_references()
    searched.num_epochs = max(1, epochs // 10)
    return Part(
        name,
        config,
        {FLOAT: Row("full_precision")},
        searched=searched,
        factors=(1.0,) if smoke else FACTORS,
        measure=measure,
    )


def _resnet(network: str, *, width: int) -> ml_collections.ConfigDict:
    """A ResNet of three stages on CIFAR-10."""
    config = base.get_config()
    config.dataset = "cifar10"
    config.model = "resnet18"
    config.model_options.width = width
    config.model_options.blocks = RESNETS[network]
    return config


def _tiny(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A config that trains in a second."""
    config.update(num_epochs=1, batch_size=32, num_train=128, num_test=64)
    config.update(validation=0.05, reestimate_batches=2, eval_batch_size=64)
    if config.model == "mlp":
        config.model_options.features = (16,)
    return config


QUESTIONS: Mapping[str, Any] = {
    "which": which,
    "lasts": lasts,
    "from_float": from_float,
}
"""The studies by their names on the command line."""


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or says how long it takes, and writes the page."""
    rivals.enter()
    command.run(
        "experiments.studies.annealing",
        "What does annealing give, and when? See the module.",
        QUESTIONS,
        annealing_pages.write,
        argv,
    )


if __name__ == "__main__":
    main()
