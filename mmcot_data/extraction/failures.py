"""How many pictures may fail, and what is said when more do."""

from collections.abc import Sequence
from pathlib import Path

from mmcot_data.errors import ExtractionError
from mmcot_data.extraction.config import allowed_failures
from mmcot_data.extraction.scan import ScannedImage

__all__ = ["check_failures"]

_NUM_LISTED = 10


def check_failures(images: Sequence[ScannedImage], max_failures: str, folder: Path) -> None:
    """Stop if more pictures failed than are allowed.

    Args:
        images: All pictures asked for, with the reason of those that can't be used.
        max_failures: A number, or a percentage of the pictures.
        folder: The feature set; shards that it holds are mentioned.

    Raises:
        ExtractionError: If there are more; lists the first ten and says how to go on.
    """
    failed = [image for image in images if image.reason is not None]
    allowed = allowed_failures(max_failures, len(images))
    if len(failed) <= allowed:
        return
    lines = [
        f"  question {image.question_id}, {image.role}: {image.reason}: {image.error}"
        for image in failed[:_NUM_LISTED]
    ]
    if len(failed) > _NUM_LISTED:
        lines.append(f"  and {len(failed) - _NUM_LISTED} more")
    shards = (
        f" The shards in {folder} can be used again only with the same picture files: after a "
        f"repair, or for other splits, delete {folder} or choose another --out."
    )
    has_shards = any(folder.glob("*-of-*.json"))
    raise ExtractionError(
        f"{len(failed)} of {len(images)} pictures can't be used, --max-failures {max_failures} "
        f"allows {allowed}:\n" + "\n".join(lines) + "\nGo on without them with "
        f"--max-failures {len(failed)}; or repair or fetch them; or extract only the splits whose "
        "pictures are there (--split test)." + (shards if has_shards else "")
    )
