"""What is left to do: compare the plan with what a feature set's folder holds."""

import io
from collections.abc import Mapping

import polars as pl

from mmcot_data.encoders.base import Encoder
from mmcot_data.errors import ImageError, ShardError, SpecMismatchError
from mmcot_data.extraction.decode import decode_image
from mmcot_data.extraction.plan import ExtractionPlan
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.extraction.shard_task import ShardTask
from mmcot_data.shards.folder import check_folder, is_complete
from mmcot_data.shards.folder_content import FolderContent
from mmcot_data.shards.index import INDEX
from mmcot_data.shards.manifest import ShardCommit, commit_name, parse_commit
from mmcot_data.shards.writable import StoredFile, find_writable

__all__ = ["check_request", "find_commit", "find_made", "find_pending", "is_made"]

_NUM_LISTED = 5


def check_request(plan: ExtractionPlan, content: FolderContent) -> None:
    """Refuse a folder that was made in another way, of other questions or in other sizes.

    Raises:
        SpecMismatchError: Lists what differs in the spec.
        ShardError: Lists what differs in the plan, and which pictures were added or removed.
    """
    try:
        check_folder(plan.folder, content, plan.spec, plan.key)
    except SpecMismatchError:
        raise
    except ShardError as error:
        lines = "".join(f"\n{line}" for line in _describe_changes(plan))
        raise ShardError(f"{error}{lines}") from None


def find_pending(plan: ExtractionPlan, encoder: Encoder, content: FolderContent) -> list[int]:
    """Numbers of the shards that are to be made.

    These are the ones that are not complete, and those with pictures that failed and can be used
    now. Pictures that could not be decoded are tried again.

    Raises:
        ShardError: If a picture of a complete shard is another one now; lists them.
    """
    changed: list[str] = []
    pending = []
    for number, shard in enumerate(plan.shards):
        commit, found = content.commits.get(shard.file), content.files.get(shard.file)
        if commit is None or not is_complete(plan.folder, commit, found, plan.spec, plan.key):
            pending.append(number)
            continue
        changed += _changed_images(plan, number, commit)
        if commit.planned != shard.sha256 or _can_be_used_now(plan, number, encoder, commit):
            pending.append(number)
    if changed:
        more = f"\n  and {len(changed) - _NUM_LISTED} more" if len(changed) > _NUM_LISTED else ""
        raise ShardError(
            f"{len(changed)} pictures are not those that the features in {plan.folder} were made "
            "from:\n  " + "\n  ".join(changed[:_NUM_LISTED]) + f"{more}\nBring them back to "
            f"continue; or choose another --out, or delete {plan.folder} to make it anew."
        )
    return pending


def is_made(task: ShardTask, commit: ShardCommit | None) -> bool:
    """Whether a shard is complete, of the pictures that the plan has now."""
    if commit is None:
        return False
    return _is_made(task, commit, find_writable(task.folder).find(task.shard.file))


def find_made(task: ShardTask, content: FolderContent) -> ShardCommit | None:
    """The commit record of a shard that is made, by what a listing of the folder says."""
    commit = content.commits.get(task.shard.file)
    if commit is None or not _is_made(task, commit, content.files.get(task.shard.file)):
        return None
    return commit


def _is_made(task: ShardTask, commit: ShardCommit, found: StoredFile | None) -> bool:
    return (
        is_complete(task.folder, commit, found, task.spec, task.key)
        and commit.planned == task.shard.sha256
    )


def find_commit(task: ShardTask) -> ShardCommit | None:
    """The commit record of a shard; None if there is none.

    Raises:
        ShardError: If it is damaged.
    """
    name = commit_name(task.shard.file)
    data = find_writable(task.folder).read([name]).get(name)
    return None if data is None else parse_commit(data, f"{task.folder}/{name}")


def _changed_images(plan: ExtractionPlan, number: int, commit: ShardCommit) -> list[str]:
    """The pictures that had features and are others now; those that had none may have changed."""
    failed = {failure.position for failure in commit.failed}
    shard = plan.shards[number]
    pairs = enumerate(zip(commit.planned, shard.sha256, shard.images, strict=True))
    return [
        f"{_name(image)}: expected sha256 {before[:12]}…, found "
        + (f"{now[:12]}…" if now else f"it is {image.reason}")
        for position, (before, now, image) in pairs
        if before != now and position not in failed
    ]


def _can_be_used_now(
    plan: ExtractionPlan, number: int, encoder: Encoder, commit: ShardCommit
) -> bool:
    for failure in commit.failed:
        image = plan.shards[number].images[failure.position]
        if image.reason is None:
            alpha = plan.config.encoder.alpha
            if not isinstance(decode_image(image, [encoder], alpha)[0], ImageError):
                return True
    return False


def _describe_changes(plan: ExtractionPlan) -> list[str]:
    """What the index of a finished folder tells of the pictures that it was made for."""
    data = find_writable(plan.folder).read([INDEX]).get(INDEX)
    if data is None:
        return []
    before = _digests(data)
    now = {(image.question_id, image.role): image.image_sha256 for image in plan.images}
    names = {(image.question_id, image.role): _name(image) for image in plan.images}
    lines = []
    for what, keys in (
        ("are asked for now and were not", now.keys() - before.keys()),
        ("were asked for and are not now", before.keys() - now.keys()),
        ("are other ones now", {k for k in now.keys() & before.keys() if now[k] != before[k]}),
    ):
        if keys:
            first = sorted(names.get(key, f"question {key[0]}, {key[1]}") for key in keys)
            listed = "; ".join(first[:_NUM_LISTED])
            more = "; …" if len(keys) > _NUM_LISTED else ""
            lines.append(f"{len(keys)} pictures {what}: {listed}{more}")
    return lines


def _digests(index: bytes) -> Mapping[tuple[str, str], str | None]:
    columns = pl.read_parquet(io.BytesIO(index), columns=["question_id", "role", "image_sha256"])
    return {(question_id, role): digest for question_id, role, digest in columns.iter_rows()}


def _name(image: ScannedImage) -> str:
    return f"question {image.question_id}, {image.role} ({image.file})"
