"""The benchmark's two ways compute the same thing; they differ in time alone."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import train
from benchmarks.train_flops import forward_flops
from benchmarks.train_process import REFERENCE, measure_training, open_way, start_epochs
from benchmarks.train_task import Request, prepare_features, prepare_task
from mmcot_data.questions import Question, write_questions
from mmcot_model.fusion import FusionT5, FusionT5Config

NUM_QUESTIONS, BATCH_SIZE = 22, 4


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Questions of different lengths; two of three have a picture."""
    folder = tmp_path_factory.mktemp("shards")
    questions = [
        Question(
            dataset="d",
            question_id=f"q{number}",
            split="train",
            position=number,
            question=f"Which of these has {'very ' * (number % 5)}many parts?",
            choices=("a leaf", "a house", "a stone")[: 2 + number % 2],
            answer=number % 2,
            solution=f"A house has {'more and ' * (number % 7)}more.",
            has_image=number % 3 > 0,
        )
        for number in range(NUM_QUESTIONS)
    ]
    write_questions(folder / "questions.parquet", questions)
    return folder


@pytest.fixture
def both(artifacts, tmp_path):
    """The reference's way and ours, each with a model of its own that has the same weights."""
    features = tmp_path / "detr"
    prepare_features(artifacts, "detr", features)
    request = Request(
        artifacts=str(artifacts),
        features=str(features),
        prompt_format="QCM-E",
        size="tiny",
        batch_size=BATCH_SIZE,
        max_source=64,
        max_target=48,
        device="cpu",
    )
    return [open_way(name, prepare_task(request), request) for name in (REFERENCE, "ours, fp32")]


def test_the_same_questions_give_the_same_loss(both):
    """Would catch a comparison of two different computations."""
    losses = []
    for way in both:
        batch = way.collate(way.task.examples[::5])
        batch["labels"][batch["labels"] == 0] = -100  # the reference counts the padding
        with torch.no_grad():
            losses.append(way.task.model.eval()(**batch).loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert batch["image_features"][0].any()
    assert not batch["image_features"][-1].any()


def test_the_same_questions_give_the_same_texts(both):
    """Would catch a comparison in which one way has less to write."""
    texts = []
    for way in both:
        model = way.task.model
        unwritable = range(len(way.task.tokenizer) - 100, model.config.vocab_size)
        model.generation_config.suppress_tokens = list(unwritable)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "EncDecAttention" in name:
                    weight.mul_(8)  # so that texts depend on the question
        texts.append(way.write(way.task.examples[::4], 12))
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1


def test_the_reference_pads_all_and_counts_it(both):
    reference, ours = both
    for batch in reference.epoch(0):
        assert batch["input_ids"].shape[1] == 64
        assert batch["labels"].shape[1] == 48
        assert batch["labels"].min() == 0
    assert max(batch["input_ids"].shape[1] for batch in ours.epoch(0)) < 64


def test_both_measure_the_same_work_in_an_epoch(both):
    """Would catch padding that counts as tokens, and examples that are left out."""
    found = []
    for way in both:
        steps = -(-NUM_QUESTIONS // BATCH_SIZE)
        found.append(measure_training(way, way.task, start_epochs(way), steps))
    examples = both[0].task.examples
    tokens = sum(len(each.input_ids) + len(each.labels) for each in examples)
    assert [row["tokens"] for row in found] == [tokens, tokens]
    assert [row["examples"] for row in found] == [NUM_QUESTIONS, NUM_QUESTIONS]
    assert found[0]["positions"] == NUM_QUESTIONS * (64 + 48) > found[1]["positions"] > tokens
    assert found[0]["flops"] == pytest.approx(found[1]["flops"])
    assert all(0 < row["waiting"] < row["seconds"] for row in found)


def test_operations_are_those_that_torch_counts():
    """Would catch a bound that leaves a layer out."""
    config = FusionT5Config(
        vocab_size=90,
        patch_dim=12,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=4,
        decoder_start_token_id=0,
        attn_implementation="eager",
    )
    model = FusionT5(config).train()
    with FlopCounterMode(display=False) as counter:
        model(
            input_ids=torch.ones(1, 9, dtype=torch.long),
            labels=torch.ones(1, 7, dtype=torch.long),
            image_features=torch.randn(1, 5, 12),
        )
    assert counter.get_total_flops() == pytest.approx(forward_flops(config, 9, 7, 5), rel=1e-3)


@pytest.mark.slow
def test_the_command_prints_and_writes_both_ways(artifacts, tmp_path, capfd):
    """Would catch processes that do not answer, and a table that lacks a way."""
    arguments = "--size tiny --rounds 1 --steps 1 --texts 1 --tokens 3 --precision fp32"
    lengths = ["--max-source", "64", "--max-target", "48", "--batch-size", "2"]
    out = tmp_path / "found.json"
    train.main(["--artifacts", str(artifacts), *arguments.split(), *lengths, "--json", str(out)])
    assert REFERENCE in capfd.readouterr().out
    found = json.loads(out.read_text())
    assert found["training"].keys() == found["writing"].keys() == {REFERENCE, "ours, fp32"}
    assert found["training"][REFERENCE]["speedup"] == found["writing"][REFERENCE]["speedup"] == 1
    assert found["writing"]["ours, fp32"]["rounds"][0]["tokens"] == 3
    assert all(row["peak_mib"] > 0 for row in found["training"].values())
