"""Rationales of other programs, marks, votes and counts, checked against hand-made answers."""

import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcot_data.cli import main
from mmcot_data.errors import DataError
from mmcot_data.questions import Question, write_questions
from mmcot_data.rationale_coverage import rationale_coverage
from mmcot_data.rationale_imports import import_rationales
from mmcot_data.rationale_votes import vote
from mmcot_data.rationales import (
    Rationale,
    kept_marks,
    majority_answers,
    read_rationales,
    write_rationales,
)
from mmcot_data.text_artifacts import locked_artifact, read_made_by

SPLITS = {"9": ("test", 0), "10": ("test", 1), "3": ("test", 2), "4": ("train", 0)}
QUESTIONS = [
    Question(
        dataset="hand",
        question_id=question_id,
        split=split,
        position=position,
        question=f"q{question_id}?",
        choices=("yes", "no", "perhaps"),
        answer=None if question_id == "3" else 1,
        lecture="L.",
        solution="" if question_id == "4" else "S.",
    )
    for question_id, (split, position) in SPLITS.items()
]


def row(question_id="9", sample=0, answer=None, correct=None, kept=True, text="Solution: t"):
    return Rationale(
        question_id=question_id,
        sample=sample,
        rationale=text,
        answer=answer,
        correct=correct,
        kept=kept,
        prompt_format="QCM-E",
    )


@pytest.fixture
def root(tmp_path) -> Path:
    write_questions(tmp_path / "questions.parquet", QUESTIONS)
    return tmp_path


def imported(path, content, **options):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return import_rationales(path, QUESTIONS, **options)


def test_a_list_without_ids_takes_those_of_the_split_in_its_official_order(tmp_path):
    """Multimodal-CoT joins by position; sorted ids ("10" before "9") would swap rationales."""
    file = {"preds": ["Solution: a", " b\nc ", ""], "num_fail": 0}
    rows = imported(tmp_path / "p.json", file, prompt_format="QCM-E", split="test")
    assert [(r.question_id, r.rationale) for r in rows] == [
        ("9", "Solution: a"),
        ("10", "Solution: b c"),
        ("3", "Solution:"),
    ]
    with pytest.raises(DataError, match="say with --split"):
        imported(tmp_path / "p.json", file, prompt_format="QCM-E")
    with pytest.raises(DataError, match=r"3 predictions, the split train .* has 1 questions"):
        imported(tmp_path / "p.json", file, prompt_format="QCM-E", split="train")


def test_a_list_whose_own_labels_contradict_the_order_is_refused(tmp_path):
    """The right number of predictions in another order: each rationale would be another's."""
    questions = [
        Question(
            dataset="hand", question_id=str(number), split="test", position=number, question="q?",
            choices=("yes", "no"), answer=0, solution=f"Because of\n{'abcdefghij'[number] * 3}°.",
        )
        for number in range(10)
    ]  # fmt: skip
    # as T5 writes them back: without backslash and degree, and cut off
    labels = [f"Solution: Because ofn{'abcdefghij'[n] * 3}" for n in range(10)]
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"preds": labels, "labels": labels}))
    assert len(import_rationales(path, questions, prompt_format="QCM-E", split="test")) == 10
    path.write_text(json.dumps({"preds": labels[::-1], "labels": labels[::-1]}))
    with pytest.raises(DataError, match="labels of 10 of 10 questions are not the gold texts"):
        import_rationales(path, questions, prompt_format="QCM-E", split="test")
    path.write_text(json.dumps({"preds": labels, "labels": labels[:9]}))
    with pytest.raises(DataError, match="labels: expected a list of as many"):
        import_rationales(path, questions, prompt_format="QCM-E", split="test")


