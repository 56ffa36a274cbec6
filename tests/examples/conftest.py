"""A small artifact root whose image questions only the features answer."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mmcot_data.questions import Question, write_questions

sys.path.append(str(Path(__file__).parents[1] / "data"))

from feature_sets import make_spec, write_set

COLOURS = ("red", "green", "blue")
ANIMALS = {"ant": 1, "flea": 1, "whale": 0, "elephant": 0}
P, D = 4, 8


@pytest.fixture(scope="session")
def make_root():
    """Writes ``root``: questions.parquet, and the feature set ``tiny`` in four shards."""

    def write(root, container="hdf5"):
        rng = np.random.default_rng(0)
        questions, features, index = [], [], []
        for number in range(560):
            split = "train" if number < 440 else "test"
            common = {"dataset": "x", "question_id": str(number), "split": split}
            if number % 7 == 1:
                animal, answer = list(ANIMALS.items())[number // 7 % 4]
                wording = {"question": f"Is the {animal} big?", "choices": ("yes", "no")}
            else:
                choices = tuple(rng.permutation(COLOURS)[: 2 + number % 2].tolist())
                answer = int(rng.integers(len(choices)))
                wording = {"question": "Which colour?", "choices": choices, "has_image": True}
                row_PD = rng.normal(size=(P, D)) / 2
                row_PD[rng.integers(P), COLOURS.index(choices[answer])] += 4
                lost = number == 559
                index.append((str(number), "question", None if lost else len(features)))
                features += [] if lost else [row_PD.astype(np.float16)]
            questions.append(Question(**common, **wording, position=number, answer=answer))
        write_questions(root / "questions.parquet", questions)
        digests = rng.integers(0, 256, size=(len(features), 32), dtype=np.uint8)
        parts = np.array_split(np.arange(len(features)), 4)
        shards = [(np.stack(features)[part], digests[part]) for part in parts]
        (root / "tiny").mkdir()
        spec = make_spec(num_patches=P, feature_dim=D)
        write_set(root / "tiny", spec, shards, index, container)
        return root

    return write
