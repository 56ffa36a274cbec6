"""How many pictures may fail, and what is said when more do."""

from collections.abc import Sequence

from mmcot_data.errors import ExtractionError
from mmcot_data.extraction.config import allowed_failures
from mmcot_data.extraction.scan import ScannedImage

__all__ = ["check_failures"]

_NUM_LISTED = 10


def check_failures(images: Sequence[ScannedImage], max_failures: str) -> None:
    """Stop if more pictures failed than are allowed.

    Args:
        images: All pictures asked for, with the reason of those that can't be used.
        max_failures: A number, or a percentage of the pictures.

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
    raise ExtractionError(
        f"{len(failed)} of {len(images)} pictures can't be used, --max-failures {max_failures} "
        f"allows {allowed}:\n" + "\n".join(lines) + "\nGo on without them with "
        f"--max-failures {len(failed)}; or repair or fetch them; or ask only for the splits whose "
        "pictures are there (--split test). What is complete stays, and serves the next run."
    )
