"""The plan of an extraction: which picture becomes which row, and which are encoded together.

It depends on the spec, the distinct pictures in order, the shard size and the batch size, and on
nothing else. So the same request gives the same shards, whatever was interrupted and however
many processes share the work.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcot_data.encoders.base import Encoder
from mmcot_data.errors import ExtractionError
from mmcot_data.extraction.config import ExtractionConfig
from mmcot_data.extraction.failures import check_failures
from mmcot_data.extraction.scan import ScannedImage, scan_images
from mmcot_data.questions import Question, select_split
from mmcot_data.scienceqa import QuestionImage, ScienceQA, read_scienceqa
from mmcot_data.shards.folder import check_folder, read_complete
from mmcot_data.shards.planning import (
    default_shard_size,
    digest_json,
    folder_name,
    shard_files,
)
from mmcot_data.shards.schema import FeatureSpec, PlanKey

__all__ = ["ExtractionPlan", "PlannedImage", "PlannedShard", "plan_extraction"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedImage:
    """A distinct picture that is to become a row."""

    sha256: str
    """Hex digest of the file's bytes."""
    path: Path
    """The first of the files that hold it."""
    width: int
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedShard:
    """The pictures of one shard, in the order of its rows."""

    file: str
    images: tuple[PlannedImage, ...]
    batches: tuple[tuple[int, ...], ...]
    """Which of the images are encoded together, as positions in ``images``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionPlan:
    """All that ``extract_shard`` and ``finish_extraction`` need to know; it can be pickled."""

    config: ExtractionConfig
    folder: Path
    """The feature set."""
    spec: FeatureSpec
    key: PlanKey
    request_sha256: str
    """Digest of all the (question id, role, picture) rows asked for."""
    images: tuple[ScannedImage, ...]
    """Every picture asked for; its row stands in the index, whatever becomes of it."""
    shards: tuple[PlannedShard, ...]

    def pending(self) -> list[int]:
        """Numbers of the shards that are not complete yet."""
        return [
            number
            for number, shard in enumerate(self.shards)
            if read_complete(self.folder, shard.file, self.spec, self.key) is None
        ]


def plan_extraction(
    config: ExtractionConfig, encoder: Encoder, data: ScienceQA | None = None
) -> ExtractionPlan:
    """Find the pictures, look at what the feature set's folder holds, and divide the work.

    Reads every picture's bytes once, decodes none, and writes nothing.

    Args:
        config: The request.
        encoder: The loaded encoder of ``config.encoder``.
        data: The data set, where it has been read already.

    Raises:
        DataError: If the data set can't be read.
        ExtractionError: If there are no pictures, or if more can't be used than
            ``config.max_failures`` allows.
        ShardError: If the folder was made for other pictures or sizes.
        SpecMismatchError: If the folder's features were made in another way.
        OSError: If reading a picture fails.
    """
    data = data or read_scienceqa(config.data)
    requested = _select_images(data, config.splits)
    if not requested:
        where = f"the splits {', '.join(config.splits)} of " if config.splits else ""
        raise ExtractionError(f"{where}{config.data} name no pictures: there is nothing to extract")
    spec = FeatureSpec.from_json(
        json.loads(json.dumps(encoder.describe()))
        | {"dtype": config.dtype, "data_licence": data.licence},
        f"the description of encoder {config.encoder.name}",
    )
    images = scan_images(requested)
    folder = config.out / folder_name(config.encoder.name)
    check_failures(images, config.max_failures, folder)
    distinct = _distinct_images(images)
    key = PlanKey(
        format=config.format,
        num_images=len(distinct),
        images_sha256=digest_json([image.sha256 for image in distinct]),
        shard_size=config.shard_size or default_shard_size(spec),
        batch_size=config.batch_size,
    )
    check_folder(folder, spec, key)
    return ExtractionPlan(
        config=config,
        folder=folder,
        spec=spec,
        key=key,
        request_sha256=digest_json(
            [[i.question_id, i.role, i.image_sha256 or "", i.reason or ""] for i in images]
        ),
        images=tuple(images),
        shards=_plan_shards(distinct, key, encoder.input_size),
    )


def _select_images(data: ScienceQA, splits: Sequence[str] | None) -> list[QuestionImage]:
    if splits is None:
        return data.images
    chosen: set[Question] = {q for name in splits for q in select_split(data.questions, name)}
    question_ids = {question.question_id for question in chosen}
    return [image for image in data.images if image.question_id in question_ids]


def _distinct_images(images: Sequence[ScannedImage]) -> list[PlannedImage]:
    distinct: dict[str, PlannedImage] = {}
    for image in images:
        if image.reason is None:
            assert image.image_sha256 is not None
            assert image.width is not None
            assert image.height is not None
            planned = PlannedImage(
                sha256=image.image_sha256, path=image.path, width=image.width, height=image.height
            )
            distinct.setdefault(planned.sha256, planned)
    return list(distinct.values())


def _plan_shards(
    images: Sequence[PlannedImage], key: PlanKey, input_size: Callable[[int, int], tuple[int, int]]
) -> tuple[PlannedShard, ...]:
    size = key.shard_size
    return tuple(
        PlannedShard(
            file=file,
            images=(part := tuple(images[number * size : (number + 1) * size])),
            batches=_plan_batches(part, key.batch_size, input_size),
        )
        for number, file in enumerate(shard_files(key))
    )


def _plan_batches(
    images: Sequence[PlannedImage],
    batch_size: int,
    input_size: Callable[[int, int], tuple[int, int]],
) -> tuple[tuple[int, ...], ...]:
    groups: dict[tuple[int, int], list[int]] = {}
    for position, image in enumerate(images):
        groups.setdefault(input_size(image.width, image.height), []).append(position)
    return tuple(
        tuple(group[start : start + batch_size])
        for group in groups.values()
        for start in range(0, len(group), batch_size)
    )
