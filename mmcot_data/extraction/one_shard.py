"""Make the shards of a plan one by one, in any process on any machine that has the folder."""

import socket
import time
from collections.abc import Callable, Iterable, Sequence

from mmcot_data.encoders import load_encoder
from mmcot_data.encoders.base import Encoder
from mmcot_data.encoders.precision import AdjustableEncoder
from mmcot_data.errors import SpecMismatchError
from mmcot_data.extraction.engine import decode_threads, make_shards
from mmcot_data.extraction.making import describe_busy
from mmcot_data.extraction.pending import find_commit, find_made, is_made
from mmcot_data.extraction.plan import ExtractionPlan, find_spec
from mmcot_data.extraction.shard import ShardInProgress
from mmcot_data.extraction.shard_task import ShardTask
from mmcot_data.shards.folder_content import read_shards
from mmcot_data.shards.manifest import ShardCommit
from mmcot_data.shards.writable import find_writable

__all__ = ["extract_shard", "load_planned_encoder", "wait_for_others"]

_POLL_SECONDS = 1.0


def load_planned_encoder(planned: ExtractionPlan | ShardTask) -> Encoder:
    """Load the encoder of a plan in another process than the one that planned.

    Raises:
        EncoderError: If it can't be loaded.
        SpecMismatchError: If it makes other features than those that are planned, since this
            machine has another model, library or precision; lists what differs.
    """
    config, spec = planned.config, planned.spec
    encoder = load_encoder(config.encoder)
    if config.encoder.precision == "auto" and isinstance(encoder, AdjustableEncoder):
        for precision in encoder.precisions:
            if precision == spec.precision:
                encoder = encoder.at_precision(precision, error=spec.precision_error)
                break
    found = find_spec(config, encoder, spec.data_licence)
    if differences := spec.differences(found):
        raise SpecMismatchError(
            f"the encoder {config.encoder.name} is another one on {socket.gethostname()} than "
            "where the extraction was planned; install the same versions and give the same model "
            "on every machine. What differs:\n  " + "\n  ".join(differences)
        )
    return encoder


def extract_shard(
    task: ShardTask,
    encoder: Encoder,
    on_progress: Callable[[int, int], object] | None = None,
    *,
    wait: bool = True,
) -> ShardCommit | None:
    """Make one shard of an extraction that has begun; a complete one is left as it is.

    Args:
        task: The shard.
        encoder: The encoder that the plan was made with.
        on_progress: Called with the pictures of this shard that are done, and all of them.
        wait: Wait for a process that makes the shard already.

    Returns:
        Its commit record; None if another process makes it and is not waited for.

    Raises:
        ExtractionError: If a picture's file has changed since it was scanned.
        OSError: If reading a picture or writing the shard fails.
        EncoderError: If the encoder's output does not fit its description, or not even half a
            batch fits into memory.
        ShardError: If features are not finite. Nothing half-written stays.
    """
    claim = find_writable(task.folder).claim(task.shard.file, wait=-1 if wait else 0)
    if claim is None:
        return None
    done = 0

    def add_done(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, len(task.shard.images))

    try:
        if not is_made(task, commit := find_commit(task)):
            shard = ShardInProgress(task, encoder)
            threads = decode_threads([encoder])
            make_shards([[shard]], num_threads=threads, on_progress=add_done)
            commit = find_commit(task)
    finally:
        claim.release()
    assert commit is not None
    return commit


def wait_for_others(
    plan: ExtractionPlan,
    numbers: Iterable[int],
    on_waiting: Callable[[Sequence[str]], object] | None = None,
) -> list[int]:
    """Wait while other processes make all of these shards that are not complete.

    Args:
        plan: The plan.
        numbers: Of the shards.
        on_waiting: Called with the shards that others make and who does, before each second of
            waiting.

    Returns:
        Those that are not complete and that nobody makes any more, as when a process was killed;
        none if all are complete.
    """
    folder = find_writable(plan.folder)
    left = sorted(numbers)
    while True:
        left = _unmade(plan, left)
        claimed = folder.claimed([plan.shards[number].file for number in left])
        busy = [number for number in left if plan.shards[number].file in claimed]
        if free := _unmade(plan, [number for number in left if number not in busy]):
            return free
        if not busy:
            return []
        if on_waiting is not None:
            on_waiting([describe_busy(plan, number) for number in busy])
        time.sleep(_POLL_SECONDS)


def _unmade(plan: ExtractionPlan, numbers: Sequence[int]) -> list[int]:
    """Those of some shards that are not complete."""
    if not numbers:
        return []
    content = read_shards(plan.folder, [plan.shards[number].file for number in numbers])
    return [n for n in numbers if find_made(plan.shard_task(n), content) is None]
