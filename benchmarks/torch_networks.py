"""The same networks and updates in plain PyTorch, for comparison of times."""

import functools

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import steps

ALPHA = 0.01
MU = 1.0


def norm(space):
    """Batch norm without scale and shift, for `space` axes of 0 or 2."""
    kind = nn.LazyBatchNorm2d if space else nn.LazyBatchNorm1d
    return kind(affine=False)


class MLP(nn.Module):
    """The same network as `experiments.models.MLP`."""

    def __init__(self, features):
        super().__init__()
        layers = [nn.Flatten()]
        for width in features:
            layers += [nn.LazyLinear(width, bias=False), norm(0), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.LazyLinear(10, bias=False), norm(0))

    def forward(self, x):
        """Logits."""
        return self.body(x)


class VGGSmall(nn.Module):
    """The same network as `experiments.models.VGGSmall`."""

    def __init__(self, width, dense):
        super().__init__()
        layers = []
        for channels in (width, 2 * width, 4 * width):
            for pool in (False, True):
                layers.append(nn.LazyConv2d(channels, 3, padding=1, bias=False))
                layers += [nn.MaxPool2d(2)] if pool else []
                layers += [norm(2), nn.ReLU()]
        layers.append(nn.Flatten())
        for _ in range(2):
            layers += [nn.LazyLinear(dense, bias=False), norm(0), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.LazyLinear(10, bias=False), norm(0))

    def forward(self, x):
        """Logits."""
        return self.body(x)


