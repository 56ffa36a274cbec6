"""Rationales by trained models, and training on rationales of a table."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from mmcot_data.captions import Caption, write_captions
from mmcot_data.cli import main as data_main
from mmcot_data.questions import read_questions, select_split
from mmcot_data.rationales import Rationale, read_rationales, write_rationales
from mmcot_data.sample import draw_sample
from mmcot_model.cli.train import main as train_main
from mmcot_model.producers.kfold import fold_of
from mmcot_model.runs.folder import locked_folder

QUICK = ["--max-steps", "4", "--batch-size", "8", "--max-rationale", "12"]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_sample(folder / "data", num_questions=120, num_workers=1)
    out = folder / "shards"
    assert data_main(["extract", str(folder / "data"), "--encoder", "tiny", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def run(artifacts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "stage1"
    assert train(artifacts, folder, "--stage", "rationale") == 0
    return folder


def train(artifacts: Path, output: Path, *more: str) -> int:
    features = ["--features", str(artifacts / "tiny")]
    return train_main([*features, "--output", str(output), *QUICK, "--max-answer", "8", *more])


def stage1(artifacts: Path, run: Path, *more: str) -> int:
    return data_main(["rationales", "stage1", str(artifacts), "--run", str(run), *more])


def test_stage1_writes_what_the_run_wrote_itself(artifacts, run, capsys):
    """Another source text, picture or limit than in the run would give other rationales."""
    assert stage1(artifacts, run, "--split", "test") == 0
    path = artifacts / "rationales" / "stage1.parquet"
    own = pl.read_parquet(run / "rationales.parquet")
    assert pl.read_parquet(path).equals(own)
    before = path.stat().st_ino
    assert stage1(artifacts, run, "--split", "test") == 0
    assert "all of it was there already" in capsys.readouterr().out
    assert path.stat().st_ino == before
    assert stage1(artifacts, run) == 0
    table = pl.read_parquet(path)
    assert table["question_id"].to_list() == [q.question_id for q in read_questions(artifacts)]
    assert table.filter(pl.col("question_id").is_in(own["question_id"].to_list())).equals(own)


def test_samples_can_be_added_and_do_not_depend_on_those_before(artifacts, run):
    """A restart, or another number of samples, must not change a sample that is the same."""
    arguments = ["--split", "val", "--temperature", "1.5", "--seed", "3"]
    assert stage1(artifacts, run, *arguments, "--samples", "2", "--producer", "two") == 0
    assert stage1(artifacts, run, *arguments, "--samples", "2", "--batch-size", "3",
                  "--producer", "again") == 0  # fmt: skip
    assert stage1(artifacts, run, *arguments, "--producer", "grown") == 0
    assert stage1(artifacts, run, *arguments, "--samples", "2", "--producer", "grown") == 0
    two, again, grown = (
        pl.read_parquet(artifacts / "rationales" / f"{name}.parquet")
        for name in ("two", "again", "grown")
    )
    assert two.equals(grown)
    assert two.equals(again)
    first, second = (two.filter(pl.col("sample") == sample)["rationale"] for sample in (0, 1))
    assert (first != second).any()


def test_other_weights_or_sampling_do_not_continue_a_table(artifacts, run, tmp_path, capsys):
    """Rationales of two models in one table would be of unknown origin."""
    assert stage1(artifacts, run, "--split", "val", "--producer", "greedy") == 0
    assert stage1(artifacts, run, "--temperature", "1", "--producer", "greedy") == 1
    assert "temperature was 0.0, now 1.0" in capsys.readouterr().err
    other = shutil.copytree(run, tmp_path / "other")
    weights = other / "rationale" / "model.safetensors"
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    save_file(tensors | {name: tensors[name] + 1}, weights, {"format": "pt"})
    assert stage1(artifacts, other, "--producer", "greedy") == 1
    assert "weights_sha256 was" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_info:
        stage1(artifacts, run, "--samples", "3")
    assert exit_info.value.code == 2
    assert "would all be the same" in capsys.readouterr().err


def test_what_has_no_stage_1_is_refused(artifacts, tmp_path, capsys):
    """An answer model would write answers where rationales are asked for."""
    assert train(artifacts, tmp_path / "direct", "--stage", "answer") == 0
    assert stage1(artifacts, tmp_path / "direct") == 1
    assert "is no trained stage 1" in capsys.readouterr().err
    assert stage1(artifacts, tmp_path / "nothing") == 1
    assert "expected the output folder of an mmcot-train" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_stage1_goes_on_and_ends_as_if_undisturbed(artifacts, run):
    """Rows that were written before the kill must be kept and the table must be the same."""
    arguments = ["rationales", "stage1", str(artifacts), "--run", str(run), "--batch-size", "4"]
    command = [sys.executable, "-c", "import sys; from mmcot_data.cli import main; "
               "sys.exit(main(sys.argv[1:]))", *arguments]  # fmt: skip
    journal = artifacts / "rationales" / ".killed.journal.jsonl"
    process = subprocess.Popen([*command, "--producer", "killed"], stderr=subprocess.DEVNULL)
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 4):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (artifacts / "rationales" / "killed.parquet").exists()
    assert stage1(artifacts, run, "--batch-size", "4", "--producer", "killed") == 0
    assert stage1(artifacts, run, "--batch-size", "4", "--producer", "quiet") == 0
    killed, quiet = (
        pl.read_parquet(artifacts / "rationales" / f"{name}.parquet")
        for name in ("killed", "quiet")
    )
    assert killed.equals(quiet)


@pytest.fixture(scope="module")
def kfold(artifacts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kfold")
    assert run_kfold(artifacts, folder) == 0
    return folder


def run_kfold(artifacts: Path, output: Path, *more: str) -> int:
    return data_main(
        ["rationales", "stage1-kfold", str(artifacts), "--features", str(artifacts / "tiny"),
         "--folds", "3", "--output", str(output), *QUICK, *more]
    )  # fmt: skip


def test_no_model_of_kfold_has_seen_what_it_writes_about(artifacts, kfold):
    """The point of it: a question in the training set of its own model is a leak."""
    questions = read_questions(artifacts)
    train_ids = [q.question_id for q in select_split(questions, "train")]
    table = read_rationales(artifacts / "rationales" / "stage1-kfold.parquet", questions)
    assert [row.question_id for row in table] == train_ids
    by_id = {q.question_id: q for q in questions}
    texts = {}
    for fold in range(3):
        folder = kfold / f"fold-{fold}-of-3"
        written = read_rationales(folder / "rationales.parquet", questions)
        assert {fold_of(by_id[row.question_id], 3) for row in written} == {fold}
        texts |= {row.question_id: row.rationale for row in written}
    assert texts == {row.question_id: row.rationale for row in table}


def test_a_fold_is_trained_on_the_other_folds_only(artifacts, tmp_path, monkeypatch):
    """Checked where the examples reach the trainer, not where they are chosen."""

    from mmcot_model.runs import stages

    seen = []
    train_stage = stages.train_stage

    def spy(model, tokenizer, examples, *more):
        seen.append({example.question_id for example in examples})
        return train_stage(model, tokenizer, examples, *more)

    monkeypatch.setattr(stages, "train_stage", spy)
    assert run_kfold(artifacts, tmp_path, "--producer", "spied") == 0
    train_split = select_split(read_questions(artifacts), "train")
    every = {q.question_id for q in train_split}
    for fold, ids in enumerate(seen):
        assert ids == every - {q.question_id for q in train_split if fold_of(q, 3) == fold}
    assert len(seen) == 3


def test_kfold_is_not_made_twice(artifacts, kfold, capsys):
    """A rerun must train nothing, also where the folds' models are deleted."""
    assert run_kfold(artifacts, kfold / "elsewhere") == 0
    assert "all of it was there already" in capsys.readouterr().out
    assert not (kfold / "elsewhere").exists()
    assert run_kfold(artifacts, kfold / "elsewhere", "--seed", "1") == 1
    assert "was made with other settings or inputs" in capsys.readouterr().err
    assert not (kfold / "elsewhere").exists(), "refused before anything is trained"
    assert run_kfold(artifacts, kfold / "elsewhere", "--folds", "500", "--producer", "x") == 1
    assert "a fold would be empty" in capsys.readouterr().err


