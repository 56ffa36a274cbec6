"""Extract some rows of a finished feature set anew, and compare them with what is stored.

Checksums tell that a row is what was written; only this tells that it is what its picture gives.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcot_data.encoders.base import Encoder
from mmcot_data.errors import DataError, ImageError
from mmcot_data.extraction.batches import plan_batches
from mmcot_data.extraction.decode import PreparedImage, decode_image
from mmcot_data.extraction.drawn_rows import DrawnRow, draw_rows
from mmcot_data.extraction.engine import decode_threads
from mmcot_data.extraction.plan import usable_size
from mmcot_data.extraction.row_comparison import (
    ComparedRow,
    compare_rows,
    estimate_tolerance,
    list_problems,
)
from mmcot_data.extraction.scan import ScannedImage, scan_images
from mmcot_data.extraction.spec_encoder import (
    NotReextractableError,
    check_encoder,
    find_alpha,
    list_changes,
    load_spec_encoder,
)
from mmcot_data.shards.location import LocalFolder
from mmcot_data.shards.manifest import MANIFEST, commit_path, read_commit
from mmcot_data.shards.shard_verification import Finding
from mmcot_data.shards.store import ShardStore, open_store
from mmcot_data.shards.writer import cast_features
from mmcot_data.sources import SourceImage, open_stored

__all__ = ["ReextractionReport", "reextract_features"]

_BATCH_SIZE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ReextractionReport:
    """Which rows were extracted anew, and how they compare with the stored ones."""

    seed: int
    """Draws the same rows again."""
    num_available: int
    """Rows of distinct pictures that could be drawn."""
    num_drawn: int
    num_compared: int
    """Those whose picture was found and decoded."""
    num_equal: int
    """Those that have the stored ones' bits."""
    max_error: float | None
    """The largest ||new - stored|| / ||stored|| of a row; None if none was compared."""
    max_error_question: str | None
    """A question of that row."""
    tolerance: float | None
    """What rounding explains; None if none was compared."""
    problems: tuple[Finding, ...]
    """Rows, by shard, that are not what their pictures give, or whose pictures are not there."""
    notes: tuple[Finding, ...]
    """What is another one now and may change the rounding: versions, backend, device."""