def test_answers_stand_beside_the_rationale_not_in_it(tmp_path):
    """GPT-3's files answer first and without parentheses; stage 2 must not be shown the answer."""
    file = {
        "outputs": {
            "9": "The answer is B. BECAUSE: it\nfloats.",
            "10": "The answer is (C). BECAUSE: no.",
            "3": "no idea",
        }
    }
    rows = imported(tmp_path / "g.json", file, prompt_format="QCM-ALE")
    assert [(r.rationale, r.answer, r.correct) for r in rows] == [
        ("Solution: it floats.", 1, True),
        ("Solution: no.", 2, False),
        ("Solution:", None, None),
    ]
    rows = imported(
        tmp_path / "l.json", {"9": ["It floats. The answer is (D).", "No."]},
        prompt_format="QCM-LEA",
    )  # fmt: skip
    assert [(r.sample, r.rationale, r.answer) for r in rows] == [
        (0, "Solution: It floats.", None),  # there is no D
        (1, "Solution: No.", None),
    ]


def test_lines_say_what_they_know(tmp_path):
    """Samples, answers and formats of other tools must survive."""
    lines = [
        {
            "question_id": "9",
            "rationale": "a",
            "prompt_format": "QCM-LE",
            "finish_reason": "length",
        },
        {"question_id": "9", "rationale": "b", "sample": 1, "answer": 0},
    ]
    rows = imported(
        tmp_path / "x.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n", prompt_format="QCM-E"
    )
    assert [(r.sample, r.answer, r.correct, r.prompt_format, r.finish_reason) for r in rows] == [
        (0, None, None, "QCM-LE", "length"),
        (1, 0, False, "QCM-E", "unknown"),
    ]


def test_all_faults_of_a_file_are_named_at_once(tmp_path):
    """A user should not have to run the import once for each bad line."""
    lines = [
        {"question_id": "77", "rationale": "a"},
        {"question_id": "9", "rationale": 3},
        {"question_id": "9", "rationale": "ok"},
        {"question_id": "9", "rationale": "again"},
        {"question_id": "10", "rationale": "a", "answer": 7},
        {"question_id": "10", "rationale": "a", "sample": True},
        {"question_id": "10", "rationale": "a", "prompt_format": "QCM-A"},
        {"question_id": "10", "rationale": "a", "sample": 99999999999},
        {"question_id": "10", "rationale": "a\ud800b", "sample": 5},
        {"question_id": "10", "rationale": "a", "reply": 1},
    ]
    with pytest.raises(DataError) as caught:
        imported(tmp_path / "x.jsonl", "\n".join(map(json.dumps, lines)), prompt_format="QCM-E")
    text = str(caught.value)
    assert "9 faults" in text
    for part in (
        "line 1: question_id is '77'",
        "line 2: rationale is 3",
        "line 4: sample 0 of question '9' occurs again; the first is at line 3",
        "line 5: answer is 7, expected an index below 3",
        "line 6: sample is True",
        "line 7: prompt format 'QCM-A' holds no rationale",
        "line 8: sample is 99999999999",
        "line 9: rationale is",
        "line 10: there is no field 'reply'",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{"preds": ["a"', "not valid JSON"),
        ("a.json", b'{"9": "a", "9": "b"}', "'9' occurs more than once"),
        ("a.json", b"[1]", "expected a JSON object"),
        ("a.json", b'{"preds": "abc"}', "expected a list of texts"),
        ("a.json", b'{"outputs": [1]}', "expected texts by question id"),
        ("a.json", b"{}", "expected rationales, found none"),
        ("a.json", '{"9": "ä"}'.encode("latin-1"), "expected text in UTF-8"),
        ("a.jsonl", b'{"question_id": "9"\n', "line 1: JSON: not valid JSON"),
        ("a.jsonl", b"7\n", "line 1: expected an object"),
    ],
)
def test_damaged_files_are_explained_and_nothing_is_written(root, capsys, name, content, message):
    """The output folder has to stay as it was."""
    (root / name).write_bytes(content)
    before = sorted(root.rglob("*"))
    arguments = ["rationales", "import", str(root), str(root / name), "--producer", "x"]
    assert main([*arguments, "--prompt-format", "QCM-E", "--split", "test"]) == 1
    assert message in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before


def test_import_and_gold_are_written_once(root, capsys):
    """A rerun must leave the table; another file under the same name must not replace it."""
    (root / "p.json").write_text(json.dumps({"9": "a"}))
    arguments = ["rationales", "import", str(root), str(root / "p.json"), "--producer", "other"]
    arguments += ["--prompt-format", "QCM-E"]
    assert main(arguments) == 0
    path = root / "rationales" / "other.parquet"
    before = path.stat().st_ino
    assert main(arguments) == 0
    assert "there already" in capsys.readouterr().out
    (root / "p.json").write_text(json.dumps({"9": "b"}))
    assert main(arguments) == 1
    assert path.stat().st_ino == before
    assert main(["rationales", "gold", str(root)]) == 0
    gold = read_rationales(root / "rationales" / "gold.parquet")
    assert [(r.question_id, r.rationale, r.correct) for r in gold] == [
        ("4", "Solution:", True),
        ("9", "Solution: S.", True),
        ("10", "Solution: S.", True),
        ("3", "Solution: S.", None),
    ]
    assert "4 rationales, 1 of them empty" in capsys.readouterr().out
    assert main(["rationales", "gold", str(root), "--prompt-format", "QCM-LE"]) == 1


votes = st.lists(
    st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 2))), max_size=20
)