def test_stage_2_learns_from_the_given_rationales(artifacts, kfold, run, tmp_path, monkeypatch):
    """With gold rationales in place of generated ones the mismatch would come back unseen."""

    from mmcot_model.runs import stages

    seen = {}
    tokenize = stages.tokenize

    def spy(tokenizer, inputs, **limits):
        seen.setdefault(len(seen), list(inputs))
        return tokenize(tokenizer, inputs, **limits)

    monkeypatch.setattr(stages, "tokenize", spy)
    assert stage1(artifacts, run, "--split", "test", "--producer", "tested") == 0
    options = ["--stage", "answer", "--prompt-format", "QCMG-A", "--rationales", "tested"]
    assert train(artifacts, tmp_path / "r", *options, "--train-rationales", "stage1-kfold") == 0
    questions = read_questions(artifacts)
    table = read_rationales(artifacts / "rationales" / "stage1-kfold.parquet", questions)
    given = {row.question_id: " ".join(f"{row.rationale} Answer:".split()) for row in table}
    assert all(text.source.endswith(given[text.question_id]) for text in seen[0])
    assert len(seen[0]) == len(given)


def test_a_student_learns_what_the_teacher_wrote(artifacts, tmp_path, monkeypatch, caplog):
    """Fine-tune-CoT: kept samples are the targets, each an example; others are left out."""

    questions = read_questions(artifacts)
    first, second, third = select_split(questions, "train")[:3]
    rows = [
        (first, 0, "Solution: because of a.", 1, True),
        (first, 1, "Solution: because of b.", 0, True),
        (second, 0, "Solution: wrong.", 1, False),
        (third, 0, "Solution: because of c.", 1, True),
    ]
    write_rationales(
        artifacts / "rationales" / "teacher.parquet",
        [
            Rationale(
                question_id=q.question_id,
                sample=sample,
                rationale=text,
                answer=answer,
                kept=kept,
                prompt_format="zero-shot-cot",
            )
            for q, sample, text, answer, kept in rows
        ],
        {},
    )
    from mmcot_model.runs import stages

    seen = []
    tokenize = stages.tokenize

    def spy(tokenizer, inputs, **limits):
        seen.append([(text.question_id, text.target) for text in inputs])
        return tokenize(tokenizer, inputs, **limits)

    monkeypatch.setattr(stages, "tokenize", spy)
    one = ["--stage", "answer", "--prompt-format", "QCM-LEA", "--target-rationales", "teacher"]
    assert train(artifacts, tmp_path / "one", *one) == 0
    a, c = first.question_id, third.question_id
    assert seen[0] == [
        (a, "because of a. The answer is (B)."),
        (a, "because of b. The answer is (A)."),
        (c, "because of c. The answer is (B)."),
    ]
    assert "are left out of the training" in caplog.text
    seen.clear()
    assert train(artifacts, tmp_path / "two", "--target-rationales", "teacher") == 0
    targets = [f"Solution: because of {x}." for x in "abc"]
    assert [text for _, text in seen[0]] == targets
    with pytest.raises(SystemExit):
        train(artifacts, tmp_path / "three", "--stage", "answer", "--target-rationales", "teacher")


