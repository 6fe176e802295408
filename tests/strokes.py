"""Digits as strokes, for the test of the demo."""

import math

import numpy as np


def arc(x, y, across, down, start, end, steps=16):
    """Points of an ellipse; angles in turns, clockwise from the right."""
    angles = [
        2 * math.pi * (start + (end - start) * i / steps) for i in range(steps + 1)
    ]
    return [[x + across * math.cos(a), y + down * math.sin(a)] for a in angles]


STROKES = {
    0: [arc(0.5, 0.5, 0.22, 0.35, -0.25, 0.75)],
    1: [[[0.38, 0.3], [0.52, 0.15], [0.52, 0.85]]],
    2: [[*arc(0.5, 0.32, 0.2, 0.17, -0.5, 0.12), [0.3, 0.85], [0.72, 0.85]]],
    3: [
        [
            *arc(0.47, 0.32, 0.19, 0.17, -0.45, 0.22),
            *arc(0.47, 0.67, 0.22, 0.18, -0.22, 0.42),
        ]
    ],
    4: [[[0.42, 0.15], [0.28, 0.58], [0.74, 0.58]], [[0.62, 0.35], [0.58, 0.85]]],
    5: [
        [
            [0.7, 0.15],
            [0.36, 0.15],
            [0.33, 0.47],
            *arc(0.48, 0.64, 0.21, 0.2, -0.32, 0.4),
        ]
    ],
    6: [[[0.6, 0.13], [0.42, 0.35], *arc(0.5, 0.66, 0.18, 0.19, -0.45, 0.55)]],
    7: [[[0.28, 0.17], [0.7, 0.17], [0.45, 0.85]], [[0.36, 0.52], [0.66, 0.52]]],
    8: [
        [
            *arc(0.5, 0.32, 0.16, 0.16, 0.25, -0.75),
            *arc(0.5, 0.67, 0.19, 0.19, -0.25, 0.75),
        ]
    ],
    9: [[*arc(0.5, 0.34, 0.18, 0.19, 0, -1), [0.66, 0.6], [0.58, 0.86]]],
}
"""Strokes of each digit, as one could write it."""


def varied(strokes, rng):
    """The same by another hand: turned, slanted, stretched, smaller, elsewhere."""
    turn, slant = rng.uniform(-0.12, 0.12, 2)
    stretch, size = rng.uniform(0.8, 1.15), rng.uniform(0.3, 1)
    shape = np.array(
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    )
    shape = size * shape @ np.array([[stretch, -slant], [0, 1]])
    moved = rng.uniform(size / 2, 1 - size / 2, 2)
    return [
        (
            (np.asarray(line) - 0.5) @ shape.T
            + moved
            + rng.normal(0, 0.008, (len(line), 2)) * size
        ).tolist()
        for line in strokes
    ]
