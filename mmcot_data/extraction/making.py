"""A feature set in the making: what is left to do, and which shards this process has claimed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from mmcot_data.encoders.base import Encoder
from mmcot_data.errors import FolderLockedError
from mmcot_data.extraction.pending import check_request, find_commit, find_pending, is_made
from mmcot_data.extraction.plan import ExtractionPlan
from mmcot_data.extraction.shard import ShardInProgress
from mmcot_data.shards.folder import refuse_artifact_root, start_writing
from mmcot_data.shards.folder_content import FolderContent, read_folder
from mmcot_data.shards.manifest import commit_name
from mmcot_data.shards.writable import Claim, WritableFolder, find_writable

__all__ = [
    "FeatureSetInProgress",
    "begin_extraction",
    "describe_busy",
]

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
    folder = find_writable(plan.folder)
    with ExitStack() as stack:
        with _patient_lock(folder, on_waiting):
            content = read_folder(plan.folder)
            check_request(plan, content)
            pending = find_pending(plan, encoder, content)
            if pending:
                stack.enter_context(folder.present_worker())
                folder.remove_half_written(_RECORDS)
                start_writing(plan.folder, plan.spec, plan.key, plan.unread)
                for number in pending:
                    _discard(plan, number, content)
        yield pending


@contextmanager
def _patient_lock(
    folder: WritableFolder, on_waiting: Callable[[Sequence[str]], object] | None
) -> Iterator[None]:
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(folder.lock(_POLL_SECONDS))
                break
            except FolderLockedError as error:
                if on_waiting is not None:
                    on_waiting([str(error)])
        yield


def _discard(plan: ExtractionPlan, number: int, content: FolderContent) -> None:
    """Delete the record of a shard that is to be made again, unless that has begun.

    A listing is no picture of one moment: it may show a record, and not yet its shard.
    """
    folder, file = find_writable(plan.folder), plan.shards[number].file
    commit = content.commits.get(file)
    if commit is None or folder.find(file) != content.files.get(file):
        return
    if (claim := folder.claim(file)) is not None:
        try:
            if find_commit(plan.shard_task(number)) == commit:
                folder.remove(commit_name(file))
        finally:
            claim.release()


def describe_busy(plan: ExtractionPlan, number: int) -> str:
    """Who makes a shard, for people."""
    file = plan.shards[number].file
    return f"{plan.folder}/{file}: {find_writable(plan.folder).owner(file)}"


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
            task = self.plan.shard_task(number)
            if (claim := find_writable(task.folder).claim(task.shard.file)) is None:
                continue
            self._claims[number] = claim  # at once, so that it is given up after any error
            if is_made(task, find_commit(task)):
                self._claims.pop(number).release()
                found += len(task.shard.images)
            else:
                claimed.append(ShardInProgress(task, self.encoder))
            self.pending.remove(number)
        return claimed, found

    def release(self, shard: ShardInProgress) -> None:
        """Give up the claim on a shard that has been made."""
        self.num_extracted += len(shard.shard.images)
        self._claims.pop(shard.task.number).release()

    def release_all(self) -> None:
        """Give up all claims."""
        while self._claims:
            self._claims.popitem()[1].release()

    def busy(self) -> Iterator[str]:
        """The pending shards, with who makes them."""
        return (describe_busy(self.plan, number) for number in sorted(self.pending))