def test_marks_do_not_choose_what_a_question_is_tested_with(artifacts, tmp_path):
    """The rule `correct` knows the answer: with its choice the test would be best-of-n by gold."""
    questions = read_questions(artifacts)
    rows = [
        Rationale(question_id=q.question_id, sample=sample, rationale=f"Solution: {text}.",
                  kept=kept, prompt_format="QCM-E")
        for q in questions
        for sample, text, kept in ((0, "wrong", False), (1, "right", True))
    ]  # fmt: skip
    write_rationales(artifacts / "rationales" / "marked.parquet", rows, {})
    options = ["--stage", "answer", "--prompt-format", "QCMG-A", "--rationales", "marked"]
    assert train(artifacts, tmp_path / "r", *options) == 0
    predictions = pl.read_parquet(tmp_path / "r" / "predictions.parquet")
    assert set(predictions["rationale"]) == {"Solution: wrong."}
    out = tmp_path / "inputs.jsonl"
    inputs = ["inputs", str(artifacts), "--stage", "answer", "--rationales", "marked"]
    for split, text in (("test", "wrong"), ("train", "right")):
        assert data_main([*inputs, "--split", split, "--out", str(out)]) == 0
        sources = [json.loads(line)["source"] for line in out.read_text().splitlines()]
        assert all(source.endswith(f"Solution: {text}. Answer:") for source in sources)


