import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmcot_data.errors import TrainingError
from mmcot_model.batches import Collator, Example
from mmcot_model.fusion import FusionT5, FusionT5Config
from mmcot_model.runs import training
from mmcot_model.runs.training import StageSettings, Validation, is_trained, train_stage
from mmcot_model.settings.config import TrainConfig
from mmcot_model.tokenizer import train_tokenizer

CONFIG = TrainConfig(
    artifacts=Path("unread"),
    output=Path("run"),
    batch_size=4,
    learning_rate=5e-3,
    warmup=0.1,
    length_window=50,
    precision="fp32",
    seed=5,
)


def settings(**changes) -> StageSettings:
    return StageSettings(name="test", epochs=2, config=replace(CONFIG, **changes))


class Features:
    def gather(self, question_ids):
        rows = [np.random.default_rng(int(i or 0)).standard_normal((3, 6)) for i in question_ids]
        return np.stack(rows).astype(np.float16), np.ones((len(rows), 3), bool)


def new_model(dropout=0.1) -> FusionT5:
    torch.manual_seed(0)
    config = FusionT5Config(
        vocab_size=120,
        patch_dim=6,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        dropout_rate=dropout,
        decoder_start_token_id=0,
    )
    return FusionT5(config)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a b c d", "e f g h"] * 3)


@pytest.fixture
def examples():
    return draw_examples()


def draw_examples():
    rng = np.random.default_rng(0)
    return [
        Example(str(i), rng.integers(3, 30, rng.integers(3, 12)).tolist(), [3 + i % 5, 1])
        for i in range(22)
    ]


def run(folder, tokenizer, examples, validation=None, **changes) -> FusionT5:
    model = new_model()
    collate = Collator(0, Features())
    train_stage(model, tokenizer, examples, collate, folder, settings(**changes), validation)
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
        train_stage(model, tokenizer, examples, collate, tmp_path / "cut", settings())
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
            settings(),
        )
    checkpoints = sorted((tmp_path / "cut" / "checkpoints").glob("checkpoint-*"))
    shutil.copytree(checkpoints[-1], checkpoints[-1].with_name("checkpoint-9"))
    (checkpoints[-1].with_name("checkpoint-9") / "trainer_state.json").unlink()
    resumed = run(tmp_path / "cut", tokenizer, examples).state_dict()
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())


def test_seed_matters(tmp_path, tokenizer, examples):
    first = run(tmp_path / "1", tokenizer, examples).state_dict()
    again = run(tmp_path / "2", tokenizer, examples).state_dict()
    other = run(tmp_path / "3", tokenizer, examples, seed=6).state_dict()
    name = "encoder.gate_dense.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_accumulation_weights_every_token_alike(tmp_path, tokenizer, examples):
    """Would catch batches of few target tokens that count as much as those of many, and a loss
    that is summed over the batches of a step."""
    examples = [
        replace(example, labels=[3 + int(example.question_id) % 5] * length + [1])
        for example, length in zip(examples[:16], [1, 9, 2, 7] * 4, strict=True)
    ]
    whole = run_without_dropout(tmp_path / "1x8", tokenizer, examples, 8)
    parts = run_without_dropout(tmp_path / "4x2", tokenizer, examples, 2)
    assert_close(parts, whole)


def assert_close(found, expected) -> None:
    for name, weight in expected.items():
        other = found[name]
        if name.endswith("in_proj_bias"):
            # The bias of the keys has no gradient but rounding, which Adam makes as large as any.
            (q, _, v), (other_q, _, other_v) = weight.chunk(3), other.chunk(3)
            weight, other = torch.cat([q, v]), torch.cat([other_q, other_v])
        torch.testing.assert_close(other, weight, rtol=1e-3, atol=1e-4, msg=name)


def run_without_dropout(folder, tokenizer, examples, batch_size):
    model = new_model(dropout=0.0)
    changes = settings(batch_size=batch_size, gradient_accumulation=8 // batch_size)
    train_stage(model, tokenizer, examples, Collator(0, Features()), folder, changes)
    return model.state_dict()


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, tokenizer, examples):
    """Would catch gradients that are averaged by process and not by token, a step whose parts
    overlap, questions that count twice where an epoch does not divide (22 by 8), and files that
    two processes write."""
    examples = [replace(e, labels=e.labels[:1] * (1 + i % 7) + [1]) for i, e in enumerate(examples)]
    alone = run_without_dropout(tmp_path / "alone", tokenizer, examples, 8)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "two_process_training", str(tmp_path / "together")],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).parent,
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=200) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    together = FusionT5.from_pretrained(tmp_path / "together").state_dict()
    assert_close(together, alone)


class Scores:
    """A validation whose scores are written down before."""

    def __init__(self, scores) -> None:
        self.scores = list(scores)
        self.seen: list[dict] = []

    def __call__(self, model) -> dict[str, float]:
        self.seen.append({name: weight.clone() for name, weight in model.state_dict().items()})
        return {"accuracy": self.scores[len(self.seen) - 1]}

    @property
    def validation(self) -> Validation:
        return Validation(metric="accuracy", run=self)


