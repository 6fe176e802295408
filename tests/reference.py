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


def approx_sign(theta, grad):
    return sgn(theta), (2 * (1 - abs(theta)) * grad if abs(theta) <= 1 else 0.0)


def swish_sign(theta, grad, beta):
    x = beta * theta
    slope = beta * (2 - x * math.tanh(x / 2)) / (1 + math.cosh(x))
    return sgn(theta), slope * grad


def reste(theta, grad, exponent, cut=1.5, floor=0.1):
    size = abs(theta)
    if size > cut:
        slope = 0.0
    elif size > floor:
        slope = size ** ((1 - exponent) / exponent) / exponent
    else:
        slope = floor ** (1 / exponent) / floor
    return sgn(theta), slope * grad


def ede(theta, grad, sharpness):
    k = max(1 / sharpness, 1.0)
    slope = k * sharpness / math.cosh(sharpness * theta) ** 2
    return sgn(theta), slope * grad


def fda(theta, grad, omega, order):
    total = sum(math.cos((2 * i + 1) * omega * theta) for i in range(order + 1))
    return sgn(theta), 4 * omega / math.pi * total * grad


def rbnn(theta, grad, sharpness):
    t = sharpness
    slope = max(2 * math.sqrt(t**2 / 2) - abs(t**2 * theta), 0.0)
    return sgn(theta), max(1 / t, 1.0) * slope * grad


def tanh(theta, grad, beta):
    slope = beta / math.cosh(beta * theta) ** 2 if abs(beta * theta) < 300 else 0.0
    return math.tanh(beta * theta), slope * grad


def md_tanh_s(theta, grad, beta):
    return math.tanh(beta * theta), grad


def hardtanh_adaste(theta, grad):
    weight = clip(theta, -1.0, 1.0)
    if abs(theta) < 1:
        return weight, grad
    if grad * theta > 0:
        return weight, 2 * grad / (1 + abs(theta))
    return weight, 0.0


def fenbp(theta, grad, beta, squash):
    return squash(theta), (squash(theta) - squash(theta - beta * grad)) / beta


def hardtanh(x):
    return clip(x, -1.0, 1.0)


def ternary_fixed(theta, grad, threshold):
    weight = sgn(theta) if abs(theta) >= threshold else 0.0
    return weight, (grad if abs(theta) <= 1 else 0.0)


def ternary_tanh(theta, grad, beta):
    """With the derivative as its backward rule."""
    up, up_grad = tanh(theta + 0.5, grad, beta)
    down, down_grad = tanh(theta - 0.5, grad, beta)
    return (up + down) / 2, (up_grad + down_grad) / 2


def scaled_sign(thetas, grads, scale_grad):
    """One group: the weights, and the gradients at the latents."""
    n = len(thetas)
    scale = sum(abs(t) for t in thetas) / n
    through_scale = sum(g * sgn(t) for t, g in zip(thetas, grads, strict=True)) / n
    cotangents = []
    for theta, grad in zip(thetas, grads, strict=True):
        passed = grad if abs(theta) <= 1 else 0.0
        cotangents.append(
            {
                "constant": scale * passed,
                "detached": passed,
                "exact": scale * passed + sgn(theta) * through_scale,
                "diagonal": scale * passed + grad / n,
            }[scale_grad]
        )
    return [scale * sgn(t) for t in thetas], cotangents


def irnet_weight(thetas, grads, sharpness):
    """One group: weights, gradients at the latents, and standardised latents."""
    n = len(thetas)
    mean = sum(thetas) / n
    std = math.sqrt(sum((t - mean) ** 2 for t in thetas) / (n - 1))
    z = [(t - mean) / std for t in thetas]
    scale = 2.0 ** round(math.log2(sum(map(abs, z)) / n))
    q = [ede(a, g * scale, sharpness)[1] for a, g in zip(z, grads, strict=True)]
    mean_q = sum(q) / n
    moment = sum(a * b for a, b in zip(q, z, strict=True)) / (n - 1)
    h = [(a - mean_q - b * moment) / std for a, b in zip(q, z, strict=True)]
    return [scale * sgn(a) for a in z], h, z


def biper(theta, grad, stage, omega):
    sine = math.sin(omega * theta)
    weight = sine if stage == 1 else sgn(sine)
    return weight, omega * math.cos(omega * theta) * grad


def progressive(thetas, grads, sharpness):
    """One group; at 0 the limit, which is the identity."""
    scale = sum(map(abs, thetas)) / len(thetas)
    weights, cotangents = [], []
    for theta, grad in zip(thetas, grads, strict=True):
        s, x = sharpness, theta / scale
        if s == 0:
            weights.append(theta)
            cotangents.append(grad)
        else:
            weights.append(scale * math.tanh(s * x) / math.tanh(s))
            cotangents.append(grad * s * (1 - math.tanh(s * x) ** 2) / math.tanh(s))
    return weights, cotangents


def ovsw(thetas, grads, before, rates, delta, decay, momentum, threshold):
    """One output channel: new gradients, and new moving rates of flips."""
    size = max(math.sqrt(sum(t * t for t in thetas)), 1e-3)
    length = max(math.sqrt(sum(g * g for g in grads)), 1e-6)
    factor = delta * size / length if length / size < delta else 1.0
    rates = [
        momentum * f + (1 - momentum) * (sgn(t) != sgn(b))
        for f, t, b in zip(rates, thetas, before, strict=True)
    ]
    scaled = [
        factor * g + (decay * t if f < threshold else 0.0)
        for t, g, f in zip(thetas, grads, rates, strict=True)
    ]
    return scaled, rates


def freezing(levels, momentum, threshold):
    """Integer weights of any number of levels, one a step: frequency and frozen level.

    The level is None before it is frozen. An oscillation is a change in the direction
    opposite to that of the change before.
    """
    before, direction, frequency, average = levels[0], 0, 0.0, float(levels[0])
    frozen, found = None, []
    for level in levels:
        change = level - before
        turned = change * direction < 0
        frequency = momentum * turned + (1 - momentum) * frequency
        if frozen is None and frequency > threshold:
            frozen = min(set(levels), key=lambda each: abs(each - average))
        average = momentum * level + (1 - momentum) * average
        direction = change if change else direction
        before = level
        found.append((frequency, frozen))
    return found


def cage(thetas, updates, strength):
    """One group of latents after the step and the pull to their scaled signs."""
    moved = [t + u for t, u in zip(thetas, updates, strict=True)]
    scale = sum(map(abs, moved)) / len(moved)
    return [t - strength * (t - scale * sgn(t)) for t in moved]
