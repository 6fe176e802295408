"""What each option of the methods may be; one name has one meaning in all of them."""

from experiments import fields

_SHARE = fields.Number(0, 1, below=True)

OPTIONS: dict[str, fields.Kind] = {
    "alpha": fields.Number(0, 1, above=True, below=True),
    "anneal_fraction": fields.Number(0, 1, above=True),
    "away": fields.Number(0),
    "beta": fields.positive(),
    "beta_end": fields.Number(1),
    "cap": fields.positive(),
    "decay": fields.Number(0),
    "deployed_pass": fields.Flag(),
    "exponent_end": fields.Number(1),
    "initial_latent": fields.positive(),
    "jacobian": fields.Text(),  # the estimator says which there are; likewise below
    "learning_rate": fields.positive(),
    "momentum": _SHARE,
    "mu_end": fields.positive(),
    "mu_init": fields.positive(),
    "mu_rate": fields.Number(1),
    "multiplier": fields.positive(),
    "order": fields.whole(1),
    "pull": fields.Number(0),
    "rank": fields.whole(1, 1024),
    "rule": fields.Text(),
    "scale": fields.Flag(),
    "scale_grad": fields.Text(),
    "sharpness_end": fields.positive(),
    "sharpness_init": fields.positive(),
    "tau": fields.Number(0),
    "temperature": fields.positive(),
    "threshold": fields.Number(0),
}
"""All options of the methods of this package. An option that is not here, or whose
default has no place in its row, must be of the type of its default."""