def reextract_features(
    path: str | Path,
    data: Path,
    num_rows: int,
    *,
    seed: int = 0,
    model: str | None = None,
    device: str = "auto",
    encoder: Encoder | None = None,
    on_progress: Callable[[int, int], object] = lambda _done, _total: None,
    cache: Path | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ReextractionReport:
    """Extract rows anew as the feature set's spec says, and compare them with the stored ones.

    Args:
        path: The feature set's folder, or its URL: only the shards of drawn rows are downloaded.
        data: The data set of the extraction, in whatever layout it is.
        num_rows: Rows to draw, of distinct pictures, spread over all shards; if there are fewer,
            all of them.
        seed: Of the draw.
        model: Local folder or hub id of the model, where the spec's own can't be found.
        device: What computes: ``auto``, ``cpu``, ``cuda``, …
        encoder: The loaded encoder; the one that the spec describes is loaded if None.
        on_progress: Called with the number of rows done and that of all.
        cache: As for ``open_features``.
        storage_options: As for ``open_features``.

    Raises:
        DataError: If there is no data set, or a table of it is not what it was.
        EncoderError: If the encoder can't be loaded or does not compute what it should.
        NotReextractableError: If the feature set was imported, and does not say what made it of
            which pictures.
        ShardError: If the feature set is damaged, or its model came from a folder and ``model`` is
            None.
        SpecMismatchError: If the encoder makes other features than the spec's; lists what differs.
        OSError: If reading fails.
    """
    if not data.exists():
        raise DataError(f"{data} does not exist; expected the data set of the extraction")
    store = open_store(path, cache=cache, storage_options=storage_options)
    drawn, num_available = draw_rows(store.read_index(), num_rows, seed)
    if encoder is None:
        encoder = load_spec_encoder(store.spec, model=model, device=device)
    else:
        check_encoder(encoder, store.spec)
    run = _Reextraction(store, encoder, on_progress)
    compared = run.compare(drawn, data)
    errors = [(item.error, item.row.question_ids[0]) for item in compared if item.error is not None]
    max_error, worst = max(errors, default=(None, None))
    problems = list_problems(compared, run.tolerance or 0.0, store.spec)
    notes = [*list_changes(encoder, store.spec), *_list_devices(store, drawn, encoder)]
    return ReextractionReport(
        seed=seed,
        num_available=num_available,
        num_drawn=len(drawn),
        num_compared=len(errors),
        num_equal=sum(item.is_equal for item in compared),
        max_error=max_error,
        max_error_question=worst,
        tolerance=run.tolerance,
        problems=tuple(problems),
        notes=tuple(Finding(file=MANIFEST, message=note) for note in notes),
    )


class _Reextraction:
    """Reads, decodes, encodes and compares the drawn rows, a batch at a time."""

    def __init__(
        self, store: ShardStore, encoder: Encoder, on_progress: Callable[[int, int], object]
    ) -> None:
        self.tolerance: float | None = None
        """Known after the first batch."""
        self._store = store
        self._encoder = encoder
        self._on_progress = on_progress

    def compare(self, drawn: Sequence[DrawnRow], data: Path) -> list[ComparedRow]:
        """What came of each row, in their order."""
        images = scan_images([_find_picture(row, data) for row in drawn])
        compared: dict[int, ComparedRow] = {}
        for number, (row, image) in enumerate(zip(drawn, images, strict=True)):
            if (failed := _compare_file(row, image)) is not None:
                compared[number] = failed
        self._on_progress(len(compared), len(drawn))
        sizes = [None if n in compared else usable_size(image) for n, image in enumerate(images)]
        batches = plan_batches(sizes, self._encoder.input_size, batch_size=_BATCH_SIZE)
        alpha = find_alpha(self._store.spec.preprocessing)
        decode = partial(decode_image, encoders=[self._encoder], alpha=alpha)
        with ThreadPoolExecutor(decode_threads([self._encoder])) as threads:
            for batch in batches:
                prepared: dict[int, PreparedImage] = {}
                decoded = threads.map(decode, (images[number] for number in batch.positions))
                for number, (found,) in zip(batch.positions, decoded, strict=True):
                    if isinstance(found, ImageError):
                        compared[number] = ComparedRow(
                            row=drawn[number], trouble="pixels", reason=str(found)
                        )
                    else:
                        prepared[number] = found
                if prepared:
                    rows = [drawn[number] for number in prepared]
                    outcomes = self._compare_features(rows, list(prepared.values()))
                    compared |= zip(prepared, outcomes, strict=True)
                self._on_progress(len(compared), len(drawn))
        return [compared[number] for number in range(len(drawn))]

    def _compare_features(
        self, rows: Sequence[DrawnRow], images: Sequence[PreparedImage]
    ) -> Iterator[ComparedRow]:
        spec, mapped = self._store.spec, self._store.mapped
        pixels_BCHW = torch.stack([image.pixels_CHW for image in images])
        features_BPD = self._encoder.start(pixels_BCHW)().numpy()
        found_BPD = cast_features(features_BPD, spec.dtype, [row.name for row in rows])
        stored_BPD = np.empty((len(rows), *spec.row_shape), mapped.dtype)
        places = [mapped.starts[row.number] + row.row for row in rows]
        mapped.take(np.array(places, np.int64), stored_BPD)
        if self.tolerance is None:
            self.tolerance = estimate_tolerance(self._encoder, spec, pixels_BCHW)
        errors_B, is_equal_B = compare_rows(found_BPD, stored_BPD)
        for row, image, error, is_equal in zip(rows, images, errors_B, is_equal_B, strict=True):
            has_same_pixels = row.pixel_sha256 in (None, image.pixel_sha256)
            yield ComparedRow(
                row=row,
                error=float(error),
                is_equal=bool(is_equal),
                trouble=None if has_same_pixels else "pixels",
            )


def _find_picture(row: DrawnRow, data: Path) -> SourceImage:
    if row.file is None or row.image_sha256 is None:
        raise NotReextractableError(
            f"index.parquet does not say which picture the features of {row.name} were made of: "
            "they can't be extracted anew; `mmcot-data import --data` would have noted it"
        )
    try:
        stored = open_stored(data, row.file)
    except FileNotFoundError as error:
        raise DataError(
            f"{data} has no {row.file}, the picture of {row.name}: give the data set of the "
            "extraction, as the folder or file that was given then"
        ) from error
    return SourceImage(question_id=row.question_ids[0], role=row.role, file=row.file, stored=stored)


def _compare_file(row: DrawnRow, image: ScannedImage) -> ComparedRow | None:
    """What is wrong with a picture's file; None if it is the one that the index describes."""
    if image.image_sha256 is None:
        return ComparedRow(row=row, trouble="picture", reason=f"{image.reason}: {image.error}")
    if image.image_sha256 != row.image_sha256:
        reason = (
            f"{image.stored.name} has changed: its sha256 is {image.image_sha256}, index.parquet "
            f"says {row.image_sha256}"
        )
        return ComparedRow(row=row, trouble="picture", reason=reason)
    if image.reason is not None:
        return ComparedRow(row=row, trouble="pixels", reason=str(image.error))
    return None


def _list_devices(store: ShardStore, drawn: Sequence[DrawnRow], encoder: Encoder) -> Iterator[str]:
    """What computed the features elsewhere, where the commit records beside the shards say so."""
    if not isinstance(store.location, LocalFolder):
        return
    now = _name_device(encoder.environment())
    shards = {row.shard: None for row in drawn}
    paths = [commit_path(store.location.absolute / shard) for shard in shards]
    made_by = [read_commit(path).made_by for path in paths if path.is_file()]
    for made in sorted({_name_device(facts) for facts in made_by if "device" in facts} - {now}):
        yield f"{made} made them, {now} computes now"


def _name_device(facts: Mapping[str, Any]) -> str:
    """A GPU has a number that says nothing."""
    device = str(facts["device"]).partition(":")[0]
    return f"{facts['device_name']} ({device})" if "device_name" in facts else device