class Block(nn.Module):
    """The same block as `experiments.models.resnet.Block`."""

    def __init__(self, inputs, channels, stride):
        super().__init__()
        conv = functools.partial(nn.Conv2d, bias=False)
        self.body = nn.Sequential(
            conv(inputs, channels, 3, stride=stride, padding=1),
            norm(2),
            nn.ReLU(),
            conv(channels, channels, 3, padding=1),
            norm(2),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != channels:
            self.shortcut = nn.Sequential(
                conv(inputs, channels, 1, stride=stride), norm(2)
            )

    def forward(self, x):
        """The next activations."""
        return functional.relu(self.body(x) + self.shortcut(x))


class ResNet18(nn.Module):
    """The same network as `experiments.models.ResNet18`."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 64, 3, padding=1, bias=False), norm(2), nn.ReLU()]
        inputs = 64
        for stage, channels in enumerate((64, 128, 256, 512)):
            for block in range(2):
                stride = 2 if stage and not block else 1
                layers.append(Block(inputs, channels, stride))
                inputs = channels
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.body = nn.Sequential(*layers, nn.LazyLinear(10, bias=False), norm(0))

    def forward(self, x):
        """Logits."""
        return self.body(x)


class Transformer(nn.Module):
    """As `experiments.models.transformer.Block`."""

    def __init__(self, width, heads):
        super().__init__()
        names = ("before_attention", "after_attention", "before_mlp", "after_mlp")
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in names})
        self.heads = nn.ModuleDict(
            {
                name: nn.LayerNorm(width // heads, bias=False)
                for name in ("query", "key")
            }
        )
        linear = functools.partial(nn.Linear, bias=False)
        self.inputs = nn.ModuleDict(
            {name: linear(width, width) for name in ("query", "key", "value")}
        )
        self.out = linear(width, width)
        self.expand, self.contract = linear(width, 4 * width), linear(4 * width, width)
        self.count = heads

    def forward(self, x):
        """The next activations."""
        seen = self.norms["before_attention"](x)
        split = {
            name: layer(seen).unflatten(-1, (self.count, -1)).transpose(1, 2)
            for name, layer in self.inputs.items()
        }
        found = functional.scaled_dot_product_attention(
            self.heads["query"](split["query"]),
            self.heads["key"](split["key"]),
            split["value"],
            is_causal=True,
        )
        found = self.out(found.transpose(1, 2).flatten(-2))
        x = x + self.norms["after_attention"](found)
        hidden = functional.gelu(
            self.expand(self.norms["before_mlp"](x)), approximate="tanh"
        )
        return x + self.norms["after_mlp"](self.contract(hidden))


class LanguageModel(nn.Module):
    """As `experiments.models.LanguageModel`, for texts of 128 bytes."""

    def __init__(self, width, depth, heads):
        super().__init__()
        self.embed = nn.Embedding(256, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 128, width))
        self.embed_norm, self.last_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(Transformer(width, heads) for _ in range(depth)))
        self.head, self.head_norm = nn.Linear(width, 256, bias=False), nn.LayerNorm(256)

    def forward(self, x):
        """Logits."""
        x = self.embed_norm(self.embed(x)) + self.positions
        return self.head_norm(self.head(self.last_norm(self.blocks(x))))


NETWORKS = {
    "language_model": LanguageModel,
    "mlp": MLP,
    "vgg_small": VGGSmall,
    "resnet18": ResNet18,
}


def sign(latent):
    """+1 and -1."""
    return torch.where(latent < 0, -1.0, 1.0)


def annealed(latent, *, unit=False):
    """AdaSTE's weights; with `unit` in units of the layer's RMS, and rescaled."""
    size = latent.abs()
    if unit:
        size = size / latent.square().mean().sqrt()
    size = ((size + MU * (1 + ALPHA)) / (1 + MU)).clamp(max=1.0)
    if unit:
        size = size / size.mean()
    return sign(latent) * size


def straight_through(function, latent):
    """The function with the identity as its gradient."""
    return latent + (function(latent) - latent).detach()


ESTIMATORS = {
    "full precision": None,
    "STE": sign,
    "AdaSTE, recommended": functools.partial(annealed, unit=True),
    steps.TWO_PASSES: annealed,
}


class ReleasedUpdate:
    """Momentum and decay of the released update.

    It has the constant slope 1 / (1 + mu), which more than 99.9 % of the weights have.
    """

    def __init__(self, params, scale=1e11, rate=1e-9):
        self._params, self._scale, self._rate = list(params), scale, rate
        self._momenta = [torch.zeros_like(one) for one in self._params]

    @torch.no_grad()
    def step(self):
        """Updates the latents."""
        for latent, momentum in zip(self._params, self._momenta, strict=True):
            wanted = latent.grad * (self._scale / (1 + MU)) + latent
            momentum.mul_(0.9).add_(wanted, alpha=0.1)
            latent.sub_(momentum, alpha=self._rate)

    def zero_grad(self):
        """Forgets the gradients."""
        for latent in self._params:
            latent.grad = None


def binary(model):
    """Names of the weights that a method makes binary: those of products."""
    kinds = (nn.Linear, nn.Conv2d)
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    }


def make(network, method, *, dtype, compiled=False):
    """A function that takes one step; see `benchmarks.steps.make`."""
    batch, case = steps.batch(network), steps.NETWORKS[network]
    images, labels = batch["image"], batch["label"]
    if images.ndim == 4:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    x = torch.from_numpy(images)
    y = torch.from_numpy(labels.astype(np.int64)).flatten()
    model = NETWORKS[case.model](**case.options)
    with torch.no_grad():
        model(x[:2])
    model.train()
    latents = dict(model.named_parameters())
    chosen = binary(model)
    released = method == steps.TWO_PASSES
    estimator = ESTIMATORS[method]
    if released:
        optimizer = ReleasedUpdate(latents.values())
    else:
        optimizer = torch.optim.Adam(latents.values(), lr=1e-3, fused=True)
    autocast = functools.partial(
        torch.autocast, "cpu", torch.bfloat16, enabled=dtype == "bfloat16"
    )

    def logits(weights):
        with autocast():
            return torch.func.functional_call(model, weights, (x,)).flatten(0, -2)

    def loss():
        weights = latents
        if estimator is not None:
            weights = {
                name: straight_through(estimator, latent) if name in chosen else latent
                for name, latent in latents.items()
            }
        return functional.cross_entropy(logits(weights).float(), y)

    if compiled:
        loss = torch.compile(loss)

    def step():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if released:
            with torch.no_grad():
                logits({name: sign(latent) for name, latent in latents.items()})

    return step
