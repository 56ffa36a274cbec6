"""The whole extraction in one process: plan, shards, index and manifest.

Several processes, on one machine or on several that share the folder, may run it at the same time:
each claims shards that no other makes, and waits for those of the others in the end.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from mmcot_data.encoders import load_encoder
from mmcot_data.encoders.base import Encoder
from mmcot_data.errors import ExtractionError
from mmcot_data.extraction.config import ExtractionConfig
from mmcot_data.extraction.engine import decode_threads, make_shards
from mmcot_data.extraction.finish import ExtractionSummary, finish_extraction
from mmcot_data.extraction.making import FeatureSetInProgress, begin_extraction
from mmcot_data.extraction.prepare import open_pictures, prepare_extraction, scan_source
from mmcot_data.extraction.shard import ShardInProgress
from mmcot_data.tables import check_artifact_root, write_tables

__all__ = ["Reports", "extract_feature_sets", "extract_features"]

_POLL_SECONDS = 1.0


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Reports:
    """Functions that are told how an extraction gets on."""

    scanned: Callable[[int, int], object] = _ignore
    """Pictures whose bytes were read, and all of them."""
    extracted: Callable[[int, int], object] = _ignore
    """Rows of all feature sets that are done, those that were there before included, and all."""
    waiting: Callable[[Sequence[str]], object] = _ignore
    """What other processes still make, before each time that this one waits for it."""


def extract_features(
    config: ExtractionConfig,
    on_progress: Callable[[int, int], object] = _ignore,
    *,
    encoder: Encoder | None = None,
) -> ExtractionSummary:
    """Extract the features of a data set with one encoder: see ``extract_feature_sets``.

    Args:
        config: The request.
        on_progress: Called with the distinct pictures done, those of complete shards included,
            and the number of all.
        encoder: The loaded encoder; ``load_encoder(config.encoder)`` if None.
    """
    encoders = None if encoder is None else [encoder]
    return extract_feature_sets([config], Reports(extracted=on_progress), encoders=encoders)[0]


def extract_feature_sets(
    configs: Sequence[ExtractionConfig],
    reports: Reports | None = None,
    *,
    encoders: Sequence[Encoder] | None = None,
) -> list[ExtractionSummary]:
    """Extract the features of a data set with several encoders, and write its tables beside them.

    Each picture is decoded once. Whatever stops it, the same call continues with the shards that
    are not complete, and the shards are in the end those of a run that was not stopped. Any number
    of processes may do the same work at the same time: they share it.

    Args:
        configs: The requests, one an encoder, for the same pictures.
        reports: Told how it gets on.
        encoders: The loaded encoders; ``load_encoder`` loads them if None.

    Returns:
        A summary for each request.

    Raises:
        DataError: If the data set can't be read, or the artifact root holds another one.
        EncoderError: If an encoder can't be loaded, or its output is wrong.
        ExtractionError: If more pictures fail than ``max_failures`` allows.
        ShardError: If features are not finite, or a folder is damaged or was made for other
            pictures.
        SpecMismatchError: If a folder's features were made in another way.
        ValueError: If the requests are not for the same pictures in shards that fit each other.
    """
    reports = reports or Reports()
    _check_same_pictures(configs)
    source = open_pictures(configs[0])
    if source.questions is not None:
        write_tables(source.questions, configs[0].out)
    else:
        check_artifact_root(configs[0].out)
    encoders = encoders or [load_encoder(config.encoder) for config in configs]
    start = time.perf_counter()
    scanned = scan_source(source, reports.scanned)
    plans = [
        prepare_extraction(config, encoder, scanned)
        for config, encoder in zip(configs, encoders, strict=True)
    ]
    window = _find_window([plan.key.shard_size for plan, _ in plans])
    with ExitStack() as stack:
        sets = [
            FeatureSetInProgress(
                plan,
                encoder,
                stack.enter_context(begin_extraction(plan, encoder, reports.waiting)),
            )
            for plan, encoder in plans
        ]
        try:
            _make_all(sets, window, reports)
        finally:
            for item in sets:
                item.release_all()
        summaries = _finish_all(sets)
    seconds = time.perf_counter() - start
    return [
        replace(summary, num_extracted=item.num_extracted, seconds=seconds)
        for summary, item in zip(summaries, sets, strict=True)
    ]


def _finish_all(sets: Sequence[FeatureSetInProgress]) -> list[ExtractionSummary]:
    """Finish every feature set that can be, before the first error is raised."""
    summaries, errors = [], []
    for item in sets:
        try:
            summaries.append(finish_extraction(item.plan))
        except ExtractionError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return summaries


def _make_all(sets: Sequence[FeatureSetInProgress], window: int, reports: Reports) -> None:
    """Make every shard that no other process makes, until all are complete."""
    total = sum(item.plan.num_images for item in sets)
    done = total - sum(item.num_pending for item in sets)
    owners = {item.plan.folder: item for item in sets}

    def add_done(number: int) -> None:
        nonlocal done
        done += number
        reports.extracted(done, total)

    def groups() -> Iterator[list[ShardInProgress]]:
        for first in range(0, max(item.plan.num_images for item in sets), window):
            shards = []
            for item in sets:
                claimed, found = item.claim(first, first + window)
                shards += claimed
                add_done(found)
            if shards:
                yield shards

    add_done(0)
    while any(item.pending for item in sets):
        before = done
        make_shards(
            groups(),
            num_threads=decode_threads([item.encoder for item in sets]),
            on_progress=add_done,
            on_written=lambda shard: owners[shard.task.folder].release(shard),
        )
        if done == before and (busy := [line for item in sets for line in item.busy()]):
            reports.waiting(busy)
            time.sleep(_POLL_SECONDS)


def _check_same_pictures(configs: Sequence[ExtractionConfig]) -> None:
    names = ("data", "out", "layout", "id_column", "image_column", "licence", "splits")
    for name in names:
        if len({getattr(config, name) for config in configs}) > 1:
            raise ValueError(f"several encoders can share one decoding only with the same {name}")
    if len({config.encoder.alpha for config in configs}) > 1:
        raise ValueError("several encoders can share one decoding only with the same alpha")


def _find_window(shard_sizes: Sequence[int]) -> int:
    """Pictures that are looked at together: whole shards of each encoder."""
    window = max(shard_sizes)
    if any(window % size for size in shard_sizes):
        raise ValueError(
            f"several encoders can share one decoding only where the shard sizes divide each "
            f"other, found {', '.join(map(str, shard_sizes))}"
        )
    return window
