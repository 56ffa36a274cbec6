"""Make a feature set of a file that another program wrote.

Shape suffixes: n = rows of a part, P = patches, D = feature width.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmcot_data.errors import DataError, ShardError, SpecMismatchError
from mmcot_data.interchange.feature_file import FeatureFile
from mmcot_data.interchange.pictures import FoundPicture, find_pictures
from mmcot_data.question_data import read_data
from mmcot_data.shards.feature_set_writer import (
    FeatureSource,
    Progress,
    ShardPart,
    ShardRows,
    write_feature_set,
)
from mmcot_data.shards.index import INDEX_SCHEMA
from mmcot_data.shards.planning import default_shard_size, digest_json, folder_name, shard_files
from mmcot_data.shards.schema import Container, FeatureSpec, PlanKey, list_differences
from mmcot_data.tables import write_tables

__all__ = ["Claims", "ImportSummary", "import_features"]

_Pictures = Mapping[tuple[str, str | None], FoundPicture]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """What the user says about how the features were made; None where nothing is said."""

    encoder: str | None = None
    model_id: str | None = None
    revision: str | None = None
    layer: str | None = None
    grid: tuple[int, int] | None = None
    data_licence: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportSummary:
    """What an import made."""

    folder: Path
    spec: FeatureSpec
    num_questions: int
    num_rows: int
    num_shards: int
    nbytes: int
    """Size of the shards together."""
    num_unused: int
    """Rows of no question."""
    num_unknown: int
    """Questions that the data set does not have; 0 without a data set."""
    num_missing: int
    """Pictures whose file the data set does not have; 0 without a data set."""


def import_features(
    file: FeatureFile,
    out: Path,
    claims: Claims,
    *,
    data: Path | None = None,
    container: Container = "hdf5",
    shard_size: int | None = None,
    on_progress: Progress | None = None,
) -> ImportSummary:
    """Write a feature set whose values are those of a file, bit by bit.

    What is not known stands so in the spec: no sha256 of the weights, no versions, precision
    ``unknown``, and as preprocessing one step ``imported`` with the file's name, sha256 and layout.
    A file that says itself what made it, because it is an export of this package, keeps its spec.
    The plan's ``request_sha256`` is a digest of the file's sha256 and of the pictures' digests. The
    same call continues an import that was interrupted.

    Args:
        file: The opened file.
        out: Artifact root; the folder in it is called as the encoder.
        claims: What made the features.
        data: Data set in ScienceQA's layout that the questions are of. It gives the image roles,
            the pictures' digests and sizes, and the licence, and its tables are written into
            ``out``. Without it every picture of a file that knows no roles is a question's.
        container: Of the shards.
        shard_size: Rows in a shard; None gives shards of 256 MiB, 1,024 rows at most; more where
            there would be over 16,384 shards.
        on_progress: Called after each shard.

    Raises:
        DataError: If the data set can't be read, a question occurs twice, or a row is said to be of
            different pictures.
        ShardError: If the claims are not enough, a value is not finite, or the folder was made of
            something else; and as for ``write_feature_set``.
        SpecMismatchError: If the claims contradict the file.
    """
    questions = file.questions
    _refuse_duplicates(file)
    pictures: _Pictures = {}
    licence = claims.data_licence
    if data is not None:
        content = read_data(data)
        pictures = find_pictures(content, data, questions)
        licence = licence or content.licence
    spec = _make_spec(file, claims, licence)
    digests_N32 = _find_digests(file, pictures)
    if shard_size is None:
        shard_size = default_shard_size(spec, file.num_rows)
    plan = PlanKey(
        format=container,
        num_images=file.num_rows,
        request_sha256=digest_json(
            [file.sha256, digests_N32.tobytes().hex(), file.num_patches_N.tolist()]
        ),
        shard_size=shard_size,
    )
    folder = out / folder_name(spec.encoder)
    manifest = write_feature_set(
        folder,
        FeatureSource(
            spec=spec,
            plan=plan,
            request_sha256=digest_json(questions),
            shards=_divide(plan),
            read=lambda number: _read_shard(file, digests_N32, number * shard_size, shard_size),
            index=_make_index(file, pictures, digests_N32, plan),
        ),
        on_progress,
    )
    if data is not None:
        write_tables(content, out)
    return ImportSummary(
        folder=folder,
        spec=spec,
        num_questions=len({question.question_id for question in questions}),
        num_rows=manifest.rows,
        num_shards=len(manifest.shards),
        nbytes=sum(record.file_nbytes for record in manifest.shards),
        num_unused=file.num_rows - len({question.row for question in questions}),
        num_unknown=len(questions) - len(pictures) if data is not None else 0,
        num_missing=sum(picture.image_sha256 is None for picture in pictures.values()),
    )


def _refuse_duplicates(file: FeatureFile) -> None:
    counts = Counter((question.question_id, question.role) for question in file.questions)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise DataError(
            f"{file.path}: {len(twice)} questions occur more than once with the same image role, "
            f"the first is {twice[0][0]!r}; expected one row for each"
        )


def _make_spec(file: FeatureFile, claims: Claims, licence: str | None) -> FeatureSpec:
    told = {name: value for name, value in asdict(claims).items() if value is not None}
    if file.spec is not None:
        found = file.spec.to_json()
        shape = {"num_patches": file.row_shape[0], "feature_dim": file.row_shape[1]}
        said = {**told, **shape, "dtype": file.dtype}
        if differences := list_differences(said, {name: found[name] for name in said}):
            raise SpecMismatchError(
                f"{file.path} says itself what made its features, and that is something else:\n  "
                + "\n  ".join(differences)
            )
        return file.spec
    if claims.encoder is None:
        raise ShardError(
            f"{file.path} does not say what made its features; give at least the encoder's name "
            "with --encoder"
        )
    imported = {
        "step": "imported",
        "file": file.path.name,
        "sha256": file.sha256,
        "layout": file.layout,
    }
    return FeatureSpec(
        encoder=claims.encoder,
        model_id=claims.model_id or "unknown",
        revision=claims.revision,
        weights_sha256=None,
        random_weights=None,
        layer=claims.layer or "unknown",
        preprocessing=[imported],
        precision="unknown",
        precision_error=None,
        backend="unknown",
        num_patches=file.row_shape[0],
        feature_dim=file.row_shape[1],
        grid=claims.grid,
        versions={},
        dtype=file.dtype,
        data_licence=licence or "unknown",
    )


def _find_digests(file: FeatureFile, pictures: _Pictures) -> npt.NDArray[np.uint8]:
    """The digest of each row's picture, from the file and from the data set."""
    digests_N32 = file.image_sha256_N32.copy()
    for question_id, role, row in file.questions:
        picture = pictures.get((question_id, role))
        if picture is None or picture.image_sha256 is None:
            continue
        digest = bytes.fromhex(picture.image_sha256)
        if digests_N32[row].any() and digests_N32[row].tobytes() != digest:
            raise DataError(
                f"{file.path}: row {row} is of the picture {digests_N32[row].tobytes().hex()}, and "
                f"that of question {question_id!r} is another one ({picture.file}): the data set "
                "or the map of the rows does not belong to this file"
            )
        digests_N32[row] = np.frombuffer(digest, np.uint8)
    return digests_N32


