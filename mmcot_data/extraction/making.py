"""A feature set in the making: what is left to do, and which shards this process has claimed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mmcot_data.encoders.base import Encoder
from mmcot_data.errors import FolderLockedError
from mmcot_data.extraction.engine import decode_threads, make_shards
from mmcot_data.extraction.pending import check_request, find_pending, is_made
from mmcot_data.extraction.plan import ExtractionPlan
from mmcot_data.extraction.shard import ShardInProgress
from mmcot_data.shards.folder import read_folder, refuse_artifact_root, start_writing
from mmcot_data.shards.lock import (
    Claim,
    claim_owner,
    claim_shard,
    lock_folder,
    present_worker,
    remove_half_written,
)
from mmcot_data.shards.manifest import ShardCommit, commit_path, read_commit

__all__ = ["FeatureSetInProgress", "begin_extraction", "extract_shard"]

_POLL_SECONDS = 1.0
_RECORDS = ("manifest.json", "plan.json", "index.parquet")


@contextmanager
def begin_extraction(
    plan: ExtractionPlan,
    encoder: Encoder,
    on_waiting: Callable[[Sequence[str]], object] | None = None,
) -> Iterator[list[int]]:
    """Check that a feature set's folder fits, and find the shards that are to be made.

    Several processes may have begun the same extraction. Another request is refused as long as one
    of them has not left the context.

    Args:
        plan: The plan.
        encoder: The encoder that the plan was made with.
        on_waiting: Called again and again while another process begins or ends in the folder.

    Yields:
        Their numbers; where there are any, the folder is unfinished from now on.

    Raises:
        SpecMismatchError: If the folder's features were made in another way.
        ShardError: If it was made for other pictures or in other sizes, or is damaged.
    """
    refuse_artifact_root(plan.folder)
    with ExitStack() as stack:
        with _patient_lock(plan.folder, on_waiting):
            content = read_folder(plan.folder)
            check_request(plan, content)
            pending = find_pending(plan, encoder, content)
            if pending:
                stack.enter_context(present_worker(plan.folder))
                for record in _RECORDS:
                    remove_half_written(plan.folder, record)
                start_writing(plan.folder, plan.spec, plan.key, plan.unread)
                for number in pending:
                    _discard(plan, number, content.commits.get(plan.shards[number].file))
        yield pending


@contextmanager
def _patient_lock(
    folder: Path, on_waiting: Callable[[Sequence[str]], object] | None
) -> Iterator[None]:
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_folder(folder, _POLL_SECONDS))
                break
            except FolderLockedError as error:
                if on_waiting is not None:
                    on_waiting([str(error)])
        yield


def _discard(plan: ExtractionPlan, number: int, commit: ShardCommit | None) -> None:
    """Delete the record of a shard that is to be made again, unless that has begun."""
    if commit is None:
        return
    file = plan.shards[number].file
    if (claim := claim_shard(plan.folder, file)) is not None:
        path = commit_path(plan.folder / file)
        if _read(path) == commit:
            path.unlink()
        claim.release()


def extract_shard(
    plan: ExtractionPlan,
    number: int,
    encoder: Encoder,
    on_progress: Callable[[int, int], object] | None = None,
) -> ShardCommit:
    """Make one shard of an extraction that has begun; a complete one is left as it is.

    Waits for a process that makes the shard already.

    Args:
        plan: The plan.
        number: Which of its shards.
        encoder: The encoder that the plan was made with.
        on_progress: Called with the pictures of this shard that are done, and all of them.

    Raises:
        ExtractionError: If a picture's file has changed since it was scanned.
        OSError: If reading a picture or writing the shard fails.
        EncoderError: If the encoder's output does not fit its description.
        ShardError: If features are not finite. Nothing half-written stays.
    """
    path = commit_path(plan.folder / plan.shards[number].file)
    claim = claim_shard(plan.folder, plan.shards[number].file, wait=-1)
    assert claim is not None
    done = 0

    def add_done(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, len(plan.shards[number].images))

    try:
        if not is_made(plan, number, commit := _read(path)):
            shard = ShardInProgress(plan, number, encoder)
            threads = decode_threads([encoder])
            make_shards([[shard]], num_threads=threads, on_progress=add_done)
            commit = read_commit(path)
    finally:
        claim.release()
    assert commit is not None
    return commit


class FeatureSetInProgress:
    """One feature set of an extraction that has begun.

    Args:
        plan: The plan.
        encoder: The encoder that the plan was made with.
        pending: Numbers of the shards that are to be made.
    """

    def __init__(self, plan: ExtractionPlan, encoder: Encoder, pending: list[int]) -> None:
        self.plan = plan
        self.encoder = encoder
        self.pending = set(pending)
        """Shards that are neither complete nor claimed by this process, as far as is known."""
        self.num_extracted = 0
        """Pictures of shards that this process has made."""
        self._claims: dict[int, Claim] = {}

    @property
    def num_pending(self) -> int:
        """Pictures of the pending shards."""
        return sum(len(self.plan.shards[number].images) for number in self.pending)

    def claim(self, start: int, stop: int) -> tuple[list[ShardInProgress], int]:
        """Claim the pending shards that begin at a picture between two.

        Returns:
            The claimed shards; and the number of pictures of those that were found complete.
        """
        size = self.plan.key.shard_size
        claimed, found = [], 0
        for number in sorted(self.pending.intersection(range(start // size, -(-stop // size)))):
            file = self.plan.shards[number].file
            if (claim := claim_shard(self.plan.folder, file)) is None:
                continue
            self.pending.remove(number)
            if is_made(self.plan, number, _read(commit_path(self.plan.folder / file))):
                claim.release()
                found += len(self.plan.shards[number].images)
            else:
                self._claims[number] = claim
                claimed.append(ShardInProgress(self.plan, number, self.encoder))
        return claimed, found

    def release(self, shard: ShardInProgress) -> None:
        """Give up the claim on a shard that has been made."""
        self.num_extracted += len(shard.shard.images)
        self._claims.pop(shard.number).release()

    def release_all(self) -> None:
        """Give up all claims."""
        while self._claims:
            self._claims.popitem()[1].release()

    def busy(self) -> Iterator[str]:
        """The pending shards, with who makes them."""
        for number in sorted(self.pending):
            file = self.plan.shards[number].file
            yield f"{self.plan.folder / file}: {claim_owner(self.plan.folder, file)}"


def _read(path: Path) -> ShardCommit | None:
    try:
        return read_commit(path)
    except FileNotFoundError:
        return None
