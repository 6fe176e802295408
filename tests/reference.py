"""The methods once more: one number at a time, float64, plain `if`s, from the papers.

Nothing here imports the library. `theta` is a latent, `grad` the gradient at its
weight; what returns two numbers returns the weight and the gradient at the latent.
"""

import math


def sgn(x: float) -> float:
    return 1.0 if x >= 0 else -1.0


def clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def ste_identity(theta, grad):
    return sgn(theta), grad


def ste_clipped(theta, grad, threshold=1.0):
    return sgn(theta), (grad if abs(theta) <= threshold else 0.0)


def adaste_forward(theta, mu, alpha):
    """The minimiser of the inner energy over [-1, 1]."""
    return clip((theta + mu * (1 + alpha) * sgn(theta)) / (1 + mu), -1.0, 1.0)


def adaste_quotient(theta, grad, beta, mu, alpha):
    """The contrastive slope at a given beta, knowing nothing of cases."""
    moved = adaste_forward(theta - beta * grad, mu, alpha)
    return (adaste_forward(theta, mu, alpha) - moved) / (beta * grad)


def adaste_adaptive(theta, grad, mu, alpha, cap=0.5):
    """Slope for the step that just reaches the other side of zero."""
    size = abs(theta)
    if size == 0:
        return cap
    if grad != 0 and (grad > 0) == (theta > 0):
        jump = min(1.0, mu * (1 + alpha) / (1 + mu))
        return min(cap, (abs(adaste_forward(theta, mu, alpha)) + jump) / size)
    if size < 1 - mu * alpha:
        return 1 / (1 + mu)
    return 0.0


def adaste_supremum(theta, grad, mu, alpha, cap=0.5):
    """The largest slope over all steps."""
    size, saturation = abs(theta), 1 - mu * alpha
    toward = grad != 0 and (grad > 0) == (theta > 0)
    if size > 0 and toward and saturation > 0 and size > 1 + 2 * mu + mu * alpha:
        return min(cap, 2 / (size + saturation))
    return adaste_adaptive(theta, grad, mu, alpha, cap)


def adaste_released(theta, grad, mu, alpha, cap=0.5):
    """What the authors' code computes."""
    size = abs(theta)
    toward = (grad > 0) == (theta > 0) and theta != 0 and grad != 0
    binary = mu * alpha >= 1
    if abs(grad) <= 1e-3:
        return 1.0 if binary else 1 / (1 + mu)
    if binary:
        if size <= 1e-3:
            return 1.0
        return min(cap, 1 / size) if toward else 0.0
    saturation = 1 - mu * alpha
    if size > max(1e-6, saturation):
        if toward:
            return min(cap, (1 + 2 * mu + mu * alpha) / ((1 + mu) * size))
        return 0.0
    if 1e-6 < size < saturation and toward:
        return clip((2 * mu * (1 + alpha) - theta) / ((1 + mu) * size), 0.0, cap)
    return 1 / (1 + mu)


def adaste_annealed(thetas, mu, alpha):
    """The recommended forward map: units of the layer, rescaled to mean magnitude 1."""
    rms = math.sqrt(sum(t * t for t in thetas) / len(thetas))
    sizes = [min(1.0, (abs(t) / rms + mu * (1 + alpha)) / (1 + mu)) for t in thetas]
    mean = sum(sizes) / len(sizes)
    return [sgn(t) * s / mean for t, s in zip(thetas, sizes, strict=True)]