def _divide(plan: PlanKey) -> tuple[ShardPart, ...]:
    starts = range(0, plan.num_images, plan.shard_size)
    sizes = [min(plan.shard_size, plan.num_images - start) for start in starts]
    return tuple(
        ShardPart(file=file, rows=size, pixel_sha256=("",) * size)
        for file, size in zip(shard_files(plan), sizes, strict=True)
    )


def _read_shard(
    file: FeatureFile, digests_N32: npt.NDArray[np.uint8], start: int, size: int
) -> ShardRows:
    part = slice(start, start + size)
    features_nPD = file.read(start, min(start + size, file.num_rows))
    for row, features_PD in enumerate(features_nPD, start):
        if not np.isfinite(features_PD).all():
            names = [
                repr(question.question_id) for question in file.questions if question.row == row
            ]
            raise ShardError(
                f"{file.path}: row {row} (question {', '.join(names) or 'none'}) holds values that "
                "are not finite; features of a feature set are"
            )
    return ShardRows(features_nPD, digests_N32[part], file.num_patches_N[part])


def _make_index(
    file: FeatureFile, pictures: _Pictures, digests_N32: npt.NDArray[np.uint8], plan: PlanKey
) -> pl.DataFrame:
    """In the order of the rows, so that an export gives the same order."""
    files = shard_files(plan)
    records: list[dict[str, Any]] = []
    for question_id, role, row in sorted(file.questions, key=lambda question: question.row):
        picture = pictures.get((question_id, role)) or FoundPicture(role=role or "question")
        digest = digests_N32[row]
        records.append(
            {
                "question_id": question_id,
                "role": picture.role,
                "shard": files[row // plan.shard_size],
                "row": row % plan.shard_size,
                "num_patches": int(file.num_patches_N[row]),
                "width": picture.width,
                "height": picture.height,
                "image_sha256": digest.tobytes().hex() if digest.any() else None,
                "pixel_sha256": None,
                "status": "ok",
                "error": None,
                "file": picture.file,
            }
        )
    return pl.DataFrame(records, schema=INDEX_SCHEMA)
