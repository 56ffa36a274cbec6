"""Lengths in tokens, and what is cut off, are what the model's own tokenizer makes of the texts."""

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer

from mmcot_data.cli import main
from mmcot_data.errors import DataError
from mmcot_data.inputs import model_inputs
from mmcot_data.prompts import parse_answer, rationale_target
from mmcot_data.questions import Question, write_questions
from mmcot_data.rationales import Rationale, write_rationales
from mmcot_data.tokenizers import load_tokenizer
from mmcot_data.tokens import encode_texts
from mmcot_model.tokenizer import train_tokenizer

TEXTS = [
    "Question: Which is farther north? Context: N/A Options: (A) Lund (B) Åbo Answer:",
    "Solution: It's farther north, as the arrow says so.",
    "日本 ½ ﬁ",
]
QUESTION = Question(
    dataset="hand",
    question_id="7",
    split="train",
    position=0,
    question="Which is farther north?",
    choices=("Lund", "Åbo"),
    answer=1,
    lecture="L.",
    solution="S.",
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 30, 600)


@settings(deadline=None)
@given(st.text(alphabet="ab Åé½日\t(", max_size=40), st.integers(2, 12))
def test_tokens_are_those_that_the_tokenizer_truncates_to(tokenizer, text, limit):
    """The report must describe what training sees: the tokenizer's own truncation."""
    (found,) = encode_texts(tokenizer, [text], limit)
    assert found.ids == tokenizer(text, truncation=True, max_length=limit)["input_ids"]
    assert found.num_tokens == len(tokenizer(text)["input_ids"])
    assert found.seen + found.cut == text
    if found.num_tokens <= limit:
        assert found.cut == ""


def test_what_is_cut_is_the_end_of_the_text(tokenizer):
    """An offset by one token would hide what is lost. Every limit of a text is tried."""
    text = TEXTS[0]
    pieces = tokenizer(text, return_offsets_mapping=True)["offset_mapping"][:-1]
    for limit in range(2, len(pieces) + 1):
        (found,) = encode_texts(tokenizer, [text], limit)
        assert found.cut == text[pieces[limit - 2][1] :]
        assert found.cut


def test_the_command_writes_lengths_and_says_what_is_cut(tokenizer, tmp_path, capsys):
    """People look at this before they train: the counts must be those of the texts."""
    write_questions(tmp_path / "questions.parquet", [QUESTION])
    (tmp_path / "run" / "rationale").mkdir(parents=True)
    tokenizer.save_pretrained(tmp_path / "run" / "rationale")
    out = tmp_path / "inputs.parquet"
    arguments = ["inputs", str(tmp_path), "--stage", "rationale", "--out", str(out)]
    arguments += ["--tokenizer", str(tmp_path / "run"), "--max-source", "5"]
    arguments += ["--truncation", "right"]
    assert main(arguments) == 0
    (row,) = pl.read_parquet(out).iter_rows(named=True)
    assert row["source_tokens"] == len(tokenizer(row["source"])["input_ids"])
    assert row["target_tokens"] == len(tokenizer(row["target"])["input_ids"])
    assert row["source_seen"] + row["source_cut"] == row["source"]
    assert row["source_cut"].endswith("Solution:")
    assert row["target_cut"] == ""
    printed = capsys.readouterr().out
    assert "as QCM-E" in printed
    assert f"sources: median {row['source_tokens']} tokens" in printed
    assert "1 of 1 sources is longer than 5 tokens: it is cut off at the end, " in printed


