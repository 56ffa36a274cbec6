"""Scores of choices against answers that are scored one by one."""

import numpy as np
import pytest
import torch

from mmcot_model.batches import Collator, Example
from mmcot_model.feature_layout import FeatureLayout
from mmcot_model.loading import new_model
from mmcot_model.trained.choice_scores import score_answers

P, D = 4, 6
TEXTS = [
    "Question: Which is red? Options: (A) one (B) two (C) three Solution:",
    "It is red. The answer is (A).",
    "The answer is (B). BECAUSE: It is red.",
]


class Features:
    def gather(self, question_ids):
        generator = np.random.default_rng(0)
        shape = (len(question_ids), P)
        return generator.normal(size=(*shape, D)).astype(np.float16), np.ones(shape, bool)


@pytest.fixture(scope="module")
def loaded():
    layout = FeatureLayout(encoders=("fake",), num_patches=P, patch_dim=D)
    model, tokenizer = new_model("tiny", TEXTS, vocab_size=140, layout=layout, seed=1)
    return model.eval(), tokenizer


@pytest.fixture
def batch(loaded):
    _, tokenizer = loaded
    collate = Collator(tokenizer.pad_token_id, Features(), pad_multiple=1)
    batch = collate([Example("1", tokenizer(TEXTS[0]).input_ids, [])])
    del batch["labels"]
    return batch


def log_likelihood(loaded, batch, text, ends):
    """By the model's own loss, with the question encoded anew."""
    model, tokenizer = loaded
    ids = tokenizer(text, add_special_tokens=False).input_ids
    labels = torch.tensor([[*ids, tokenizer.eos_token_id] if ends else ids])
    with torch.no_grad():
        return -float(model(**batch, labels=labels).loss) * labels.shape[1]


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("before", ["", "It is red."])
def test_scores_equal_those_of_single_answers(loaded, batch, ends, before):
    """Would catch padding or the text before that is scored, and tokens shifted by one.

    The answers have several lengths.
    """
    model, tokenizer = loaded
    answers = ["The answer is (A).", "The answer is (B).", "It is red, not (C).", "Red."]
    assert len({len(ids) for ids in tokenizer(answers).input_ids}) > 1
    found = score_answers(model, tokenizer, batch, answers, before=before, ends=ends)
    expected = [
        log_likelihood(loaded, batch, f"{before} {answer}".strip(), ends)
        - (log_likelihood(loaded, batch, before, ends=False) if before else 0)
        for answer in answers
    ]
    np.testing.assert_allclose([s.log_likelihood for s in found], expected, rtol=1e-4)
    shares = np.exp(expected) / np.exp(expected).sum()
    np.testing.assert_allclose([s.probability for s in found], shares, rtol=1e-3)
    assert sum(score.probability for score in found) == pytest.approx(1)


def test_the_question_is_encoded_once(loaded, batch, monkeypatch):
    """Would catch an encoder that runs for every choice."""
    model, tokenizer = loaded
    calls = []
    encode = model.encoder.forward
    monkeypatch.setattr(
        model.encoder,
        "forward",
        lambda *args, **options: calls.append(options) or encode(*args, **options),
    )
    score_answers(model, tokenizer, batch, [f"The answer is ({c})." for c in "ABC"])
    assert len(calls) == 1
    assert calls[0]["input_ids"].shape[0] == 1
