"""A seed for each text, so that it can be drawn again without those around it."""

import hashlib

__all__ = ["row_seed"]


def row_seed(seed: int, *place: int, question_id: str) -> int:
    """A seed of 63 bits for a text; no two share one but by chance.

    Args:
        seed: Common to all texts.
        place: Numbers that tell the texts of a question apart, as that of the sample.
        question_id: Of the question.
    """
    name = " ".join([*map(str, (seed, *place)), question_id])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1
