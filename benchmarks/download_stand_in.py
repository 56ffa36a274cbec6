"""A data set of ScienceQA's published counts and file sizes, with synthetic content.

Texts are made up, pictures are noise: nothing of it can be compressed, as real PNGs can't.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.download_host import CuttingHost, HostedFile
from mmcot_data.downloads.catalogue import CATALOGUE, Catalogue, ScienceQACatalogue

__all__ = ["StandIn", "make_stand_in", "patched_catalogue"]

_ROW_GROUP = 1000
_PICTURE_WIDTH = 160
_SAME_TEXTS = 50
"""Each so many questions one has the texts of one before."""
_TEXTS = ("hint", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution")
_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("answer", pa.int8()),
        *((name, pa.string()) for name in _TEXTS),
    ]
)


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """What has been made."""

    folder: Path
    counts: dict[str, dict[str, int]]
    """``num_questions`` and ``num_with_picture`` by split."""
    parquet: dict[str, Path]
    """By path in the hub's repository."""
    sha256: dict[str, str]

    @property
    def nbytes(self) -> int:
        """Of the parquet files."""
        return sum(path.stat().st_size for path in self.parquet.values())

    def offer(self, main: CuttingHost, cdn: CuttingHost) -> None:
        """Put everything on two hosts, as GitHub, the hub and the hub's CDN have it."""
        scienceqa = CATALOGUE.scienceqa
        for name, path in scienceqa.text_paths.items():
            main.files[f"/lupantech/ScienceQA/main/{path}"] = HostedFile(file=self.folder / name)
        base = f"/datasets/{scienceqa.hub_repository}/resolve/{scienceqa.hub_revision}"
        for path, file in self.parquet.items():
            cdn.files[f"/{file.name}"] = HostedFile(file=file)
            main.files[f"{base}/{path}"] = HostedFile(
                redirect=f"{cdn.url}/{file.name}",
                headers={
                    "X-Repo-Commit": scienceqa.hub_revision,
                    "X-Linked-Size": str(file.stat().st_size),
                    "X-Linked-Etag": f'"{self.sha256[path]}"',
                },
            )


def make_stand_in(folder: Path, scale: float, picture_scale: float) -> StandIn:
    """Make the texts and the parquet files.

    Args:
        folder: Where to.
        scale: Of the number of questions.
        picture_scale: Of the bytes of each picture.
    """
    scienceqa = CATALOGUE.scienceqa
    counts = {
        "num_questions": {s: round(n * scale) for s, n in scienceqa.num_questions.items()},
        "num_with_picture": {s: round(n * scale) for s, n in scienceqa.num_with_picture.items()},
    }
    folder.mkdir(parents=True)
    problems: dict[str, dict[str, Any]] = {}
    splits: dict[str, list[str]] = {}
    parquet: dict[str, Path] = {}
    for file in scienceqa.hub_files:
        split = file.split
        num_pictures = counts["num_with_picture"][split]
        nbytes = file.about_nbytes * scale * picture_scale / num_pictures
        first = len(problems) + 1
        splits[split] = [str(first + n) for n in range(counts["num_questions"][split])]
        records = dict(zip(splits[split], _make_records(split, counts), strict=True))
        problems |= records
        parquet[file.path] = folder / Path(file.path).name
        _write_parquet(parquet[file.path], list(records.values()), round(nbytes))
    _write_json(folder / "problems.json", problems)
    _write_json(folder / "pid_splits.json", splits)
    captions = {i: f"a picture of {i}" for i, r in problems.items() if r["image"]}
    _write_json(folder / "captions.json", {"captions": captions})
    digests = {path: _sha256(file) for path, file in parquet.items()}
    return StandIn(folder=folder, counts=counts, parquet=parquet, sha256=digests)


def patched_catalogue(counts: dict[str, dict[str, int]], train_sha256: str) -> Catalogue:
    """The catalogue with the stand-in's numbers and the digest of its train file."""
    scienceqa: ScienceQACatalogue = CATALOGUE.scienceqa
    files = tuple(
        replace(file, sha256=train_sha256 if file.sha256 else None) for file in scienceqa.hub_files
    )
    return replace(CATALOGUE, scienceqa=replace(scienceqa, hub_files=files, **counts))


def _make_records(split: str, counts: dict[str, dict[str, int]]) -> Iterator[dict[str, Any]]:
    num, num_pictures = counts["num_questions"][split], counts["num_with_picture"][split]
    for n in range(num):
        number = n - 2 if n % _SAME_TEXTS == 2 else n
        yield {
            "question": f"Which of these is number {number} of the split {split}?",
            "choices": [f"this one, {number}", f"that one, {number + 1}", "none of them"],
            "answer": number % 3,
            "hint": ""
            if number % 2
            else f"A hint that is a little longer than a question, {number}." * 2,
            "image": "image.png"
            if n * num_pictures // num != (n - 1) * num_pictures // num
            else None,
            "task": "closed choice",
            "grade": f"grade{number % 12 + 1}",
            "subject": "natural science",
            "topic": "biology",
            "category": "A category",
            "skill": "A skill of so many words",
            "lecture": "A lecture of several sentences.\nOne of them stands here. " * 9,
            "solution": f"Number {number} is the one that was asked for, as can be seen. " * 3,
            "split": split,
        }


def _write_parquet(path: Path, records: list[dict[str, Any]], picture_nbytes: int) -> None:
    rng = np.random.default_rng(len(records))
    with pq.ParquetWriter(path, _SCHEMA) as writer:
        for start in range(0, len(records), _ROW_GROUP):
            rows = [
                {name: record[name] for name in _SCHEMA.names if name != "image"}
                | {"image": _picture(rng, picture_nbytes) if record["image"] else None}
                for record in records[start : start + _ROW_GROUP]
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))


def _picture(rng: np.random.Generator, nbytes: int) -> dict[str, Any]:
    """A valid PNG of noise, of half to one and a half times as many bytes."""
    row = _PICTURE_WIDTH * 3
    height = max(1, round(nbytes * rng.uniform(0.5, 1.5) / row))
    lines = np.zeros((height, row + 1), np.uint8)
    lines[:, 1:] = np.frombuffer(rng.bytes(height * row), np.uint8).reshape(height, row)
    header = struct.pack(">IIBBBBB", _PICTURE_WIDTH, height, 8, 2, 0, 0, 0)
    content = b"".join(
        _chunk(kind, data)
        for kind, data in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(lines.tobytes(), 0)),
            (b"IEND", b""),
        )
    )
    return {"bytes": b"\x89PNG\r\n\x1a\n" + content, "path": "image.png"}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
