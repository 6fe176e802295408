"""The decoder of images: every form, every damage, and what 8 bits cannot hold."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from experiments import errors
from experiments.data import image_files, images, streams

GREY = np.arange(12 * 9, dtype=np.uint8).reshape(12, 9)
COLOUR = np.random.default_rng(3).integers(0, 256, (12, 9, 3), np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image, mode="RGB"):
    return np.asarray(images.decode(image, "it", mode))


def deep(mode):
    """A ramp over all 16 bits, and what 8 bits make of it."""
    ramp = np.linspace(0, 65535, 12 * 9).round().reshape(12, 9)
    return Image.fromarray(ramp.astype(np.uint16)), np.round(ramp / 257)


def test_images_of_16_bits_are_scaled():
    image, expected = deep("I;16")
    for data in (image, encoded(image, "PNG"), encoded(image, "TIFF")):
        found = pixels(data)
        assert found.shape == (12, 9, 3)
        assert found.dtype == np.uint8
        for channel in range(3):
            np.testing.assert_array_equal(found[..., channel], expected)
    np.testing.assert_array_equal(pixels(image, "L"), expected)


def test_grey_values_of_a_portable_map_are_of_16_bits():
    values = (np.arange(108).reshape(12, 9) * 600).astype(">u2")
    data = b"P5\n9 12\n65535\n" + values.tobytes()
    np.testing.assert_array_equal(
        pixels(data, "L"), np.round(values.astype(float) / 257)
    )


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_pixels_of_no_known_range_are_refused(dtype, tmp_path):
    image = Image.fromarray(np.ones((4, 5), dtype))
    file = tmp_path / "depth.tiff"
    image.save(file)
    with pytest.raises(errors.RunError, match=rf"depth\.tiff: .*{dtype}.*8 or 16 bits"):
        images.read(str(file))
    with pytest.raises(errors.RunError, match="cannot read the image it: "):
        images.decode(image, "it")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_images_are_turned_as_their_exif_data_say(orientation, kind, recwarn):
    image = Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(image, kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(pixels(data), expected)
    assert (expected.shape == (9, 12, 3)) == (orientation > 4)


def test_damaged_exif_data_are_no_reason_to_refuse_an_image():
    data = encoded(Image.fromarray(COLOUR), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff")
    np.testing.assert_array_equal(pixels(data), COLOUR)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr"])
def test_images_of_other_modes_become_rgb(mode):
    source = Image.fromarray(COLOUR)
    image = source.convert("L").convert("LA") if mode == "LA" else None
    image = image or (source.convert("P") if mode == "PA" else source).convert(mode)
    np.testing.assert_array_equal(pixels(image), np.asarray(image.convert("RGB")))


@pytest.mark.filterwarnings("error")
def test_transparency_is_dropped_without_a_warning():
    image = Image.fromarray(COLOUR).quantize(8)
    data = encoded(image, "PNG", transparency=bytes([0, 128, 255, 9]))
    np.testing.assert_array_equal(pixels(data), np.asarray(image.convert("RGB")))


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (6, 4), (value,) * 3) for value in (10, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.unique(pixels(data)).tolist() == [10]


def test_channels_are_those_asked_for():
    assert pixels(encoded(Image.fromarray(GREY), "PNG"), "L").shape == (12, 9)
    assert pixels(encoded(Image.fromarray(GREY), "PNG"), "RGBA").shape == (12, 9, 4)


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    )


def png(width, height, *chunks):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


DAMAGE = {
    "empty": b"",
    "text": b"<!DOCTYPE html>",
    "cut": encoded(Image.fromarray(COLOUR), "PNG")[:60],
    "cut_jpeg": encoded(Image.fromarray(COLOUR), "JPEG")[:-40],
    "bomb": png(50_000, 50_000, (b"IDAT", b"")),
    "large": png(10_000, 9_500, (b"IDAT", zlib.compress(b"\0" * 100))),
    "too_much_text": png(4, 4, (b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 21)))),
    "short_header": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0\0\1"),
    "bmp": b"BM" + bytes(12) + struct.pack("<I", 40) + b"\xff" * 36,
    "tiff": b"II*\0\x08\0\0\0\x01\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_is_an_error_that_names_the_image(damage, tmp_path):
    file = tmp_path / f"{damage}.png"
    file.write_bytes(DAMAGE[damage])
    with pytest.raises(errors.RunError, match=rf"cannot read the image .*{file.name}"):
        image_files.ImageFiles([str(file)], [0])[0]
    source = [{"image": encoded(Image.fromarray(COLOUR), "PNG"), "label": 0}] * 3
    source.append({"image": DAMAGE[damage], "label": 0})
    batches = streams.stream(source, batch_size=4, train=False, image_size=4)
    with pytest.raises(errors.RunError, match="cannot read the image of example 3:"):
        list(batches)


@pytest.mark.filterwarnings("ignore")
def test_bytes_at_random_raise_no_other_error():
    rng = np.random.default_rng(0)
    whole = [
        encoded(Image.fromarray(COLOUR), kind) for kind in ("TIFF", "GIF", "PPM", "PNG")
    ]
    refused = 0
    for number in range(400):
        data = bytearray(whole[number % len(whole)])
        for place in rng.integers(len(data), size=4):
            data[place] = rng.integers(256)
        try:
            assert pixels(bytes(data)).dtype == np.uint8
        except errors.RunError:
            refused += 1
    assert 40 < refused < 400


@pytest.mark.parametrize("error", [MemoryError, SyntaxError, OverflowError, EOFError])
def test_whatever_pillow_raises_names_the_file(error, tmp_path, monkeypatch):
    def fail(self, *args):
        raise error

    file = tmp_path / "good.png"
    Image.fromarray(COLOUR).save(file)
    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(
        errors.RunError, match=rf"good\.png: ({error.__name__}|no reas)"
    ):
        images.read(str(file))


def test_only_regular_files_are_opened(tmp_path):
    """It would wait for somebody to write."""
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    with pytest.raises(errors.RunError, match=r"pipe\.jpg: it is not a regular file"):
        images.read(str(pipe))
