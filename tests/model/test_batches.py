from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mmcot_data.inputs import ModelInput
from mmcot_data.prompts import SourceParts
from mmcot_model.batches import Collator, Example, ExampleDataset, LengthSampler, tokenize
from mmcot_model.tokenizer import train_tokenizer


class Features:
    """Features whose first value is the question id."""

    def gather(self, question_ids):
        features = np.zeros((len(question_ids), 2, 3), np.float16)
        mask = np.zeros((len(question_ids), 2), bool)
        for row, question_id in enumerate(question_ids):
            if question_id != "none":
                features[row] = int(question_id)
                mask[row] = True
        return features, mask


def test_batch_joins_features_by_id():
    """Would catch features that follow the position instead of the question."""
    examples = [Example("7", [5, 6, 1], [9, 1]), Example("none", [5, 1], [9, 8, 7, 1])]
    batch = Collator(0, Features(), pad_multiple=4)(examples)
    assert batch["input_ids"].tolist() == [[5, 6, 1, 0], [5, 1, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[9, 1, -100, -100], [9, 8, 7, 1]]
    assert batch["image_features"][:, 0, 0].tolist() == [7, 0]
    assert batch["image_mask"].tolist() == [[True, True], [False, False]]


def test_text_only_batch_has_no_features():
    batch = Collator(0)([Example("7", [5, 1], [9, 1])])
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["input_ids"].shape == (1, 8)


@given(
    lengths=st.one_of(
        st.lists(st.integers(1, 500), min_size=1, max_size=300),
        st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=300),
    ),
    batch_size=st.integers(1, 16),
    epoch=st.integers(0, 3),
)
def test_every_example_once_an_epoch(lengths, batch_size, epoch):
    """Would catch examples that are lost or doubled at the edges of windows."""
    sampler = LengthSampler(lengths, batch_size, seed=3, window=4)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths))) == sorted(order)
    assert list(sampler) == order
    assert len(sampler) == len(order)


def test_order_saves_padding_and_changes_with_the_epoch():
    lengths = np.random.default_rng(0).integers(10, 400, 2000)
    sampler = LengthSampler(lengths, 16, seed=0)

    def padded(order):
        batches = lengths[np.asarray(order)].reshape(-1, 16)
        return (batches.max(1, keepdims=True) - batches).sum() / lengths.sum()

    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert padded(first) < 0.05 < 0.4 < padded(range(2000))


def draw_lengths(num):
    """Sources and targets whose lengths have nothing to do with each other, as in ScienceQA."""
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(20, 200, num), rng.integers(5, 300, num)], axis=1)


def share_of_padding(lengths_N2, order, batch_size):
    batches = lengths_N2[np.asarray(order)].reshape(-1, batch_size, 2)
    return 1 - lengths_N2.sum() / (batches.max(axis=1).sum() * batch_size)


def test_sources_and_targets_are_both_of_like_lengths():
    """Would catch an order by the sum alone, which leaves the padding of long sources that stand
    beside long targets: less than half of what even a sort of all examples by it leaves."""
    lengths = draw_lengths(3200)
    order = list(LengthSampler([tuple(pair) for pair in lengths.tolist()], 8, seed=0))
    by_sum = np.argsort(lengths.sum(axis=1), kind="stable")
    assert share_of_padding(lengths, order, 8) < share_of_padding(lengths, by_sum, 8) / 2


def test_a_window_of_one_batch_leaves_batches_random():
    """Would catch lengths that decide which questions a small model sees together."""
    lengths = draw_lengths(3200)
    order = list(LengthSampler([tuple(pair) for pair in lengths.tolist()], 8, seed=0, window=1))
    random = np.random.default_rng(1).permutation(3200)
    found, expected = (share_of_padding(lengths, each, 8) for each in (order, random))
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.slow
def test_loader_processes_change_no_batch():
    """Would catch an order or features that depend on which process makes a batch."""
    examples = [Example(str(i), [5] * (i % 7 + 1), [9, 1]) for i in range(20)]
    lengths = [(len(example.input_ids), 2) for example in examples]

    def load(num_workers):
        return list(
            DataLoader(
                ExampleDataset(examples),
                batch_size=4,
                sampler=LengthSampler(lengths, 4, seed=0),
                collate_fn=Collator(0, Features()),
                num_workers=num_workers,
                # A fork of a process in which other tests used Prefect ends with an error.
                multiprocessing_context="spawn" if num_workers else None,
            )
        )

    for alone, ahead in zip(load(0), load(2), strict=True):
        assert alone.keys() == ahead.keys()
        assert all(torch.equal(alone[name], ahead[name]) for name in alone)


def test_fixed_padding_is_that_of_the_reference():
    """Would catch limits in the wrong order, and target padding that the loss leaves out."""
    collate = Collator(0, lengths=(6, 4), label_pad_id=0)
    batch = collate([Example("7", [5, 1], [9, 1])])
    assert batch["input_ids"].tolist() == [[5, 1, 0, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0, 0, 0]]
    assert batch["labels"].tolist() == [[9, 1, 0, 0]]


def test_tokenize_cuts_and_ends_texts():
    """Would catch a text without its end, and a cut that no report knows of."""
    parts = SourceParts(question="a b c d e f", options=("(A) a",), cue="Answer:")
    inputs = [
        ModelInput(question_id="1", parts=parts, target="a b"),
        ModelInput(question_id="2", parts=replace(parts, question="a"), target=None),
    ]
    tokenizer = train_tokenizer([parts.text] * 3)
    full = len(tokenizer(parts.text)["input_ids"])
    read = tokenize(tokenizer, inputs, max_source=full - 2, max_target=8)
    long, hidden = read.examples
    assert long.input_ids == tokenizer(parts.text.replace(" e f", ""))["input_ids"]
    assert long.input_ids[-1] == hidden.input_ids[-1] == tokenizer.eos_token_id
    assert hidden.labels == [tokenizer.eos_token_id]
    assert (read.cuts.sources.num_cut, read.cuts.sources.tokens_cut) == (1, 2)
    (right, _) = tokenize(
        tokenizer, inputs, max_source=4, max_target=8, truncation="right"
    ).examples
    assert len(right.input_ids) == 4
    assert right.input_ids[-1] == tokenizer.eos_token_id
    assert tokenize(tokenizer, [], max_source=4, max_target=8).examples == []


def test_tokenizer_has_t5s_ids_and_keeps_words_whole():
    """Would catch a vocabulary of single characters, as Unigram's trainer makes of small texts."""
    text = "Question: Which flag is farthest north? Options: (A) the blue flag (B) the red flag"
    tokenizer = train_tokenizer([f"{text} The answer is (A).", f"{text} The answer is (B)."] * 20)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.tokenize("The answer is (B).") == ["▁The", "▁answer", "▁is", "▁(B)", "."]
    ids = tokenizer("the red flag")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the red flag"
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == len(tokenizer) - 1


def test_tokenizer_is_reproducible(tmp_path):
    texts = ["one two three", "two three four"] * 5
    first, second = train_tokenizer(texts), train_tokenizer(texts)
    assert first.get_vocab() == second.get_vocab()
    first.save_pretrained(tmp_path)
    loaded = type(first).from_pretrained(tmp_path)
    assert loaded("two four")["input_ids"] == first("two four")["input_ids"]


@pytest.mark.parametrize("size", [1, 7])
def test_features_keep_their_dtype(size):
    batch = Collator(0, Features())([Example(str(i), [1], [1]) for i in range(size)])
    assert batch["image_features"].dtype == torch.float16
    assert batch["image_features"].shape == (size, 2, 3)