@given(votes)
def test_the_majority_is_that_of_a_count(pairs):
    """Against a plain count: nulls do not vote, ties go to the earliest sample."""
    rows = [
        {"question_id": key, "sample": sample, "answer": answer, "correct": None}
        for sample, (key, answer) in enumerate(pairs)
    ]
    expected = {}
    for key in "abc":
        answers = [answer for k, answer in pairs if k == key and answer is not None]
        if answers:
            most = max(Counter(answers).values())
            expected[key] = next(a for a in answers if answers.count(a) == most)
    assert majority_answers(reversed(rows)) == expected
    whole = {"rationale": "Solution: t", "finish_reason": "stop", "prompt_format": "x"}
    marks = kept_marks([row | whole for row in rows], "majority")
    assert marks == [answer is not None and answer == expected[key] for key, answer in pairs]


def test_marks_change_the_column_and_nothing_else(root, capsys):
    """The filter is a column: no row, other column or note may be lost."""
    path = root / "rationales" / "t.parquet"
    rows = [row("9", 0, 1, True), row("9", 1, 0, False), row("10", 0, None, None, kept=False)]
    write_rationales(path, rows, {"teacher": "x"})
    table = pl.read_parquet(path).with_columns(prompt=pl.lit("p"))
    table.write_parquet(path, metadata={"made_by": '{"teacher": "x"}'})
    assert main(["rationales", "keep", str(root), "t", "--rule", "correct"]) == 0
    assert "1 of 3 rationales are kept, 1 marks changed" in capsys.readouterr().out
    changed = pl.read_parquet(path)
    assert changed["kept"].to_list() == [True, False, False]
    assert changed.drop("kept").equals(table.drop("kept"))
    assert read_made_by(path) == {"teacher": "x", "kept": "correct"}
    assert main(["rationales", "keep", str(root), "t", "--rule", "all"]) == 0
    assert pl.read_parquet(path)["kept"].all()


def test_rules_about_answers_need_answers(root, capsys):
    """Stage 1 draws none: a rule or a vote would silently drop all of its rationales."""
    path = root / "rationales" / "t.parquet"
    write_rationales(path, [row("9"), row("10")], {})
    before = path.read_bytes()
    for rule in ("correct", "majority"):
        assert main(["rationales", "keep", str(root), "t", "--rule", rule]) == 1
        assert "draws an answer" in capsys.readouterr().err
    assert main(["rationales", "vote", str(root), "t", "--out", str(root / "v.jsonl")]) == 1
    assert path.read_bytes() == before
    assert not (root / "v.jsonl").exists()


def test_no_rule_keeps_what_a_server_refused(root):
    """An empty text of a teacher teaches nothing; an empty gold solution is what it is."""
    whole = {"question_id": "9", "sample": 0, "answer": 1, "correct": True}
    texts = [
        ("Solution:", "stop", "zero-shot-cot", False),
        ("Solution: t", "content_filter", "zero-shot-cot", False),
        ("Solution: t", "length", "zero-shot-cot", True),
        ("Solution:", "stop", "QCM-E", True),
    ]
    for rule in ("all", "correct", "majority"):
        for text, reason, form, kept in texts:
            more = {"rationale": text, "finish_reason": reason, "prompt_format": form}
            assert kept_marks([whole | more], rule) == [kept]


