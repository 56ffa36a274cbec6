import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmcot_model.batches import Collator, Example
from mmcot_model.fusion import FusionT5, FusionT5Config
from mmcot_model.tokenizer import train_tokenizer
from mmcot_model.training import StageSettings, is_trained, train_stage

SETTINGS = StageSettings(
    name="test",
    epochs=2,
    max_steps=None,
    batch_size=4,
    learning_rate=5e-3,
    warmup=0.1,
    weight_decay=0.01,
    length_window=50,
    seed=5,
)


class Features:
    def gather(self, question_ids):
        rows = [np.random.default_rng(int(i)).standard_normal((3, 6)) for i in question_ids]
        return np.stack(rows).astype(np.float16), np.ones((len(rows), 3), bool)


def new_model() -> FusionT5:
    torch.manual_seed(0)
    config = FusionT5Config(
        vocab_size=120,
        patch_dim=6,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.1,
        decoder_start_token_id=0,
    )
    return FusionT5(config)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a b c d", "e f g h"] * 3)


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    return [
        Example(str(i), rng.integers(3, 30, rng.integers(3, 12)).tolist(), [3 + i % 5, 1])
        for i in range(22)
    ]


def run(folder, tokenizer, examples, settings=SETTINGS) -> FusionT5:
    model = new_model()
    train_stage(model, tokenizer, examples, Collator(0, Features()), folder, settings)
    return model


class _PowerCutError(Exception):
    pass


class Unreliable(Features):
    """Features that fail at a given batch."""

    def __init__(self, batch: int) -> None:
        self.left = batch

    def gather(self, question_ids):
        self.left -= 1
        if self.left < 0:
            raise _PowerCutError
        return super().gather(question_ids)


def test_loss_falls_and_is_recorded(tmp_path, tokenizer, examples):
    run(tmp_path, tokenizer, examples)
    losses = [entry["loss"] for entry in json.loads((tmp_path / "history.json").read_text())[:-1]]
    assert len(losses) == 12
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.2


@pytest.mark.parametrize("stop_at", [4, 9])
def test_resumed_training_gives_the_same_weights(tmp_path, tokenizer, examples, stop_at):
    """Would catch data order, dropout, optimizer or schedule that start anew.

    6 steps an epoch and a checkpoint each step: 4 stops in the first epoch, 9 inside the second,
    where the order of the data differs from the first.
    """
    whole = run(tmp_path / "whole", tokenizer, examples).state_dict()
    model = new_model()
    collate = Collator(0, Unreliable(stop_at))
    with pytest.raises(_PowerCutError):
        train_stage(model, tokenizer, examples, collate, tmp_path / "cut", SETTINGS)
    assert not is_trained(tmp_path / "cut")
    resumed = run(tmp_path / "cut", tokenizer, examples).state_dict()
    assert whole.keys() == resumed.keys()
    for name, weight in whole.items():
        assert torch.equal(resumed[name], weight), name


def test_checkpoint_that_was_being_written_is_left_out(tmp_path, tokenizer, examples):
    """Would catch a stop inside a checkpoint that makes every later start fail."""
    whole = run(tmp_path / "whole", tokenizer, examples).state_dict()
    with pytest.raises(_PowerCutError):
        train_stage(
            new_model(),
            tokenizer,
            examples,
            Collator(0, Unreliable(6)),
            tmp_path / "cut",
            SETTINGS,
        )
    checkpoints = sorted((tmp_path / "cut" / "checkpoints").glob("checkpoint-*"))
    shutil.copytree(checkpoints[-1], checkpoints[-1].with_name("checkpoint-9"))
    (checkpoints[-1].with_name("checkpoint-9") / "trainer_state.json").unlink()
    resumed = run(tmp_path / "cut", tokenizer, examples).state_dict()
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())


def test_seed_matters(tmp_path, tokenizer, examples):
    first = run(tmp_path / "1", tokenizer, examples).state_dict()
    again = run(tmp_path / "2", tokenizer, examples).state_dict()
    other = run(tmp_path / "3", tokenizer, examples, replace(SETTINGS, seed=6)).state_dict()
    name = "encoder.gate_dense.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
