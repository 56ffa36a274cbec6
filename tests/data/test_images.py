"""Decoding against pixel values computed by hand, and damaged files that must not decode."""

import errno
import hashlib
import io
import os
import struct
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from mmcot_data.errors import ImageError
from mmcot_data.images import (
    MAX_PIXELS,
    bytes_sha256,
    decode_rgb,
    describe_decoding,
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


def tiff(width, height, bits, samples, *, photometric=1, order="<", **tags):
    """An uncompressed TIFF from scratch, for the kinds that Pillow doesn't write."""
    numbers = {"orientation": 274, "extra": 338, "sample_format": 339, "xmp": 700}
    entries = {256: width, 257: height, 259: 1, 262: photometric, 277: len(bits), 278: height}
    entries |= {numbers[name]: value for name, value in tags.items()} | {258: bits}
    entries[279] = len(samples)
    end = 8 + 2 + 12 * (len(entries) + 1) + 4
    directory, behind = struct.pack(order + "H", len(entries) + 1), b""
    for tag in sorted([*entries, 273]):
        value = entries.get(tag)
        if isinstance(value, bytes):
            kind, count, raw = 1, len(value), value
        elif isinstance(value, tuple):
            kind, count, raw = 3, len(value), struct.pack(f"{order}{len(value)}H", *value)
        else:  # the pixels come first behind the directory
            kind, count, raw = 4, 1, struct.pack(order + "I", end if tag == 273 else value)
        if len(raw) > 4:
            raw, behind = struct.pack(order + "I", end + len(samples) + len(behind)), behind + raw
        directory += struct.pack(order + "HHI", tag, kind, count) + raw.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", 8) + directory + b"\0" * 4 + samples + behind


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
    "1-bit grey, clear": (png(8, 1, 0, 1, [b"\xff"], (b"tRNS", b"\0\1")), (255, 255, 255)),
    "1-bit grey, black clear": (png(8, 1, 0, 1, [b"\0"], (b"tRNS", b"\0\0")), (255, 255, 255)),
    "2-bit grey, clear": (png(4, 1, 0, 2, [b"\x55"], (b"tRNS", b"\0\1")), (255, 255, 255)),
    "2-bit grey, another clear": (png(4, 1, 0, 2, [b"\x55"], (b"tRNS", b"\0\2")), (85, 85, 85)),
    "4-bit grey, clear": (png(2, 1, 0, 4, [b"\x77"], (b"tRNS", b"\0\7")), (255, 255, 255)),
    "16-bit RGB with alpha": (
        png(1, 1, 6, 16, [struct.pack(">HHHH", 0x2801, 0x50FF, 0x0A00, 0x33FF)]),
        (on_white(0x28, 0x33), on_white(0x50, 0x33), on_white(0x0A, 0x33)),
    ),
    "TIFF": (encode(Image.new("RGB", (2, 2), (10, 20, 30)), "TIFF"), (10, 20, 30)),
    "TIFF, 0 is white": (tiff(1, 1, (8,), b"\x10", photometric=0), (0xEF,) * 3),
    "TIFF, 16-bit grey": (tiff(1, 1, (16,), b"\xff\x80"), (0x80,) * 3),
    "TIFF, 16-bit grey, big end": (tiff(1, 1, (16,), b"\x80\xff", order=">"), (0x80,) * 3),
    "TIFF, 16-bit RGB": (
        tiff(1, 1, (16,) * 3, struct.pack("<HHH", 0xFFFF, 0x80FF, 0x01), photometric=2),
        (255, 128, 0),
    ),
    "TIFF, alpha": (
        tiff(1, 1, (8,) * 4, bytes([10, 20, 30, 100]), photometric=2, extra=2),
        (on_white(10, 100), on_white(20, 100), on_white(30, 100)),
    ),
    "TIFF, CMYK": (tiff(1, 1, (8,) * 4, bytes([0, 255, 255, 0]), photometric=5), (255, 0, 0)),
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


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_alpha_can_be_dropped_as_multimodal_cot_does():
    """Its convert("RGB") shows the colours that transparent pixels hide."""
    hidden = {"RGBA": (10, 20, 30), "RGBA invisible": (0, 0, 0), "LA": (40,) * 3}
    hidden |= {"P, one clear entry": (10, 20, 30), "P, alpha by entry": (10, 20, 30)}
    hidden |= {"L with a clear grey": (7,) * 3, "RGB with a clear colour": (1, 2, 3)}
    hidden |= {"16-bit grey, clear": (0x12,) * 3, "16-bit grey with alpha": (0x28,) * 3}
    hidden |= {"GIF with a clear entry": (10, 20, 30), "WebP": (10, 20, 30)}
    hidden |= {"2-bit grey, clear": (85,) * 3, "TIFF, alpha": (10, 20, 30), "RGB": (10, 20, 30)}
    for name, colour in hidden.items():
        data = MODES[name][0]
        dropped = decode_rgb(data, name, alpha="drop")
        assert dropped.getpixel((0, 0)) == colour, name
        if not name.startswith("16-bit"):
            assert dropped.tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes(), name


def test_the_description_says_what_becomes_of_alpha():
    """Feature sets that were made before alpha could be dropped must stay what they are."""
    assert describe_decoding("white") == {
        "step": "decode",
        "mode": "RGB",
        "alpha": "composited on white",
        "orientation": "exif",
        "16-bit": "high byte",
        "implementation": "pil",
    }
    drop = describe_decoding("drop")
    assert drop["alpha"].startswith("dropped")
    assert drop | {"alpha": ""} == describe_decoding("white") | {"alpha": ""}


def cmyk_jpeg(ink, transform):
    """A JPEG of one colour; ``transform`` is Adobe's: 0 CMYK, 2 YCCK, None without its mark.

    Pillow writes Adobe's kind, inverted. The mark is a segment of 16 bytes.
    """
    data = encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100, subsampling=0)
    start = data.index(b"\xff\xee")
    mark = data[start : start + 16]
    assert mark[4:9] == b"Adobe"
    new = b"" if transform is None else mark[:-1] + bytes([transform])
    return data[:start] + new + data[start + 16 :]


