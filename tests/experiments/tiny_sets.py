"""Tiny data sets in the place and the format of real ones that are not at hand."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

TINY_IMAGENET = "folder/tiny-imagenet-200"


def root(folder):
    return pathlib.Path(folder) / "tiny-imagenet-200"


def colour(label):
    """The grey of all images of a class."""
    return 40 + 20 * int(label)


def tiny_imagenet(folder, *, classes, train, test):
    """The layout of TinyImageNet: `train` images a class, `test` in all."""
    names = [f"n{number:08d}" for number in range(classes)]

    def save(path, label):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (colour(label),) * 3).save(path, "JPEG")

    for label, name in enumerate(names):
        for i in range(train):
            save(root(folder) / "train" / name / "images" / f"{name}_{i}.JPEG", label)
        boxes = root(folder) / "train" / name / f"{name}_boxes.txt"
        boxes.write_text(f"{name}_0.JPEG\t0\t0\t63\t63\n")
    lines = []
    for i in range(test):
        label = (7 * i) % classes
        save(root(folder) / "val" / "images" / f"val_{i}.JPEG", label)
        lines.append(f"val_{i}.JPEG\t{names[label]}\t0\t0\t62\t62\n")
        # As in the original, where nobody knows their classes.
        save(root(folder) / "test" / "images" / f"test_{i}.JPEG", label)
    (root(folder) / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def prepare(name, folder, monkeypatch, *, sizes, image_shapes):
    """The data set `name` of TFDS, with its features, and with few random images.

    Args:
        name: Of TFDS.
        folder: Where it is prepared.
        monkeypatch: Of pytest.
        sizes: Number of examples of each split.
        image_shapes: Shapes that images have by turns.
    """
    builder = tfds.builder(name, data_dir=str(folder), file_format="array_record")
    features = builder.info.features

    def examples(number):
        rng = np.random.default_rng(number)
        for i in range(number):
            shape = image_shapes[i % len(image_shapes)]
            example = {"image": rng.integers(0, 256, shape, np.uint8)}
            for other in set(features) - {"image"}:
                is_class = hasattr(features[other], "num_classes")
                example[other] = (
                    int(rng.integers(features[other].num_classes))
                    if is_class
                    else f"{number}_{i}"
                )
            example["image"] = Image.fromarray(example["image"])
            yield i, example

    def split_generators(self, dl_manager, *args, **kwargs):
        return {split: examples(number) for split, number in sizes.items()}

    with monkeypatch.context() as patch:
        patch.setattr(type(builder), "_split_generators", split_generators)
        builder.download_and_prepare()
    return str(folder)
