"""Where the data sets are, and what is published about them.

Sizes that are called ``about`` serve the check of free space alone. Counts and digests are
compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmcot_data.questions import SPLITS

__all__ = ["CATALOGUE", "AOKVQACatalogue", "Catalogue", "HubFile", "ScienceQACatalogue"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file of a repository on Hugging Face's hub."""

    split: str
    path: str
    """In the repository."""
    about_nbytes: int
    sha256: str | None = None
    """Published digest; None where only the hub tells it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScienceQACatalogue:
    """ScienceQA (Lu et al. 2022)."""

    licence: str = "CC BY-NC-SA 4.0"
    """As LICENSE-DATA of https://github.com/lupantech/ScienceQA says; the card of the hub's copy
    names another one in its metadata."""

    texts_url: str = "https://raw.githubusercontent.com/lupantech/ScienceQA"
    texts_revision: str = "main"
    text_paths: Mapping[str, str] = field(
        default_factory=lambda: {
            "problems.json": "data/scienceqa/problems.json",
            "pid_splits.json": "data/scienceqa/pid_splits.json",
            "captions.json": "data/captions.json",
        }
    )

    hub_repository: str = "derek-thomas/ScienceQA"
    hub_revision: str = "f18b0a70359ebfb41f658fd564208d0355b013f4"
    hub_files: tuple[HubFile, ...] = (
        HubFile(
            split="train",
            path="data/train-00000-of-00001-1028f23e353fbe3e.parquet",
            about_nbytes=377_000_000,
            sha256="62c90a28e3fb1bc0ad7bbcab1ac62b483ae6758291a655944d8f494bf6445745",
        ),
        HubFile(
            split="val",
            path="data/validation-00000-of-00001-6c7328ff6c84284c.parquet",
            about_nbytes=126_000_000,
        ),
        HubFile(
            split="test",
            path="data/test-00000-of-00001-f0e719df791966ff.parquet",
            about_nbytes=122_000_000,
        ),
    )
    """The files of ``hub_revision``."""

    archives_url: str = "https://scienceqa.s3.us-west-1.amazonaws.com/images"
    archive_about_nbytes: Mapping[str, int] = field(
        default_factory=lambda: {"train": 640_000_000, "val": 216_000_000, "test": 206_000_000}
    )

    num_questions: Mapping[str, int] = field(
        default_factory=lambda: {"train": 12726, "val": 4241, "test": 4241}
    )
    num_with_picture: Mapping[str, int] = field(
        default_factory=lambda: {"train": 6218, "val": 2097, "test": 2017}
    )
    """Questions that name ``image.png``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AOKVQACatalogue:
    """A-OKVQA (Schwenk et al. 2022) with pictures of COCO 2017."""

    licence: str = (
        "annotations: see https://github.com/allenai/aokvqa (the repository is Apache-2.0); "
        "pictures: COCO, under the terms of their owners on Flickr, see https://cocodataset.org"
    )
    archive_url: str = "https://prior-datasets.s3.us-east-2.amazonaws.com/aokvqa/aokvqa_v1p0.tar.gz"
    archive_about_nbytes: int = 20_000_000
    records: Mapping[str, str] = field(
        default_factory=lambda: {split: f"aokvqa_v1p0_{split}.json" for split in SPLITS}
    )
    pictures_url: str = "http://images.cocodataset.org"
    """Its certificate is of another host, so http; the pictures' digests are not published."""
    picture_about_nbytes: int = 165_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """All data sets."""

    scienceqa: ScienceQACatalogue = field(default_factory=ScienceQACatalogue)
    aokvqa: AOKVQACatalogue = field(default_factory=AOKVQACatalogue)


CATALOGUE = Catalogue()