@pytest.mark.parametrize("ink", [(0, 255, 255, 0), (40, 80, 120, 30), (200, 10, 90, 60)])
def test_inks_become_light(ink):
    """Inverted inks give a negative, which a model sees without complaint."""
    cyan, magenta, yellow, black = ink

    def light(*inks, black):
        return [max(0, 255 - round(ink * (255 - black) / 255) - black) for ink in inks]

    expected = light(cyan, magenta, yellow, black=black)
    for transform in (0, None):  # Pillow takes all for Adobe's
        assert first_pixel(cmyk_jpeg(ink, transform)) == pytest.approx(expected, abs=2)
    # YCCK: what was stored as inverted inks is read as brightness and two colour differences,
    # which give the inks as they are (of black nothing changes).
    y, cb, cr = 255 - cyan, 255 - magenta - 128, 255 - yellow - 128
    rgb = (y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb)
    inks = (min(255, max(0, round(value))) for value in rgb)
    assert first_pixel(cmyk_jpeg(ink, 2)) == pytest.approx(light(*inks, black=black), abs=3)


UNSUPPORTED = {
    "float": tiff(1, 1, (32,), struct.pack("<f", 0.5), sample_format=(3,)),
    "32 bits": tiff(1, 1, (32,), b"1234"),
    "signed": tiff(1, 1, (8,), b"1", sample_format=(2,)),
    "signed, 16 bits": tiff(1, 1, (16,), b"12", sample_format=(2,)),
    "12 bits": tiff(2, 1, (12,), b"123"),
    "16 bits, 0 is white": tiff(1, 1, (16,), b"12", photometric=0),
    "Lab": tiff(1, 1, (8,) * 3, b"123", photometric=8),
    "grey with alpha multiplied in": tiff(1, 1, (8, 8), b"12", extra=1),
    "a clear colour of 48 bits": png(
        1, 1, 2, 16, [struct.pack(">HHH", 1, 2, 3)], (b"tRNS", struct.pack(">HHH", 1, 2, 3))
    ),
}