def test_stage_and_format_have_to_agree(tmp_path, capsys):
    """`--stage answer --prompt-format QCM-E` would silently show the other stage's texts."""
    write_questions(tmp_path / "questions.parquet", [QUESTION])
    out = tmp_path / "x.jsonl"
    for arguments, message in (
        (["--stage", "answer", "--prompt-format", "QCM-E"], "--stage answer takes"),
        ([], "give --stage, --prompt-format, or both"),
        (["--stage", "answer", "--max-source", "0"], "expected at least 1"),
    ):
        with pytest.raises(SystemExit) as exit_info:
            main(["inputs", str(tmp_path), "--out", str(out), *arguments])
        assert exit_info.value.code == 2
        assert message in capsys.readouterr().err
    assert main(["inputs", str(tmp_path), "--out", str(out), "--stage", "answer"]) == 0
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["source"].endswith("Solution: S. Answer:"), "what mmcot-train shows"
    assert set(row) == {"question_id", "source", "target"}
    for more in (["--gold", "QCM-LE", "--stage", "answer"], ["--prompt-format", "QCMG-A"]):
        assert main(["inputs", str(tmp_path), "--out", str(out), *more]) == 0
        assert json.loads(out.read_text())["source"].endswith("Solution: L. S. Answer:")


def test_a_tokenizer_that_is_not_there_is_explained(tmp_path):
    """A traceback of a library would not say what was expected."""
    with pytest.raises(DataError, match="holds no tokenizer, and no stage answer or rationale"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(DataError, match="nothing does not exist: expected a model's folder"):
        load_tokenizer(f"{tmp_path}/nothing")
    (tmp_path / "answer").mkdir()
    with pytest.raises(DataError, match="cannot load the tokenizer"):
        load_tokenizer(str(tmp_path))


def test_targets_of_a_table_are_rows_of_their_own(tmp_path, capsys):
    """Each kept sample is what the student learns; none may show the gold solution instead."""
    write_questions(tmp_path / "questions.parquet", [QUESTION])
    rows = [
        Rationale(question_id="7", sample=n, rationale=f"Solution: r{n}.", answer=a, kept=kept,
                  prompt_format="zero-shot-cot")
        for n, (a, kept) in enumerate([(0, True), (1, False), (None, True)])
    ]  # fmt: skip
    write_rationales(tmp_path / "rationales" / "t.parquet", rows, {})
    out = tmp_path / "x.jsonl"
    arguments = ["inputs", str(tmp_path), "--out", str(out), "--target-rationales", "t"]
    assert main([*arguments, "--prompt-format", "QCM-LEA"]) == 0
    targets = [json.loads(line)["target"] for line in out.read_text().splitlines()]
    assert targets == ["r0. The answer is (A).", "r2. The answer is (B)."]
    assert "2 rows of 1 of 1 questions" in capsys.readouterr().out
    assert main([*arguments, "--prompt-format", "QCMG-A"]) == 1
    assert "writes no rationale in QCMG-A" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompt_format", "target"),
    [
        ("QCM-E", "Solution: It floats."),
        ("QCM-LE", "Solution: It floats."),
        ("QCM-LEA", "It floats. The answer is (A)."),
        ("QCM-ALE", "The answer is (A). BECAUSE: It floats."),
    ],
)
def test_a_given_rationale_takes_the_form_of_its_format(prompt_format, target):
    """The student must learn the form in which its answers are parsed later."""
    assert rationale_target(QUESTION, prompt_format, "Solution: It\nfloats.", 0) == target
    gold = model_inputs([QUESTION], prompt_format)[0].target
    assert gold is not None
    assert gold.startswith("Solution:") == target.startswith("Solution:")


@pytest.mark.parametrize("end", ["The answer is (B).", "So the answer is B", "the answer is (B)"])
def test_an_answer_that_ends_a_rationale_is_not_written_twice(end):
    """Few-shot teachers end so; a student that writes it twice could not be parsed."""
    target = rationale_target(QUESTION, "QCM-LEA", f"Solution: It floats. {end}", 1)
    assert target == "It floats. The answer is (B)."
    assert parse_answer(target, 2) == 1


def test_a_tokenizer_without_offsets_is_measured_by_its_tokens():
    """ByT5's tokens are bytes: eight of them end the eighth byte short of the end of the text."""
    tokenizer = ByT5Tokenizer()
    cut, whole = encode_texts(tokenizer, ["abcdefghij", "abc"], 8)
    assert cut.ids == tokenizer("abcdefg")["input_ids"]
    assert (cut.num_tokens, cut.seen, cut.cut) == (11, "abcdefg", "hij")
    assert (whole.num_tokens, whole.seen, whole.cut) == (4, "abc", "")
