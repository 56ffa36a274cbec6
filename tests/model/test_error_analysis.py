"""Error analysis and teacher forcing of small runs, end to end."""

import hashlib
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional as F

from mmcot_data.cli import main as data_main
from mmcot_data.errors import TrainingError
from mmcot_data.prompts import gold_rationale
from mmcot_data.questions import read_questions, select_split
from mmcot_data.sample import draw_sample
from mmcot_model.batches import Collator
from mmcot_model.cli.evaluate import main
from mmcot_model.cli.train import main as train_main
from mmcot_model.generation import generate
from mmcot_model.runs.generating import tokenize_sources
from mmcot_model.trained.error_analysis import analyse_errors
from mmcot_model.trained.run import read_trained_run
from mmcot_model.trained.stage import StageSources, TrainedStage, open_sources

QUICK = ["--max-steps", "2", "--batch-size", "4", "--max-rationale", "12", "--max-answer", "8"]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    draw_sample(folder / "data", num_questions=100, num_workers=1)
    out = folder / "shards"
    assert data_main(["extract", str(folder / "data"), "--encoder", "tiny", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def runs(artifacts, tmp_path_factory):
    """A run of each kind by its name."""
    root = tmp_path_factory.mktemp("runs")
    features = ["--features", str(artifacts / "tiny")]
    two = root / "two"
    given = ["--stage", "answer", "--prompt-format", "QCMG-A", "--answer-model", f"{two}/answer"]
    kinds = {
        "two": features,
        "zeros": [*features, "--absent-image", "zeros", "--stage", "answer"],
        "text": ["--artifacts", str(artifacts), "--stage", "answer"],
        "given": [*features, *given, "--rationales", str(two / "rationales.parquet")],
        "why": [*features, "--stage", "rationale", "--rationale-model", f"{two}/rationale"],
    }
    for name, arguments in kinds.items():
        assert train_main([*arguments, "--output", str(root / name), *QUICK]) == 0
    return root


@pytest.fixture
def asked(artifacts):
    return select_split(read_questions(artifacts), "test")


class FakeStage:
    """Answers (A) without the picture, else what the rationale says last.

    Its rationales name the right choice where there is a picture, and of one question a wrong one.
    """

    def __init__(self, run, stage, sources):
        self.stage = stage
        self.tokenizer = None

    def write(self, questions, rationales=None, *, title, pictures=True):
        if self.stage == "rationale":
            assert not pictures, "those with pictures stand in predictions.parquet"
            return {q.question_id: "Solution: blind 0" for q in questions}
        indexes = {
            q.question_id: int(rationales[q.question_id].split()[-1]) if pictures else 0
            for q in questions
        }
        return {key: f"The answer is ({'ABCDE'[index]})." for key, index in indexes.items()}

    def as_read(self, text):
        return text


def test_conditions_change_what_they_say(artifacts, runs, asked, monkeypatch):
    """Catches rationales and pictures that are given under the wrong condition."""
    monkeypatch.setattr("mmcot_model.trained.error_analysis.TrainedStage", FakeStage)
    table = pl.read_parquet(runs / "two" / "predictions.parquet")
    gold = {q.question_id: f"Solution: it is {q.answer}" for q in asked}
    spoiled = asked[0].question_id
    written = gold | {spoiled: f"Solution: it is {(asked[0].answer + 1) % 2}"}
    copy = runs / "faked"
    copy.mkdir()
    for name in ("config.json", "run.json"):
        (copy / name).write_bytes((runs / "two" / name).read_bytes())
    ids = table["question_id"].to_list()
    table.with_columns(
        rationale=pl.Series([written[key] for key in ids]),
        reference_rationale=pl.Series([gold[key] for key in ids]),
        answer=pl.Series([int(written[key].split()[-1]) for key in ids], dtype=pl.Int32),
    ).write_parquet(copy / "predictions.parquet")
    analysis = analyse_errors(read_trained_run(copy), artifacts)
    n, pictured = len(asked), {q.question_id for q in asked if "question" in q.image_roles}
    seeing = [q for q in asked if q.question_id not in pictured]
    blind = sum(q.answer == 0 for q in asked if q.question_id in pictured)
    right_unseen = blind + sum(q.question_id != spoiled for q in seeing)
    counts = {name: each.correct.count for name, each in analysis.overall.conditions.items()}
    assert counts == {
        "as_run": n - 1,
        "gold_rationale": n,
        "no_picture": right_unseen,
        "no_picture_in_answer": right_unseen,
    }
    assert (analysis.num_unlike, analysis.overall.num_pictures) == (0, len(pictured))
    assert analysis.overall.differs_in_wrong.count == analysis.overall.differs_in_wrong.of == 1
    assert analysis.overall.differs_in_right.count == 0
    rows = pl.read_parquet(copy / "error_analysis.parquet")
    assert len(rows) == 4 * n
    texts = {
        (row["condition"], row["question_id"]): row["rationale"]
        for row in rows.iter_rows(named=True)
    }
    for question in asked:
        key = question.question_id
        without = "Solution: blind 0" if key in pictured else written[key]
        assert texts["as_run", key] == texts["no_picture_in_answer", key] == written[key]
        assert texts["gold_rationale", key] == gold[key]
        assert texts["no_picture", key] == without


def conditions_of(run):
    return list(json.loads((run / "error_analysis.json").read_text())["conditions"])


def test_each_kind_of_run_has_its_conditions(runs, capsys):
    """Catches rationales from elsewhere that are written anew, and pictures of text-only runs."""
    assert main([str(runs / "two"), "--error-analysis"]) == 0
    names = ["as_run", "gold_rationale", "no_picture", "no_picture_in_answer"]
    assert conditions_of(runs / "two") == names
    printed = capsys.readouterr()
    assert re.search(r"\| same rationale, no picture +\| 22 ", printed.out)
    assert "others here than in its predictions" not in printed.err
    assert main([str(runs / "given"), "--error-analysis"]) == 0
    assert conditions_of(runs / "given") == ["as_run", "gold_rationale", "no_picture_in_answer"]
    assert main([str(runs / "zeros"), "--error-analysis"]) == 0
    assert conditions_of(runs / "zeros") == ["as_run", "no_picture"]
    capsys.readouterr()
    assert main([str(runs / "text"), "--error-analysis"]) == 1
    assert "reads neither rationales nor pictures" in capsys.readouterr().err


def test_a_run_without_an_answer_stage_is_explained(runs, tmp_path, capsys):
    """Its rationales are scored, and are no wrong answers."""
    output = tmp_path / "scores.json"
    assert main([str(runs / "why"), "--json", str(output)]) == 0
    printed = capsys.readouterr()
    assert "has no answer stage (it was trained with --stage rationale): only its" in printed.err
    assert "there are no answers to score" in printed.out
    scores = json.loads(output.read_text())
    assert scores["answer"]["acc_average"] is None
    assert scores["rationale"]["rouge"] is not None or scores["rationale"]["bleu1"] is not None
    assert main([str(runs / "why"), "--error-analysis"]) == 1
    assert "has no answers to analyse" in capsys.readouterr().err
    assert main([str(runs / "why"), "--paper"]) == 1
    assert "--paper compares answers" in capsys.readouterr().err
    assert main([str(runs / "zeros"), "--teacher-forced"]) == 1
    assert "has no rationale stage" in capsys.readouterr().err


def test_rationales_of_stage_1_are_exported_for_the_reference(runs, asked, tmp_path):
    path = tmp_path / "predictions_ans_test.json"
    assert main([str(runs / "why"), "--export-reference", str(path)]) == 0
    content = json.loads(path.read_text())
    rationales = pl.read_parquet(runs / "why" / "rationales.parquet")
    by_id = dict(zip(rationales["question_id"], rationales["rationale"], strict=True))
    assert content["preds"] == [by_id[q.question_id] for q in asked]
    assert content["labels"] == [gold_rationale(q, "QCM-E") for q in asked]


def test_a_given_stage_must_be_the_one_that_was_tested(artifacts, runs, tmp_path, capsys):
    """Catches counts of a model that was trained anew, or moved, since the run was tested."""
    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(runs / "two" / "answer", model)
    shutil.copytree(runs / "given", run)
    config = json.loads((run / "config.json").read_text()) | {"answer_model": str(model)}
    (run / "config.json").write_text(json.dumps(config))
    weights = model / "model.safetensors"
    before = weights.read_bytes()
    assert main([str(run), "--error-analysis"]) == 0
    capsys.readouterr()
    weights.write_bytes((runs / "zeros" / "answer" / "model.safetensors").read_bytes())
    assert main([str(run), "--error-analysis"]) == 1
    expected, found = (hashlib.sha256(each).hexdigest() for each in (before, weights.read_bytes()))
    message = f"expected weights with the sha256 {expected} (model.safetensors), found {found}"
    assert message in capsys.readouterr().err
    weights.unlink()
    with pytest.raises(TrainingError, match=r"\(model.safetensors\), found none"):
        analyse_errors(read_trained_run(run), artifacts)


def test_teacher_forcing_asks_the_stage_that_was_tested(runs, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(runs / "why", run)
    assert main([str(run), "--teacher-forced"]) == 0
    config = json.loads((run / "config.json").read_text())
    config["rationale_model"] = str(runs / "zeros" / "answer")
    (run / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert main([str(run), "--teacher-forced"]) == 1
    assert "is not what the run was tested with" in capsys.readouterr().err


def test_features_are_looked_for_where_the_run_says_they_were(runs, artifacts, asked, tmp_path):
    """Catches two truths: run.json, from which mmcot-predict reads, and config.json."""
    run = tmp_path / "run"
    shutil.copytree(runs / "zeros", run)
    described = json.loads((run / "run.json").read_text())
    shutil.copytree(artifacts / "tiny", tmp_path / "moved")
    described["features"] = [str(tmp_path / "moved")]
    (run / "run.json").write_text(json.dumps(described))
    sources = open_sources(read_trained_run(run), artifacts, asked)
    assert [str(place) for place in sources.features.places] == described["features"]


def test_a_missing_picture_names_the_artifact_root_that_was_given(runs, asked, tmp_path):
    other = tmp_path / "other"
    run = read_trained_run(runs / "zeros")
    stranger = replace(next(q for q in asked if q.image_roles), question_id="stranger")
    with pytest.raises(TrainingError, match=f"questions in {re.escape(str(other))} have"):
        open_sources(run, other, [stranger])


def test_a_plain_t5_is_no_trained_stage(runs, artifacts, asked, tmp_path):
    """Catches fusion layers that are drawn anew, and then counted as the run's."""
    source = {"features": read_trained_run(runs / "two").open_features(), "captions": None}
    run = tmp_path / "run"
    shutil.copytree(runs / "two", run)
    path = run / "answer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "t5"}))
    with pytest.raises(TrainingError, match="is a plain T5 that has never seen a feature"):
        TrainedStage(read_trained_run(run), "answer", StageSources(**source))


def stage_of(runs, name, stage, artifacts, asked):
    run = read_trained_run(runs / name)
    return TrainedStage(run, stage, open_sources(run, artifacts, asked))


@pytest.mark.parametrize("name", ["two", "zeros"])
def test_no_picture_is_what_a_question_without_one_gets(runs, artifacts, asked, name):
    """Text alone for our models; zero features through all fusion layers for the reference's."""
    stage = stage_of(runs, name, "answer", artifacts, asked)
    asked = [q for q in asked if q.question_id in stage.sources.features]
    with torch.no_grad():  # the model is all but untrained: make pictures matter
        for weight in stage.model.encoder.parameters():
            weight.mul_(3)
    rationales = (
        {q.question_id: f"Solution: {q.solution}" for q in asked} if name == "two" else None
    )
    collate = stage._collator(pictures=False)
    examples = tokenize_sources(
        stage.tokenizer, stage._inputs(asked, rationales), stage.run.config
    ).examples
    batch = collate(examples)
    labels_BT = torch.full((len(examples), 2), 3)
    given = {key: value for key, value in batch.items() if not key.startswith(("image", "labels"))}
    with torch.no_grad():
        found = stage.model(**batch | {"labels": labels_BT}).logits
        pictures = stage.model(**stage._collator(pictures=True)(examples) | {"labels": labels_BT})
        if name == "two":
            expected = stage.model(**given, labels=labels_BT).logits
        else:
            layout = stage.sources.features.layout
            zeros = torch.zeros(len(examples), layout.num_patches, layout.patch_dim)
            expected = stage.model(**given, image_features=zeros, labels=labels_BT).logits
    torch.testing.assert_close(found, expected)
    assert (found - pictures.logits).abs().max() > 1e-4
    texts = stage.write(asked, rationales, title="", pictures=False)
    if name == "two":
        without = Collator(stage.tokenizer.pad_token_id, None, pad_multiple=1)
        written = generate(
            stage.model, stage.tokenizer, examples, without, max_new_tokens=8, batch_size=64
        )
        assert texts == {each.question_id: each.text for each in written}


def test_teacher_forced_texts_are_the_best_guesses_after_gold_tokens(runs, artifacts, asked):
    """Token by token: decoder runs on a growing gold prefix, with no help from labels."""
    stage = stage_of(runs, "two", "rationale", artifacts, asked)
    asked = asked[:3]
    with torch.no_grad():
        stage.model.lm_head.weight.copy_(torch.randn_like(stage.model.lm_head.weight))
    found = stage.teacher_forced(asked, title="")
    for question in asked:
        ids = stage.tokenizer(gold_rationale(question, "QCM-E")).input_ids
        limit = stage.run.config.max_target("rationale")
        gold = [*ids[: limit - 1], ids[-1]] if len(ids) > limit else ids
        example = tokenize_sources(
            stage.tokenizer, stage._inputs([question], None), stage.run.config
        ).examples
        batch = stage._collator(pictures=True)(example)
        del batch["labels"]
        guesses = []
        for place in range(len(gold)):
            prefix = torch.tensor([[stage.tokenizer.pad_token_id, *gold[:place]]])
            with torch.no_grad():
                logits = stage.model(**batch, decoder_input_ids=prefix).logits[0, -1]
            guesses.append(int(F.softmax(logits, dim=-1).argmax()))
        text = stage.tokenizer.decode(guesses, skip_special_tokens=True).strip()
        assert found[question.question_id] == text
    assert any(np.char.str_len(list(found.values())) > 0)


def test_teacher_forced_score_stands_apart(runs, tmp_path, capsys):
    """Catches the easier figure in the place of the one for generated rationales."""
    plain, forced = tmp_path / "plain.json", tmp_path / "forced.json"
    assert main([str(runs / "two"), "--json", str(plain)]) == 0
    assert "Teacher-forced" not in capsys.readouterr().out
    assert main([str(runs / "two"), "--teacher-forced", "--json", str(forced)]) == 0
    printed = capsys.readouterr().out
    assert "Teacher-forced rationales: BLEU-1 " in printed
    assert "Not what the model writes" in printed
    before, after = json.loads(plain.read_text()), json.loads(forced.read_text())
    extra = after.pop("teacher_forced_rationale")
    assert after == before
    assert set(extra) == {"bleu1", "bleu4", "rouge", "what"}