def assert_equal(found, expected) -> None:
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_the_best_weights_are_kept(tmp_path, tokenizer, examples):
    """Would catch the last weights under the name of the best, and a metric read upside down."""
    scores = Scores([10.0, 90.0, 20.0, 30.0])
    model = run(tmp_path, tokenizer, examples, scores.validation, max_steps=21, keep="best")
    assert len(scores.seen) == 4, "6 steps an epoch, and once more at the end"
    assert_equal(model.state_dict(), scores.seen[1])
    assert_equal(FusionT5.from_pretrained(tmp_path).state_dict(), scores.seen[1])
    history = json.loads((tmp_path / "history.json").read_text())
    assert [row["eval_accuracy"] for row in history if "eval_accuracy" in row] == scores.scores


def test_early_stopping_counts_evaluations_without_a_better_one(tmp_path, tokenizer, examples):
    """Would catch training that goes on to the end, or stops at the first worse score."""
    scores = Scores([50.0, 40.0, 60.0, 55.0, 58.0, 99.0])
    changes = {"max_steps": 36, "keep": "best", "early_stopping": 2}
    model = run(tmp_path, tokenizer, examples, scores.validation, **changes)
    assert len(scores.seen) == 5
    assert_equal(model.state_dict(), scores.seen[2])


@pytest.mark.parametrize("moved", [False, True])
def test_resume_knows_the_best_weights_and_the_patience(tmp_path, tokenizer, examples, moved):
    """Would catch a resumed run that forgets the best score so far, how long it is ago, or where
    its weights stand."""
    planned = [50.0, 60.0, 40.0, 30.0, 20.0, 10.0]
    changes = {"max_steps": 36, "keep": "best", "early_stopping": 3}
    expected = Scores(planned)
    run(tmp_path / "whole", tokenizer, examples, expected.validation, **changes)
    first = Scores(planned)
    cut = Collator(0, Unreliable(22))
    with pytest.raises(_PowerCutError):
        train_stage(
            new_model(),
            tokenizer,
            examples,
            cut,
            tmp_path / "cut",
            settings(**changes),
            first.validation,
        )
    folder = tmp_path / "cut"
    if moved:
        folder = folder.rename(tmp_path / "moved")
    rest = Scores(planned[len(first.seen) :])
    model = run(folder, tokenizer, examples, rest.validation, **changes)
    assert len(first.seen) + len(rest.seen) == len(expected.seen) == 5
    assert_equal(model.state_dict(), expected.seen[1])


def test_bf16_and_checkpointing_train_too(tmp_path, tokenizer, examples):
    """Would catch switches that are not passed on: recomputed activations give the same weights,
    and bfloat16 arithmetic leaves weights in float32 that differ a little."""
    plain = run(tmp_path / "plain", tokenizer, examples)
    saved = run(tmp_path / "saved", tokenizer, examples, gradient_checkpointing=True)
    half = run(tmp_path / "half", tokenizer, examples, precision="bf16")
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    assert saved.is_activation_checkpointing
    assert not plain.is_activation_checkpointing
    expected, found = plain.state_dict()[name], half.state_dict()[name]
    torch.testing.assert_close(saved.state_dict()[name], expected, rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.2, atol=0.05)
    ids = torch.tensor([[5, 6, 1]])
    assert half(input_ids=ids, labels=ids).logits.dtype == torch.float32, "as it was asked now"


def test_a_stop_after_early_stopping_changes_nothing(tmp_path, tokenizer, examples, monkeypatch):
    """Would catch a resumed stage that trains on although its patience had ended."""
    scores = Scores([50.0, 60.0, 40.0, 30.0, 99.0])
    changes = {"max_steps": 36, "keep": "best", "early_stopping": 2}

    def cut(*_):
        raise _PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(training, "write_json", cut)
        with pytest.raises(_PowerCutError):
            run(tmp_path, tokenizer, examples, scores.validation, **changes)
    assert len(scores.seen) == 4
    model = run(tmp_path, tokenizer, examples, scores.validation, **changes)
    assert len(scores.seen) == 4, "nothing is evaluated any more"
    assert_equal(model.state_dict(), scores.seen[1])
    assert_equal(FusionT5.from_pretrained(tmp_path).state_dict(), scores.seen[1])
    history = json.loads((tmp_path / "history.json").read_text())
    assert [row["eval_accuracy"] for row in history if "eval_accuracy" in row] == scores.scores[:4]


def test_a_loss_that_is_lost_ends_with_advice(tmp_path, tokenizer, examples):
    """Would catch a traceback when history.json is written, or hours of training on NaN."""
    with pytest.raises(TrainingError, match=r"at step .*--learning-rate"):
        run(tmp_path, tokenizer, examples, learning_rate=1e30)


def test_batches_are_packed_by_source_and_target(tokenizer, examples, monkeypatch):
    """Would catch a trainer that sorts by the sum, and pads more than the benchmark says."""
    seen = []
    monkeypatch.setattr(training, "LengthSampler", lambda lengths, *_, **__: seen.append(lengths))
    trainer = object.__new__(training._FusionTrainer)
    trainer.train_dataset = training.ExampleDataset(examples)
    trainer.length_window = 5
    trainer.args = SimpleNamespace(
        world_size=1, train_batch_size=4, gradient_accumulation_steps=1, seed=0
    )
    monkeypatch.setattr(training._FusionTrainer, "add_callback", lambda *_: None)
    trainer._get_train_sampler()
    assert seen == [[(len(e.input_ids), len(e.labels)) for e in examples]]
