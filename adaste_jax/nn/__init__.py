"""Layers whose kernel passes through an estimator: `nn.linen` and `nn.nnx`."""
