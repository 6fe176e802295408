"""How a comparison chooses a method's learning rate and one other option.

The search is the same for all methods. It uses the validation split and networks with
`SEED`, which are not tested. First it chooses the learning rate from multiples of the
default. While the best is at an edge it tries more, in the same ratio (at most
`EXTENSIONS` times; `TUNE_EXTENSIONS` with `--tune`, which ends there). Then it chooses
the option in `KNOBS` at this learning rate, and with `--momenta` the momentum of Adam
beside it. The best setting has the highest accuracy, and among equals the lowest loss.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

SEED = 0
FACTORS = (0.3, 1.0, 3.0)
EXTENSIONS = 2
TUNE_EXTENSIONS = 5

KNOBS: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "adaste": ("anneal_fraction", (0.5, 0.8, 1.0)),
    "adaste_averaged": ("away", (0.0, 0.3, 1.0)),
    "adaste_paper": ("cap", (0.5, 2.0)),
    "adaste_released": ("initial_latent", (1.0, 10.0)),
    "bayesbinn": ("temperature", (1e-10, 1e-8)),
    "biper": ("omega", (5.0, 20.0)),
    "bop": ("tau", (1e-8, 1e-7, 1e-6)),
    "cage": ("pull", (10.0, 100.0)),
    "ede": ("sharpness_end", (3.0, 10.0)),
    "fda": ("order", (2, 8)),
    "fenbp": ("beta", (10.0, 100.0)),
    "freezing": ("threshold_end", (0.01, 0.03)),
    "irnet": ("sharpness_end", (3.0, 10.0)),
    "md_softmax": ("beta_end", (100.0, 1e3)),
    "md_softmax_s": ("beta_end", (100.0, 1e3)),
    "md_tanh": ("beta_end", (100.0, 1e3)),
    "md_tanh_s": ("beta_end", (100.0, 1e3)),
    "ovsw": ("delta", (0.01, 0.04)),
    "parq": ("steepness", (4.0, 10.0)),
    "pmf": ("beta_end", (30.0, 300.0)),
    "proxquant": ("pull", (1.0, 4.0)),
    "rbnn": ("sharpness_end", (3.0, 10.0)),
    "reste": ("exponent_end", (2.0, 3.0, 5.0)),
    "scaled_sign": ("scale_grad", ("constant", "diagonal")),
    "swish_sign": ("beta", (1.0, 5.0)),
    "tanh": ("beta_end", (30.0, 300.0)),
    "ternary_fixed": ("threshold", (0.02, 0.05)),
    "ternary_tanh": ("beta_end", (30.0, 300.0)),
    "ternary_twn": ("scale", (False, True)),
    "vispa": ("rank", (2, 8)),
}
"""The most important option besides the learning rate, and the values to choose from,
including the default. Methods that are not listed have none."""


MOMENTUM = "config.momentum"
"""What the momentum of the config is called among the options."""

Options = tuple[tuple[str, Any], ...]
"""Names and values of options that differ from those of the config."""


class Setting(NamedTuple):
    """A setting, which is chosen on validation.

    Attributes:
        learning_rate: Learning rate of the method.
        options: Other options of the method.
    """

    learning_rate: float
    options: Options = ()


class Choice(NamedTuple):
    """The result of the search.

    Attributes:
        setting: The best setting.
        at_edge: Whether its learning rate is the smallest or largest that was tried.
    """

    setting: Setting
    at_edge: bool


class Score(NamedTuple):
    """How good a setting is, in ascending order.

    Attributes:
        accuracy: Validation accuracy of the deployed network.
        minus_loss: Validation loss times -1. It decides between equal accuracies, which
            are frequent with few images.
    """

    accuracy: float
    minus_loss: float


Scores = Callable[[Sequence[Setting]], Mapping[Setting, Score]]
"""Trains, and gives the scores of those settings that did not fail."""


def search(
    scores: Scores,
    rates: Sequence[float],
    others: Sequence[Options] = (),
    *,
    extensions: int = EXTENSIONS,
) -> Choice | None:
    """Chooses a setting.

    Args:
        scores: Trains the settings that it is given.
        rates: First learning rates. A single one is used without a search.
        others: Options that are tried at the chosen learning rate.
        extensions: How many learning rates beyond the first may be tried, at most.

    Returns:
        The choice; None if every learning rate failed. Among equal scores the first
        wins: the smallest learning rate, or the options of the config.

    Example:
        >>> def peak(tried):
        ...     return {one: Score(0.5, -abs(one.learning_rate - 9.0)) for one in tried}
        >>> search(peak, [0.3, 1.0, 3.0])
        Choice(setting=Setting(learning_rate=9.0, options=()), at_edge=False)
    """
    rates = sorted(rates)
    found = dict(scores([Setting(rate) for rate in rates]))
    if not found:
        return None
    for _ in range(extensions if len(rates) > 1 else 0):
        best = _best(found).learning_rate
        if best == rates[-1]:
            beyond = rates[-1] * rates[-1] / rates[-2]
        elif best == rates[0]:
            beyond = rates[0] * rates[0] / rates[1]
        else:
            break
        rates = sorted([*rates, beyond])
        found |= scores([Setting(beyond)])
    rate = _best(found).learning_rate
    at_edge = len(rates) > 1 and rate in (rates[0], rates[-1])
    tried = {Setting(rate): found[Setting(rate)]}
    tried |= scores([Setting(rate, options) for options in others])
    return Choice(max(tried, key=lambda one: tried[one]), at_edge)


def _best(found: Mapping[Setting, Score]) -> Setting:
    return max(sorted(found), key=lambda setting: found[setting])