@pytest.mark.parametrize("data", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_kinds_without_a_way_to_rgb_are_unsupported(data):
    """Pillow opens most of them in the mode of another kind: 12 bits become nearly black."""
    with pytest.raises(ImageError, match=r"some/picture") as caught:
        decode_rgb(data, "some/picture")
    assert caught.value.reason == "unsupported"


def animation(format, *frames, **options):
    lossless = {"lossless": True} if format == "WEBP" else {}
    return encode(frames[0], format, save_all=True, append_images=frames[1:], **lossless, **options)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_frame_counts(format):
    frames = [Image.new("RGB", (16, 8), color) for color in ("red", "blue", "lime")]
    if format in ("TIFF", "MPO"):  # whose frames have sizes of their own
        frames[1] = frames[1].resize((5, 5))
    data = animation(format, *frames)
    assert first_pixel(data) == pytest.approx((255, 0, 0), abs=1 if format == "MPO" else 0)
    assert header_size(data, "picture") == (16, 8)


def test_the_default_picture_of_an_apng_is_what_other_programs_show():
    frames = [Image.new("RGB", (4, 4), color) for color in ("lime", "red", "blue")]
    assert first_pixel(animation("PNG", *frames, default_image=True)) == (0, 255, 0)


def test_a_phone_picture_is_a_jpeg_with_more_behind_it():
    """MPO: cut behind the first picture, it is still whole."""
    data = animation("MPO", noise(), noise(50, 20))
    first = data.index(b"\xff\xd9") + 2
    assert pixel_sha256(decode_rgb(data, "x")) == pixel_sha256(decode_rgb(data[:first], "x"))


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


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def oriented(kind, orientation):
    """A picture of 32 x 16 with the letters a b / c d in its quarters."""
    quarters = np.kron(np.array([list(b"ab"), list(b"cd")], np.uint8), np.ones((8, 16), np.uint8))
    image = Image.fromarray(quarters)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "TIFF":
        return tiff(32, 16, (8,), quarters.tobytes(), orientation=(orientation,))
    if kind == "TIFF, XMP":
        return tiff(32, 16, (8,), quarters.tobytes(), xmp=XMP % orientation)
    rows = [bytes(row) for row in quarters]
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % orientation
    if kind == "PNG, XMP":
        return png(32, 16, 0, 8, rows, (b"iTXt", text))
    if kind == "PNG, XMP last":
        return png(32, 16, 0, 8, rows, tail=[(b"iTXt", text)])
    if kind == "PNG, raw profile":
        profile = f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n".encode()
        chunk = b"Raw profile type exif\0\0" + zlib.compress(profile)
        return png(32, 16, 0, 8, rows, tail=[(b"zTXt", chunk)])
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    return encode(image.convert("RGB"), kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize(
    "kind",
    ["JPEG", "PNG", "WEBP", "TIFF", "TIFF, XMP", "PNG, XMP", "PNG, XMP last", "PNG, raw profile"],
)
def test_every_container_of_an_orientation_turns(kind, orientation):
    """TIFF is turned by Pillow itself: a second turn would go unseen where it is 180 degrees."""
    data = oriented(kind, orientation)
    image = decode_rgb(data, "picture")
    assert header_size(data, "picture") == image.size
    small = np.asarray(image)[4::8, 4::8, 0].astype(int)
    stored = np.kron(np.array([list(b"ab"), list(b"cd")]), np.ones((1, 2), int))
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].T,
        8: np.rot90(stored),
    }[orientation]
    assert np.abs(small - turned).max() <= 1


def test_reading_the_size_of_a_png_decodes_nothing(monkeypatch):
    """Pillow decodes a PNG to look for metadata behind the pixels; a scan would take minutes."""
    kinds = ["PNG", "PNG, XMP", "PNG, XMP last", "PNG, raw profile"]
    files = [oriented(kind, 6) for kind in kinds] + [WHOLE["png"]]
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", None)
    assert [header_size(data, "x") for data in files] == [(16, 32)] * 4 + [(37, 31)]


def test_damaged_metadata_does_not_cost_the_picture():
    data = png(1, 1, 0, 8, [b"\x05"], (b"eXIf", b"no metadata at all"))
    assert first_pixel(data) == (5, 5, 5)


def noise(width=37, height=31):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth():
    return Image.linear_gradient("L").resize((90, 70)).convert("RGB")


WHOLE = {
    "png": encode(noise()),
    "apng": animation("PNG", noise(), noise().rotate(180)),
    "jpeg": encode(noise(), "JPEG"),
    "jpeg, smooth": encode(smooth(), "JPEG"),
    "jpeg, restarts": encode(noise(64, 48), "JPEG", restart_marker_blocks=2),
    "progressive": encode(noise(), "JPEG", progressive=True),
    "progressive, smooth": encode(smooth(), "JPEG", progressive=True),
    "mpo": animation("MPO", noise(), smooth()),
    "gif": encode(noise().convert("P"), "GIF"),
    "gif, one colour": encode(Image.new("P", (90, 70)), "GIF"),
    "gif, animated": animation("GIF", noise(), noise().rotate(180)),
    "webp": encode(noise(), "WEBP"),
    "webp, lossless": encode(noise(), "WEBP", lossless=True),
    "webp, animated": animation("WEBP", noise(), noise().rotate(180)),
    "bmp": encode(noise(), "BMP"),
    "bmp, palette": encode(noise().convert("P"), "BMP"),
    "tiff": encode(noise(), "TIFF"),
    "tiff, lzw": encode(smooth(), "TIFF", compression="tiff_lzw"),
    "tiff, deflate": encode(noise(), "TIFF", compression="tiff_deflate", strip_size=999),
    "tiff, palette": encode(noise().convert("P"), "TIFF", compression="packbits"),
    "tiff, pages": animation("TIFF", noise(), smooth()),
}


