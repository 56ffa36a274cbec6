"""One of two processes that train together; test_training.py starts both."""

import sys
from dataclasses import replace
from pathlib import Path

import test_training

from mmcot_model.tokenizer import train_tokenizer


def main() -> None:
    tokenizer = train_tokenizer(["a b c d", "e f g h"] * 3)
    examples = [
        replace(e, labels=e.labels[:1] * (1 + i % 7) + [1])
        for i, e in enumerate(test_training.draw_examples())
    ]
    model = test_training.new_model(dropout=0.0)
    test_training.train_stage(
        model,
        tokenizer,
        examples,
        test_training.Collator(0, test_training.Features()),
        Path(sys.argv[1]),
        test_training.settings(batch_size=4),
    )


if __name__ == "__main__":
    main()
