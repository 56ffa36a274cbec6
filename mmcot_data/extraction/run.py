"""The whole extraction in one process: plan, the shards one by one, index and manifest."""

import time
from dataclasses import replace

from mmcot_data.encoders import load_encoder
from mmcot_data.encoders.base import Encoder
from mmcot_data.extraction.config import ExtractionConfig
from mmcot_data.extraction.finish import ExtractionSummary, finish_extraction
from mmcot_data.extraction.plan import plan_extraction
from mmcot_data.extraction.shard import Progress, extract_shard
from mmcot_data.scienceqa import read_scienceqa
from mmcot_data.shards.folder import write_folder
from mmcot_data.tables import write_tables

__all__ = ["extract_features"]


def extract_features(
    config: ExtractionConfig,
    on_progress: Progress | None = None,
    *,
    encoder: Encoder | None = None,
) -> ExtractionSummary:
    """Extract the features of a data set, and write its tables beside them.

    Whatever stops it, the same call continues with the first shard that is not complete, and the
    shards are in the end those of a run that was not stopped. One process at a time may extract
    into a feature set.

    Args:
        config: The request.
        on_progress: Called with the distinct pictures done, those of complete shards included,
            and the number of all.
        encoder: The loaded encoder; ``load_encoder(config.encoder)`` if None.

    Raises:
        DataError: If the data set can't be read, or the artifact root holds another one.
        EncoderError: If the encoder can't be loaded, or its output is wrong.
        ExtractionError: If more pictures fail than ``config.max_failures`` allows.
        FolderLockedError: If another process writes into the feature set.
        ShardError: If features are not finite, or the folder is damaged or was made for other
            pictures.
        SpecMismatchError: If the folder's features were made in another way.
    """
    data = read_scienceqa(config.data)
    write_tables(data, config.out)
    encoder = encoder or load_encoder(config.encoder)
    start = time.perf_counter()
    plan = plan_extraction(config, encoder, data)
    total = sum(len(shard.images) for shard in plan.shards)
    report = on_progress or _ignore
    with write_folder(plan.folder, plan.spec, plan.key):
        pending = plan.pending()
        todo = sum(len(plan.shards[number].images) for number in pending)
        done = total - todo
        report(done, total)
        for number in pending:
            extract_shard(plan, number, encoder, _after(done, total, report))
            done += len(plan.shards[number].images)
        summary = finish_extraction(plan)
    return replace(summary, num_extracted=todo, seconds=time.perf_counter() - start)


def _after(before: int, total: int, report: Progress) -> Progress:
    return lambda done, _: report(before + done, total)


def _ignore(_done: int, _total: int) -> None:
    pass
