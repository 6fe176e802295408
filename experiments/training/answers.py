"""What a network answered on the test split: kept for the report, in bounded size.

The record of a run, `answers.json`:

    {"images": 10000,
     "class_names": ["cat", "dog"], "confusion": [[4970, 30], [12, 4988]],
     "samples": [{"truth": "cat", "answer": "dog", "confidence": 0.99,
                  "png": "iVBO..."}]}

Rows of `confusion` are the true classes, columns the answers. With more than
`MOST_CLASSES` classes there are only samples. They are the wrong answers with the
highest softmax; `png` is the image as the network saw it, in base64, at most `SIDE`
pixels wide and high.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from experiments.data import images, sources, transforms

MOST_CLASSES = 200
SAMPLES = 24
SIDE = 64


class Answers:
    """Collects the answers of an evaluation, batch by batch."""

    def __init__(self) -> None:
        """Nothing is collected yet."""
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._seen = 0

    def add(
        self, batch: Any, labels: jax.Array, answers: jax.Array, confidence: jax.Array
    ) -> None:
        """Adds the answers to a batch of `feeds.evaluation`.

        Args:
            batch: The batch.
            labels: True classes, [n]; other numbers are left out.
            answers: Classes that the network chose, [n].
            confidence: Softmax of the chosen class, [n].
        """
        size = len(answers)
        count = 1 if "index" in batch else jax.process_count()
        # Streams give every process each `count`-th example, so parts are interleaved.
        index = np.arange(size).reshape(-1, count).T.ravel() + self._seen
        self._seen += size
        found = (np.asarray(part) for part in (labels, answers, confidence))
        self._parts.append((index, *found))

    def record(
        self,
        source: sources.Source,
        *,
        num_classes: int,
        class_names: Sequence[str] | None,
        max_value: int,
        image_size: int | None,
    ) -> dict[str, Any]:
        """The record, as JSON.

        Args:
            source: The examples that were evaluated, in the same order.
            num_classes: Number of classes.
            class_names: Their names. Default: their numbers.
            max_value: The largest possible value of a pixel.
            image_size: Side of the images that the network gets; None keeps their size.
        """
        joined = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        index, labels, answers, confidence = joined
        names = list(class_names or map(str, range(num_classes)))
        counts = (index < len(source)) & (labels >= 0) & (labels < num_classes)
        found: dict[str, Any] = {"images": int(counts.sum())}
        if num_classes <= MOST_CLASSES:
            confusion = np.zeros((num_classes, num_classes), int)
            np.add.at(confusion, (labels[counts], answers[counts]), 1)
            found |= {"class_names": names, "confusion": confusion.tolist()}
        (wrong,) = np.nonzero(counts & (labels != answers))
        surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:SAMPLES]
        pictures = images.Decoded(source)
        found["samples"] = [
            {
                "truth": names[labels[i]],
                "answer": names[answers[i]],
                "confidence": round(float(confidence[i]), 4),
                "png": _png(
                    transforms.evaluation_example(
                        int(index[i]), source=pictures, image_size=image_size
                    )["image"],
                    max_value,
                ),
            }
            for i in surest
        ]
        return found


def _png(pixels: np.ndarray, max_value: int) -> str | None:
    """A small picture; None if the pixels have an unusual number of channels."""
    mode = images.MODES.get(pixels.shape[-1])
    if mode is None:
        return None
    scaled = np.rint(pixels * (255 / max_value)).astype(np.uint8)
    image = Image.fromarray(scaled.reshape(scaled.shape[:2]) if mode == "L" else scaled)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