def test_marks_wait_for_who_makes_the_table(root, capsys):
    """Marks that are written while a table grows would lose the rows that were added."""
    path = root / "rationales" / "t.parquet"
    write_rationales(path, [row("9", 0, 1)], {})
    with locked_artifact(path):
        assert main(["rationales", "keep", str(root), "t", "--rule", "correct"]) == 1
    assert "another process" in capsys.readouterr().err


def test_an_import_whose_marks_have_changed_is_still_there(root, capsys):
    """`keep` must not turn a rerun of the import into an error."""
    (root / "p.json").write_text(json.dumps({"9": "x. The answer is (A)."}))
    arguments = ["rationales", "import", str(root), str(root / "p.json"), "--producer", "other"]
    arguments += ["--prompt-format", "QCM-LEA"]
    assert main(arguments) == 0
    assert main(["rationales", "keep", str(root), "other", "--rule", "correct"]) == 0
    assert main(arguments) == 0
    assert "there already" in capsys.readouterr().out
    assert not pl.read_parquet(root / "rationales" / "other.parquet")["kept"].any()


def test_a_damaged_table_is_explained(root, capsys):
    """A traceback of polars says neither what was expected nor what to do."""
    path = root / "rationales" / "gold.parquet"
    path.parent.mkdir()
    path.write_bytes(b"PAR1 no")
    for arguments in (["gold", str(root)], ["keep", str(root), "gold", "--rule", "all"]):
        assert main(["rationales", *arguments]) == 1
        assert "gold.parquet: expected a parquet file" in capsys.readouterr().err


def test_votes_carry_a_rationale_that_agrees(root):
    """The explanation beside an answer must be one that leads to it."""
    rows = [
        row("9", 0, 0, text="Solution: zero"),
        row("9", 2, 1, text="Solution: two"),
        row("9", 1, 1, text="Solution: one"),
        row("10", 0, None, text="Solution: none"),
    ]
    assert [(v.question_id, v.answer, v.rationale, v.num_votes) for v in vote(rows)] == [
        ("9", 1, "Solution: one", 2),
        ("10", None, "Solution: none", 0),
    ]


def test_votes_can_be_evaluated(root, capsys):
    """What vote writes has to be what mmcot-evaluate reads."""
    from mmcot_model.cli.evaluate import main as evaluate

    (root / "questions.parquet").unlink()
    write_questions(root / "questions.parquet", [q for q in QUESTIONS if q.answer is not None])
    path = root / "rationales" / "t.parquet"
    write_rationales(path, [row("9", 0, 1), row("9", 1, 1), row("10", 0, 0)], {})
    for name in ("votes.parquet", "votes.jsonl"):
        assert main(["rationales", "vote", str(root), "t", "--out", str(root / name)]) == 0
        assert "2 questions, 1 of 2 answered correctly" in capsys.readouterr().out
        scores = root / "scores.json"
        arguments = ["--predictions", str(root / name), "--artifacts", str(root)]
        assert evaluate([*arguments, "--json", str(scores)]) == 0
        assert json.loads(scores.read_text())["answer"]["acc_average"] == "50.00"


def test_coverage_counts_by_split(root, capsys):
    """Counted by hand; a question without an answer is judged by no percentage."""
    rows = [
        row("9", 0, 1, True),
        row("9", 1, 0, False, kept=False),
        row("9", 2, 1, True),
        row("3", 0, 2, None, text="Solution:"),
    ]
    write_rationales(root / "rationales" / "t.parquet", rows, {})
    assert rationale_coverage(root, QUESTIONS) == [
        {
            "producer": "t",
            "split": "test",
            "questions": 3,
            "with_rationale": 2,
            "with_kept": 2,
            "rows": 4,
            "kept": 3,
            "cut_off": 0,
            "empty": 1,
            "mean_words": 0.8,
            "correct_percent": 66.67,
            "majority_percent": 100.0,
        }
    ]
    assert main(["rationales", "coverage", str(root), "--show", "t"]) == 0
    shown = capsys.readouterr().out
    assert "66.67" in shown
    assert "9: Solution: t" in shown
