"""Captions in the making: what is pending, what has failed, and the file in the end."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcot_data.captioning.engine import find_batch_size, generate_captions
from mmcot_data.captioning.finished import failures_to_json, read_failures
from mmcot_data.captioning.known_by import known_by
from mmcot_data.captioning.request import CaptionRequest, Failure, Key, key_of
from mmcot_data.errors import ImageError
from mmcot_data.extraction.failures import check_failures
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.growing_artifact import GrowingArtifact, Row
from mmcot_data.text_artifacts import read_made_by

if TYPE_CHECKING:
    from mmcot_data.captioning.captioner import Captioner

__all__ = ["CaptionSummary", "CaptionsInProgress"]


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionSummary:
    """What became of the pictures that were asked for."""

    path: Path
    num_images: int
    """Pictures asked for."""
    num_distinct: int
    """Those that can be used, equal ones counted once."""
    num_captions: int
    """Pictures asked for that have a caption."""
    num_made: int
    """Distinct pictures that this run captioned."""
    failed: dict[str, int]
    """How many have none, by the reason."""
    seconds: float
    num_halved: int = 0
    """Batches that were captioned in halves, since memory was short."""

    @property
    def num_failed(self) -> int:
        """Pictures asked for that have no caption."""
        return sum(self.failed.values())


class CaptionsInProgress:
    """Captions of which some may be pending. Made by ``begin_captions``.

    Args:
        request: The pictures.
        failed: Those that have no caption, as far as is known.
        artifact: The captions so far; None if nothing is left to do.
        captioner: Makes the others; None if nothing is left to do.
    """

    def __init__(
        self,
        request: CaptionRequest,
        failed: dict[Key, Failure],
        artifact: GrowingArtifact | None = None,
        captioner: "Captioner | None" = None,
    ) -> None:
        self.request = request
        self._failed = failed
        self._artifact = artifact
        self._captioner = captioner
        self._num_made = 0
        self._num_halved = 0
        self._start = time.perf_counter()
        self._pending = set() if artifact is None else self._sort_out(artifact)

    @property
    def num_pending(self) -> int:
        """Distinct pictures that are to be captioned."""
        return len(self._pending)

    def caption_pending(
        self, on_progress: Callable[[int, int], object] = _ignore, limit: int | None = None
    ) -> None:
        """Caption pending pictures; whatever stops it, those that are done stay.

        Args:
            on_progress: Called with the distinct pictures that are done and all of them.
            limit: How many distinct pictures to take; None takes all.

        Raises:
            ExtractionError: If a picture's file has changed since it was scanned.
            GenerationError: If the device has too little memory, or the model fails.
            OSError: If reading a picture or writing captions fails.
        """
        pictures = self.request.by_digest
        on_progress(len(pictures) - len(self._pending), len(pictures))
        if not self._pending:
            return
        assert self._captioner is not None
        assert self._artifact is not None
        chosen = islice((digest for digest in pictures if digest in self._pending), limit)
        images = [pictures[digest][0] for digest in chosen]
        batch_size = find_batch_size(self.request.config.batch_size, self._captioner)
        for outcomes in generate_captions(images, self._captioner, batch_size, self._count_halved):
            rows: list[Row] = []
            for image, outcome in outcomes:
                assert image.image_sha256 is not None
                if isinstance(outcome, ImageError):
                    failure = outcome.reason, str(outcome)
                    self._failed |= dict.fromkeys(self._keys(image.image_sha256), failure)
                else:
                    rows += self._rows(image.image_sha256, outcome)
                    self._num_made += 1
                self._pending.remove(image.image_sha256)
            if rows:
                self._artifact.add(rows)
            on_progress(len(pictures) - len(self._pending), len(pictures))

    def finish(self) -> CaptionSummary:
        """Write the captions' file, if it is not there already as it should be.

        Raises:
            ExtractionError: If more pictures failed than are allowed; the captions made so far
                serve the next run.
            ValueError: If pictures are pending.
        """
        if self._pending:
            raise ValueError(f"{len(self._pending)} pictures are pending: caption them first")
        check_failures(
            [self._with_failure(image) for image in self.request.images],
            self.request.config.max_failures,
        )
        if self._artifact is not None:
            self._write(self._artifact)
        return CaptionSummary(
            path=self.request.path,
            num_images=len(self.request.images),
            num_distinct=len(self.request.by_digest),
            num_captions=len(self.request.images) - len(self._failed),
            num_made=self._num_made,
            failed=dict(Counter(reason for reason, _ in self._failed.values())),
            seconds=time.perf_counter() - self._start,
            num_halved=self._num_halved,
        )

    def _count_halved(self) -> None:
        self._num_halved += 1

    def _sort_out(self, artifact: GrowingArtifact) -> set[str]:
        """Drop captions of pictures that have changed; give equal pictures what one of them has.

        Returns:
            Digests of the pictures without a caption.
        """
        digests = {key_of(image): image.image_sha256 for image in self.request.images}
        stale = [
            key
            for key, digest in digests.items()
            if key in artifact and (key in self._failed or artifact[key]["image_sha256"] != digest)
        ]
        artifact.discard(stale)
        captions = {row["image_sha256"]: row["caption"] for row in artifact.rows()}
        rows = [
            row
            for digest in self.request.by_digest
            if digest in captions
            for row in self._rows(digest, captions[digest])
            if (row["question_id"], row["role"]) not in artifact
        ]
        if rows:
            artifact.add(rows)
        return self.request.by_digest.keys() - captions.keys()

    def _keys(self, digest: str) -> list[Key]:
        return [key_of(image) for image in self.request.by_digest[digest]]

    def _rows(self, digest: str, caption: str) -> list[Row]:
        return [
            {"question_id": question_id, "role": role, "caption": caption, "image_sha256": digest}
            for question_id, role in self._keys(digest)
        ]

    def _with_failure(self, image: ScannedImage) -> ScannedImage:
        reason, error = self._failed.get(key_of(image), (None, None))
        return replace(image, reason=reason, error=error)

    def _write(self, artifact: GrowingArtifact) -> None:
        request = self.request
        earlier = read_made_by(request.path) if request.path.is_file() else {}
        asked = {key_of(image) for image in request.images}
        others = {k: v for k, v in read_failures(earlier).items() if k not in asked}
        runs = list(earlier.get("runs", ()))
        if self._num_made:
            runs.append(self._run())
        rank = dict(request.rank)
        for row in artifact.rows():  # a question of a part of the data set that is not asked for
            rank.setdefault(row["question_id"], len(rank))
        notes = {
            "data_licence": request.data_licence,
            "model_licence": request.config.captioner.facts().licence,
            "failures": failures_to_json(others | self._failed),
            "runs": runs,
            "known_by": known_by(request.config, request.dataset),
        }
        artifact.finish(rank, notes)

    def _run(self) -> dict[str, Any]:
        """What made the captions of this run: it may differ between runs."""
        assert self._captioner is not None
        batch_size = find_batch_size(self.request.config.batch_size, self._captioner)
        return {
            "num_captioned": self._num_made,
            "batch_size": batch_size,
            **({"halved_batches": self._num_halved} if self._num_halved else {}),
            **self._captioner.environment(),
        }
