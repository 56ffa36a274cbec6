"""Decoding against pixel values computed by hand, and damaged files that must not decode."""

import errno
import hashlib
import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from mmcot_data.errors import ImageError
from mmcot_data.images import (
    MAX_PIXELS,
    bytes_sha256,
    decode_rgb,
    header_size,
    pixel_sha256,
    read_image,
    read_image_bytes,
)


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(width, height, color_type, bit_depth, rows, *chunks, tail=()):
    """A PNG from scratch, for the kinds that Pillow doesn't write."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*c) for c in chunks), chunk(b"IDAT", pixels)]
    parts += [chunk(*c) for c in tail]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def first_pixel(data):
    image = decode_rgb(data, "picture")
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


def on_white(value, alpha):
    return round((value * alpha + 255 * (255 - alpha)) / 255)


def palette_image():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    return image


MODES = {
    "RGB": (encode(Image.new("RGB", (2, 2), (10, 20, 30))), (10, 20, 30)),
    "RGBA": (
        encode(Image.new("RGBA", (2, 2), (10, 20, 30, 100))),
        (on_white(10, 100), on_white(20, 100), on_white(30, 100)),
    ),
    "RGBA invisible": (encode(Image.new("RGBA", (2, 2), (0, 0, 0, 0))), (255, 255, 255)),
    "LA": (encode(Image.new("LA", (2, 2), (40, 51))), (on_white(40, 51),) * 3),
    "L": (encode(Image.new("L", (2, 2), 77)), (77, 77, 77)),
    "1": (encode(Image.new("1", (2, 2), 1)), (255, 255, 255)),
    "P": (encode(palette_image()), (10, 20, 30)),
    "P, one clear entry": (encode(palette_image(), transparency=0), (255, 255, 255)),
    "P, alpha by entry": (
        encode(palette_image(), transparency=bytes([100, 255])),
        (on_white(10, 100), on_white(20, 100), on_white(30, 100)),
    ),
    "L with a clear grey": (encode(Image.new("L", (2, 2), 7), transparency=7), (255, 255, 255)),
    "RGB with a clear colour": (
        encode(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3)),
        (255, 255, 255),
    ),
    "16-bit grey": (png(1, 1, 0, 16, [struct.pack(">H", 0x80FF)]), (0x80,) * 3),
    "16-bit grey, clear": (
        png(1, 1, 0, 16, [struct.pack(">H", 0x1234)], (b"tRNS", b"\x12\x34")),
        (255, 255, 255),
    ),
    "16-bit RGB": (png(1, 1, 2, 16, [struct.pack(">HHH", 0xFFFF, 0x80FF, 0x01)]), (255, 128, 0)),
    "16-bit grey with alpha": (
        png(1, 1, 4, 16, [struct.pack(">HH", 0x2800, 0x3300)]),
        (on_white(0x28, 0x33),) * 3,
    ),
    "CMYK": (
        encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100),
        (255, 0, 0),
    ),
    "GIF with a clear entry": (encode(palette_image(), "GIF", transparency=0), (255, 255, 255)),
    "BMP": (encode(Image.new("RGB", (2, 2), (10, 20, 30)), "BMP"), (10, 20, 30)),
    "WebP": (
        encode(Image.new("RGBA", (2, 2), (10, 20, 30, 100)), "WEBP", lossless=True, exact=True),
        (on_white(10, 100), on_white(20, 100), on_white(30, 100)),
    ),
}


@pytest.mark.parametrize(("data", "expected"), MODES.values(), ids=MODES)
def test_every_mode_has_its_defined_rgb(data, expected):
    """A plain convert("RGB") paints transparent pixels black and clips 16 bits to white."""
    assert first_pixel(data) == expected


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for format in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert first_pixel(data) == (255, 0, 0)


# Where the pixels of a 3 x 2 picture a b c / d e f go, by EXIF orientation.
ORIENTED = {
    1: ["abc", "def"],
    2: ["cba", "fed"],
    3: ["fed", "cba"],
    4: ["def", "abc"],
    5: ["ad", "be", "cf"],
    6: ["da", "eb", "fc"],
    7: ["fc", "eb", "da"],
    8: ["cf", "be", "ad"],
}


@pytest.mark.parametrize("late", [False, True], ids=["eXIf first", "eXIf last"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_the_exif_orientation_is_applied_also_to_the_size_in_the_header(orientation, late):
    """A forecast that ignores it would plan a batch of unequal pictures."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    chunk = (b"eXIf", exif.tobytes()[6:])
    rows = [b"abc", b"def"]
    early, tail = ((), (chunk,)) if late else ((chunk,), ())
    data = png(3, 2, 0, 8, rows, *early, tail=tail)
    image = decode_rgb(data, "picture")
    pixels = np.asarray(image)[..., 0]
    assert [bytes(row).decode() for row in pixels] == ORIENTED[orientation]
    assert header_size(data, "picture") == image.size


def test_a_turned_jpeg_is_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.new("RGB", (30, 20)), "JPEG", exif=exif)
    assert header_size(data, "picture") == decode_rgb(data, "picture").size == (20, 30)