def test_a_table_of_the_wrong_split_is_noticed_before_training(artifacts, kfold, tmp_path, capsys):
    """Found after the answer stage was trained, it would cost all of that time."""
    options = ["--stage", "answer", "--prompt-format", "QCMG-A", "--rationales", "stage1-kfold"]
    assert train(artifacts, tmp_path / "r", *options) == 1
    assert "25 of 25 questions of test" in capsys.readouterr().err
    assert not (tmp_path / "r" / "answer").exists()


def test_gold_rationales_in_a_test_are_announced(artifacts, tmp_path, caplog):
    """An upper bound must not pass for a result."""
    assert data_main(["rationales", "gold", str(artifacts)]) == 0
    options = ["--stage", "answer", "--prompt-format", "QCMG-A", "--rationales", "gold"]
    assert train(artifacts, tmp_path / "r", *options) == 0
    assert "the scores are an upper bound" in caplog.text


def test_what_stage_2_learns_from_does_not_shrink_stage_1(artifacts, tmp_path, monkeypatch):
    """Few rationales for stage 2 once left stage 1 with as few questions."""

    questions = select_split(read_questions(artifacts), "train")
    rows = [
        Rationale(question_id=q.question_id, rationale="Solution: x.", prompt_format="QCM-E")
        for q in questions[:5]
    ]
    write_rationales(artifacts / "rationales" / "few.parquet", rows, {})
    from mmcot_model.runs import stages

    seen = []
    train_stage = stages.train_stage

    def spy(model, tokenizer, examples, *more):
        seen.append(len(examples))
        return train_stage(model, tokenizer, examples, *more)

    monkeypatch.setattr(stages, "train_stage", spy)
    assert train(artifacts, tmp_path / "r", "--train-rationales", "few") == 0
    assert seen == [len(questions), 5]


def test_two_processes_do_not_make_one_run(artifacts, tmp_path, capsys):
    """The second would write its settings over those of the first."""
    with locked_folder(tmp_path / "r"):
        assert train(artifacts, tmp_path / "r") == 1
    assert "is being made by another process" in capsys.readouterr().err
    assert not (tmp_path / "r" / "config.json").exists()
    assert train(artifacts, tmp_path / "r", "--stage", "rationale") == 0


def test_edited_questions_do_not_keep_their_rationales(artifacts, run, tmp_path, capsys):
    """A rationale of another text of the question would be joined to the new one by its id."""
    root = shutil.copytree(artifacts, tmp_path / "root")
    shutil.rmtree(root / "rationales")
    assert stage1(root, run, "--split", "val") == 0
    path = root / "questions.parquet"
    table = pl.read_parquet(path).with_columns(question=pl.lit("Other? ") + pl.col("question"))
    table.write_parquet(path)
    assert stage1(root, run, "--split", "val") == 1
    assert "questions_sha256 was" in capsys.readouterr().err


def test_features_of_another_kind_are_refused(artifacts, run, tmp_path, capsys):
    """A model reads nonsense from features of another preprocessing, without any error."""
    data = tmp_path / "data"
    draw_sample(data, num_questions=120, num_workers=1)
    out = tmp_path / "other"
    extract = ["extract", str(data), "--encoder", "tiny", "--out", str(out), "--alpha", "drop"]
    assert data_main(extract) == 0
    arguments = ["--features", str(out / "tiny"), "--producer", "x"]
    assert stage1(artifacts, run, *arguments) == 1
    assert "made in another way" in capsys.readouterr().err
    unfinished = shutil.copytree(run, tmp_path / "unfinished")
    (unfinished / "run.json").unlink()
    assert stage1(artifacts, unfinished, *arguments) == 1
    assert "not the features that" in capsys.readouterr().err


def test_captions_of_another_data_set_are_refused(artifacts, tmp_path, capsys):
    """They would be ignored in silence, and the run called one with captions."""
    path = artifacts / "captions" / "strange.parquet"
    write_captions(path, [Caption(question_id="nobody", caption="x")], {})
    assert train(artifacts, tmp_path / "r", "--captions", "strange") == 1
    assert "1 captions are for unknown questions" in capsys.readouterr().err


def test_the_choice_of_rationales_stands_in_the_run(artifacts, kfold, tmp_path):
    """A run must say by which tables it was trained, with their digests."""
    folder = tmp_path / "r"
    assert train(artifacts, folder, "--train-rationales", "stage1-kfold") == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["train_rationales"] == "stage1-kfold"
    assert len(json.loads((folder / "run.json").read_text())["sha256"]["train_rationales"]) == 64