@settings(deadline=None, max_examples=400)
@given(name=st.sampled_from(sorted(WHOLE)), place=st.floats(0, 1, exclude_max=True))
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_truncated_file_is_never_another_picture(name, place):
    """Half-grey pictures would become features like any other."""
    data = WHOLE[name][: int(place * len(WHOLE[name]))]
    whole = decode_rgb(WHOLE[name], name)
    image, reason = None, None
    try:
        image = decode_rgb(data, name)
    except ImageError as error:
        reason = error.reason
    if image is None:
        assert reason in ("empty", "truncated", "unreadable")
    else:
        assert pixel_sha256(image) == pixel_sha256(whole)
        assert header_size(data, name) == whole.size


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_without_its_end_is_truncated(name):
    """The reason tells a broken download from a broken file; several pictures may lose the last.

    Of a TIFF without its palette, which stands last, Pillow only says that it is no picture.
    """
    within_the_first = {
        "apng": 5,
        "mpo": 5,
        "gif, animated": 4,
        "tiff, palette": 5,
        "tiff, pages": 9,
    }
    part = within_the_first.get(name, 1.5)
    with pytest.raises(ImageError, match="some/picture") as caught:
        decode_rgb(WHOLE[name][: int(len(WHOLE[name]) / part)], "some/picture")
    assert caught.value.reason == "truncated"


@settings(deadline=None, max_examples=60)
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]),
    format=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    orientation=st.integers(0, 9),
)
def test_the_header_says_the_size_of_the_decoded_picture(mode, format, size, orientation):
    """A batch is planned by it; its pictures must fit."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if format in ("GIF", "BMP") else {"exif": exif}
    image = Image.new(mode, size)
    try:
        data = encode(image, format, **options)
    except (OSError, ValueError):  # the format has no such mode
        data = encode(image.convert("RGB"), format, **options)
    sideways = format not in ("GIF", "BMP") and orientation in (5, 6, 7, 8)
    expected = size[::-1] if sideways else size
    assert header_size(data, "x") == decode_rgb(data, "x").size == expected
    assert decode_rgb(data, "x", alpha="drop").size == expected


def test_what_stands_behind_the_end_is_ignored():
    for name in ("png", "jpeg", "gif", "webp", "bmp", "tiff"):
        longer = WHOLE[name] + b"\0 more" * 50
        assert pixel_sha256(decode_rgb(longer, name)) == pixel_sha256(decode_rgb(WHOLE[name], name))


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT", b"IEND"])
def test_a_png_whose_checksum_does_not_fit_is_unreadable(kind):
    """Pillow does not compare those of the pixels: a flipped bit would become another picture."""
    data = bytearray(encode(palette_image()))
    start = data.index(kind)
    length = int.from_bytes(data[start - 4 : start])
    data[start + 4 + length] ^= 1
    with pytest.raises(ImageError, match="x ") as caught:
        decode_rgb(bytes(data), "x")
    assert caught.value.reason == "unreadable"


def test_a_flipped_bit_in_the_pixels_of_a_png_is_seen():
    rows = bytearray(b"\0" + bytes(64)) * 64
    rows[1000] = 1
    packed = zlib.compress(bytes(rows))
    whole = png(64, 64, 0, 8, [bytes(64)] * 64)
    start = whole.index(b"IDAT")
    length = int.from_bytes(whole[start - 4 : start])
    other = whole[: start - 4] + struct.pack(">I", len(packed)) + b"IDAT" + packed
    data = other + whole[start + 4 + length :]
    assert Image.open(io.BytesIO(data)).convert("L").getextrema() == (0, 1)
    with pytest.raises(ImageError, match="checksum of its chunk IDAT"):
        decode_rgb(data, "x")


def test_profiles_and_gamma_are_ignored():
    """As everyone does who trained a vision model."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for format in ("PNG", "JPEG", "WEBP", "TIFF"):
        plain, coloured = encode(noise(), format), encode(noise(), format, icc_profile=profile)
        assert len(coloured) > len(plain)
        assert decode_rgb(plain, "x").tobytes() == decode_rgb(coloured, "x").tobytes()
    rows = [b"abc"]
    gamma = png(3, 1, 0, 8, rows, (b"gAMA", struct.pack(">I", 10_000)))
    assert np.asarray(decode_rgb(gamma, "x"))[0, :, 0].tobytes() == b"abc"


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
def test_a_bomb_in_a_text_or_profile_is_refused(kind):
    """64 MiB of zeros are 64 kB in a file: reading the header would take all memory."""
    packed = zlib.compress(bytes(64 << 20), 9)
    head = {b"iCCP": b"name\0\0", b"zTXt": b"name\0\0", b"iTXt": b"name\0\1\0\0\0"}[kind]
    data = png(1, 1, 0, 8, [b"\5"], (kind, head + packed))
    tracemalloc.start()
    try:
        for function in (decode_rgb, header_size):
            with pytest.raises(ImageError, match=r"(?i)too large") as caught:
                function(data, "bomb")
            assert caught.value.reason == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


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
        with pytest.raises(ImageError, match="pixels"):
            header_size(data, "bomb")
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