def test_damaged_metadata_does_not_cost_the_picture():
    data = png(1, 1, 0, 8, [b"\x05"], (b"eXIf", b"no metadata at all"))
    assert first_pixel(data) == (5, 5, 5)


def noise(width=37, height=31):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


WHOLE = {
    "png": encode(noise()),
    "jpeg": encode(noise(), "JPEG"),
    "progressive": encode(noise(), "JPEG", progressive=True),
    "gif": encode(noise().convert("P"), "GIF"),
    "webp": encode(noise(), "WEBP"),
    "bmp": encode(noise(), "BMP"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_truncated_file_is_never_another_picture(name):
    """Half-grey pictures would become features like any other."""
    data, reasons = WHOLE[name], set()
    expected = pixel_sha256(decode_rgb(data, name))
    for length in range(1, len(data), 10):
        try:
            image = decode_rgb(data[:length], name)
        except ImageError as error:
            reasons.add(error.reason)
        else:
            assert pixel_sha256(image) == expected, f"{length} of {len(data)} bytes"
    assert reasons <= {"truncated", "unreadable"}
    if name != "webp":
        assert "truncated" in reasons


@settings(deadline=None, max_examples=200)
@given(
    name=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_damaged_file_raises_nothing_but_an_image_error(name, changes):
    data = bytearray(WHOLE[name])
    for place, value in changes:
        data[int(place * len(data))] = value
    reasons = set()
    for function in (decode_rgb, header_size):
        try:
            function(bytes(data), name)
        except ImageError as error:
            reasons.add(error.reason)
    assert reasons <= {"truncated", "unreadable", "too_large", "unsupported"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not a picture", "unreadable"),
        (b"\x89PNG\r\n\x1a\n", "unreadable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unreadable"),
    ],
)
def test_what_is_no_picture_has_a_reason(data, reason):
    for function in (decode_rgb, header_size):
        with pytest.raises(ImageError, match=r"some/image\.png") as caught:
            function(data, "some/image.png")
        assert caught.value.reason == reason


@pytest.mark.parametrize(("width", "height"), [(9500, 9500), (20_000, 20_000)])
def test_a_bomb_is_refused_by_its_header_without_a_warning(width, height):
    """Pillow warns above its limit and refuses above twice the limit: both are one outcome."""
    assert width * height > MAX_PIXELS
    data = png(width, height, 0, 8, [b""])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match="pixels") as caught:
            decode_rgb(data, "bomb")
    assert caught.value.reason == "too_large"


def test_the_limit_can_be_lowered():
    data = encode(Image.new("L", (10, 10)))
    assert decode_rgb(data, "picture", max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="10 x 10 pixels, more than the 99"):
        decode_rgb(data, "picture", max_pixels=99)


def test_a_mode_without_a_way_to_rgb_is_unsupported(monkeypatch):
    opened = Image.new("F", (2, 2))
    monkeypatch.setattr(Image, "open", lambda *_, **__: opened)
    with pytest.raises(ImageError, match="mode F") as caught:
        decode_rgb(b"some bytes", "picture")
    assert caught.value.reason == "unsupported"


def test_it_refuses_to_work_where_half_pictures_are_allowed(monkeypatch):
    """Another library may switch this on for the whole process."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES"):
        decode_rgb(WHOLE["png"], "picture")


def test_the_digests_are_those_of_the_bytes_and_of_the_pixels(tmp_path):
    path = tmp_path / "image.png"
    data = encode(noise())
    path.write_bytes(data)
    picture = read_image(path)
    assert picture.image_sha256 == hashlib.sha256(data).hexdigest() == bytes_sha256(data)
    pixels = b"37x31\n" + np.asarray(noise()).tobytes()
    assert picture.pixel_sha256 == hashlib.sha256(pixels).hexdigest()


def test_the_pixel_digest_ignores_encoding_and_sees_size():
    lossless = [encode(noise()), encode(noise(), "BMP"), encode(noise(), "WEBP", lossless=True)]
    assert len({pixel_sha256(decode_rgb(data, "picture")) for data in lossless}) == 1
    wide, high = Image.new("RGB", (4, 2)), Image.new("RGB", (2, 4))
    assert pixel_sha256(wide) != pixel_sha256(high)


def test_files_that_cannot_be_read_have_a_reason(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    for name, reason in (("none", "missing"), ("empty", "empty"), ("folder", "unreadable")):
        with pytest.raises(ImageError, match=f"{name}.png") as caught:
            read_image_bytes(tmp_path / f"{name}.png")
        assert caught.value.reason == reason


def test_a_failing_disk_is_no_property_of_the_picture(tmp_path, monkeypatch):
    """Catches a good picture listed as unreadable; read errors do not name the file themselves."""

    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match=r"Input/output error: .*picture\.png"):
        read_image_bytes(tmp_path / "picture.png")


def test_threads_may_open_pictures_together():
    """catch_warnings is not safe in threads: unguarded, a thread's filters stay behind."""
    filters = list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [header_size(WHOLE["png"], "x") for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == filters
