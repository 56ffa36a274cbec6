"""The pictures that the benchmarks of extraction work on: distinct, and read alike by everyone."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from mmcot_data.errors import ImageError
from mmcot_data.images import bytes_sha256, decode_rgb

__all__ = ["Pictures", "choose_pictures", "list_pictures", "multiply"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Distinct pictures, each a file of one folder that holds nothing else."""

    folder: Path
    paths: tuple[Path, ...]
    num_left_out: int = 0
    """Pictures that Multimodal-CoT decodes to other pixels (transparent, turned, of 16 bits), and
    files that are no pictures."""

    def __len__(self) -> int:
        return len(self.paths)

    def first(self, num: int) -> "Pictures":
        """Only the first ones; the folder still holds all."""
        return replace(self, paths=self.paths[: max(1, num)])

    @property
    def mean_pixels(self) -> float:
        """Of width times height."""
        sizes = []
        for path in self.paths:
            with Image.open(path) as image:
                sizes.append(image.width * image.height)
        return sum(sizes) / len(sizes)

    @property
    def mean_nbytes(self) -> float:
        """Of the files."""
        return sum(path.stat().st_size for path in self.paths) / len(self.paths)


def list_pictures(folder: Path) -> list[Path]:
    """All picture files below a folder, each content once, in order of their names."""
    distinct: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and path.is_file():
            distinct.setdefault(bytes_sha256(path.read_bytes()), path)
    return list(distinct.values())


def choose_pictures(found: Sequence[Path], num: int, folder: Path) -> Pictures:
    """Copy some pictures, drawn at random but always the same ones, into an empty folder.

    A picture is left out if Multimodal-CoT's way of decoding gives other pixels than ours: then
    features differ for a reason that has nothing to do with how they were computed.

    Raises:
        SystemExit: If none is left.
    """
    order = list(found)
    random.Random(0).shuffle(order)
    folder.mkdir(parents=True)
    paths: list[Path] = []
    num_left_out = 0
    for path in order:
        if len(paths) == num:
            break
        if not _decodes_alike(path):
            num_left_out += 1
            continue
        paths.append(folder / f"{len(paths):05d}{path.suffix.lower()}")
        shutil.copyfile(path, paths[-1])
    if not paths:
        raise SystemExit(
            f"no pictures to measure with: {len(order)} found, {num_left_out} left out"
        )
    return Pictures(folder, tuple(paths), num_left_out)


def _decodes_alike(path: Path) -> bool:
    try:
        ours = decode_rgb(path.read_bytes(), str(path))
    except ImageError:
        return False
    with Image.open(path) as image:
        return np.array_equal(np.asarray(image.convert("RGB")), np.asarray(ours))


def multiply(pictures: Pictures, num: int, folder: Path) -> Pictures:
    """As many distinct files as are asked for: copies that differ in what follows the picture."""
    folder.mkdir(parents=True)
    paths = []
    for number in range(num):
        original = pictures.paths[number % len(pictures)]
        paths.append(folder / f"{number:06d}{original.suffix}")
        paths[-1].write_bytes(original.read_bytes() + number.to_bytes(8, "little"))
    return Pictures(folder, tuple(paths))
