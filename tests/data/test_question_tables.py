"""Tables of questions against what was put into them, and every kind of fault in its place."""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from dataclasses import replace

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmcot_data.errors import DataError
from mmcot_data.question_data import read_data
from mmcot_data.question_tables import find_question_table, read_question_table
from mmcot_data.questions import Question, read_questions, write_questions
from mmcot_data.sample import draw_sample
from mmcot_data.scienceqa import read_scienceqa

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
OPTIONAL = ("hint", "lecture", "solution", "subject", "topic", "category", "skill", "task")
PICTURES = ("a.png", "x/b c.png", "é,\n.png")


def record(**changes):
    return {"question": "Why?", "choices": ["so", "not so"], "answer": 0} | changes


def write_jsonl(path, rows, *, ascii_only=False, bom=""):
    lines = [json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows]
    path.write_text(bom + "".join(lines), encoding="utf-8", newline="\n")
    return path


def write_csv(path, rows, *, delimiter=",", quoting=csv.QUOTE_MINIMAL, end="\r\n", bom=""):
    """Rows as for JSON lines; lists become JSON, None becomes an empty cell."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow(columns)
    for row in rows:
        cells = [row.get(name) for name in columns]
        writer.writerow([json.dumps(c) if isinstance(c, list) else c for c in cells])
    path.write_text(bom + file.getvalue(), encoding="utf-8", newline="")
    return path


def write_text(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faults(path, **options):
    """What the error says, a fault a line, without the path."""
    with pytest.raises(DataError) as caught:
        read_question_table(path, **options)
    head, *lines = str(caught.value).split("\n  ")
    assert re.fullmatch(rf"{re.escape(str(path))}: \d+ faults? in the table of questions:", head)
    assert all(line.startswith((str(path), "and ")) for line in lines)
    return [line.removeprefix(str(path)).lstrip(":").strip() for line in lines]


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


# The same questions from each format


def make_pictures(folder):
    for name in PICTURES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
needed_texts = texts.filter(str.strip)


@st.composite
def records(draw, *, with_ids, with_splits):
    choices = draw(st.lists(needed_texts, min_size=2, max_size=26))
    answer = draw(st.none() | st.integers(0, len(choices) - 1))
    row = {
        "question": draw(needed_texts),
        "choices": choices,
        "answer": answer,
        **{name: draw(st.none() | texts) for name in OPTIONAL},
        "grade": draw(st.sampled_from(["", "K", "grade7", *range(1, 13)])),
        "caption": draw(st.none() | texts),
        "image": draw(st.sampled_from([None, *PICTURES])),
        "question_2": draw(st.sampled_from([None, *PICTURES])),
        "choice_0": draw(st.sampled_from([None, *PICTURES])),
    }
    if with_ids:
        row["question_id"] = draw(needed_texts | st.integers(0, 10**20).map(str))
    if with_splits:
        row["split"] = draw(st.sampled_from(["train", "val", "test", "validation", "dev"]))
    return row


@st.composite
def tables(draw):
    flags = {"with_ids": draw(st.booleans()), "with_splits": draw(st.booleans())}
    return draw(st.lists(records(**flags), min_size=1, max_size=5, unique_by=identity))


def identity(row):
    """What docs/own-data.md says that ids are made of, unless the table has them."""
    if "question_id" in row:
        return row["question_id"]
    split = {"validation": "val", "dev": "val"}.get(row.get("split"), row.get("split"))
    roles = {"question": "image", "question_2": "question_2", "choice_0": "choice_0"}
    pictures = [[role, row[name]] for role, name in roles.items() if row[name]]
    content = [split, row["question"], row["choices"], row["hint"] or "", pictures]
    return sha256(json.dumps(content, ensure_ascii=False))[:16]


def expect(rows, dataset="t", shares=(80, 10)):
    """The questions that rows stand for, by another way than the reader's."""
    positions, found = Counter(), []
    for row in rows:
        own = {"validation": "val", "dev": "val"}.get(row.get("split"), row.get("split"))
        roles = {"question": "image", "question_2": "question_2", "choice_0": "choice_0"}
        roles = {role: row[name] for role, name in roles.items() if row.get(name)}
        number = int(sha256((*roles.values(), identity(row))[0]), 16) % 100
        drawn = "train" if number < shares[0] else "val" if number < sum(shares) else "test"
        grade = row["grade"]
        found.append(
            Question(
                dataset=dataset,
                question_id=identity(row),
                split=own or drawn,
                position=positions[own or drawn],
                question=row["question"],
                choices=tuple(row["choices"]),
                answer=row["answer"],
                grade=f"grade{grade}" if isinstance(grade, int) else grade,
                has_image="question" in roles,
                image_roles=tuple(roles),
                **{name: row[name] or "" for name in OPTIONAL},
            )
        )
        positions[own or drawn] += 1
    order = ("train", "val", "test")
    return sorted(found, key=lambda question: (order.index(question.split), question.position))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=tables(),
    delimiter=st.sampled_from(",;\t"),
    written=st.sampled_from([(csv.QUOTE_MINIMAL, "\r\n"), (csv.QUOTE_ALL, "\n")]),
    letter_columns=st.booleans(),
    letter_answers=st.booleans(),
    bom=st.sampled_from(["", "\ufeff"]),
)
def test_the_three_formats_hold_the_same_questions(
    tmp_path_factory, rows, delimiter, written, letter_columns, letter_answers, bom
):
    """Catches texts that a format changes (line breaks, quotes, blanks, U+2028), lost columns, and
    ids, splits or positions that depend on the format."""
    folder = tmp_path_factory.mktemp("t")
    make_pictures(folder)
    expected = expect(rows)
    captions = {identity(row): row["caption"] for row in rows if row["caption"]} or None
    pictures = {
        (identity(row), role): folder / row[name]
        for row in rows
        for role, name in (("question", "image"), ("question_2",) * 2, ("choice_0",) * 2)
        if row[name]
    }
    rows = [dict(row) for row in rows]
    for row in rows:
        if letter_answers and row["answer"] is not None:
            row["answer"] = LETTERS[row["answer"]]
        if letter_columns:
            for number, choice in enumerate(row.pop("choices")):
                row[f"choice_{LETTERS[number].lower()}"] = choice
    quoting, end = written
    paths = [
        write_csv(folder / "t.csv", rows, delimiter=delimiter, quoting=quoting, end=end, bom=bom),
        write_jsonl(folder / "t.jsonl", rows, ascii_only=letter_columns, bom=bom),
        folder / "t.parquet",
    ]
    grades = [{"grade": str(row["grade"])} for row in rows]  # one type a column
    frame = pl.DataFrame(
        [row | g for row, g in zip(rows, grades, strict=True)], infer_schema_length=None
    )
    frame.write_parquet(paths[2])
    for path in paths:
        table = read_question_table(path)
        assert table.data.questions == expected
        assert table.data.captions == captions
        assert {(i.question_id, i.role): i.path for i in table.data.images} == pictures
        assert (table.unused_columns, table.data.licence) == ((), "unknown")
    write_questions(folder / "out" / "questions.parquet", table.data.questions)
    assert read_questions(folder / "out") == expected


# One cell that is changed

BASE = (
    {"question_id": "1", "split": "train", "question": "a\nb", "choices": ["x", "y", "z"]}
    | {"answer": 1, "hint": "h", "grade": "3", "image": "a.png", "lecture": ""},
    {"question_id": "2", "split": "val", "question": "c", "choices": ["x", "y"]}
    | {"answer": None, "hint": "two\nlines", "grade": "", "image": None, "lecture": "l"},
    {"question_id": "3", "split": "test", "question": "d", "choices": ["x", "y"]}
    | {"answer": 0, "hint": "", "grade": "K", "image": "x/b c.png", "lecture": ""},
)
AFFECTED = {"choices": {"choices", "answer"}}
"""Columns that are wrong where another one is changed: an answer beyond the choices."""
WORDS = """ |0|1|2|9|13|-1|1.0|A|B|Z|b|x|a.png|no.png|x/|train|dev|Train|["x", "y"]|[]|["x"]
|["x", 1]|{|"|é|null|NaN|3|x\b.png|two
lines|a,b;c"""
words = st.sampled_from([*WORDS.split("|"), "", "[" * 5000, "a\0b", "n" * 300, "\ufeff", "\r"])
values = words | texts | st.none() | st.booleans() | st.integers() | st.floats() | st.lists(words)


def first_lines(rows, *, is_csv):
    """Where each record begins: csv's line breaks stand in cells as they are."""
    lines, line = [], 2 if is_csv else 1
    for row in rows:
        lines.append(line)
        cells = [json.dumps(c) if isinstance(c, list) else str(c) for c in row.values()]
        line += 1 + (sum(len(re.findall("\r\n|\r|\n", cell)) for cell in cells) if is_csv else 0)
    return lines


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    number=st.integers(0, 2), column=st.sampled_from(list(BASE[0])), value=values, data=st.data()
)
def test_a_changed_cell_is_read_or_reported_in_its_place(
    tmp_path_factory, number, column, value, data
):
    """Catches a fault at another line or column, one that hides in a value, and one that spoils
    other rows."""
    folder = tmp_path_factory.mktemp("t")
    make_pictures(folder)
    is_csv = data.draw(st.booleans())
    if is_csv and not isinstance(value, str):
        value = json.dumps(value)
    rows = [dict(row) for row in BASE]
    rows[number][column] = value
    path = folder / ("t.csv" if is_csv else "t.jsonl")
    if is_csv:
        write_csv(path, rows, quoting=csv.QUOTE_ALL)
    else:
        write_jsonl(path, rows)
    try:
        questions = read_question_table(path).data.questions
    except DataError as error:
        lines = first_lines(rows, is_csv=is_csv)
        place = rf"{re.escape(str(path))}:(\d+): (\w+): expected "
        for line in str(error).split("\n  ")[1:]:
            found = re.match(place, line)
            assert found, line
            twice = re.search(r"found '\d' as on line (\d+)|as on line (\d+)$", line)
            own = {int(found[1])} | ({int(twice[1] or twice[2])} if twice else set())
            assert lines[number] in own
            assert found[2] in AFFECTED.get(column, {column})
        return
    questions = [replace(question, position=0) for question in questions]
    base = [replace(question, position=0) for question in expect([filled(row) for row in BASE])]
    untouched = [question for question in base if question.question_id != str(number + 1)]
    assert all(question in questions for question in untouched)
    (changed,) = [question for question in questions if question not in untouched]
    expected = "" if value is None else value
    match column:
        case "question" | "hint" | "lecture":
            assert getattr(changed, column) == expected
        case "question_id":
            assert changed.question_id == str(value)
        case "choices":
            assert list(changed.choices) == (json.loads(value) if is_csv else value)
        case "answer" if value in (None, ""):
            assert changed.answer is None
        case "answer":
            assert changed.answer == (LETTERS.find(value) if value in [*"ABC"] else int(value))
        case "split":
            assert changed.split == {"dev": "val"}.get(value, value)
        case "grade":
            assert changed.grade in (expected, f"grade{value}")
        case "image":
            assert changed.has_image == bool(value)


def filled(row):
    """A row as ``expect`` takes it."""
    grade = int(row["grade"]) if row["grade"].isdigit() else row["grade"]
    return dict.fromkeys(OPTIONAL) | row | {"grade": grade}


# What is wrong, and where


def test_all_faults_of_a_table_are_named_at_once(tmp_path):
    """Catches a reader that stops at its first fault, or counts lines by records."""
    (tmp_path / "a.png").touch()
    text = (
        "question;choice_a;choice_b;choice_c;answers;split;question_id;grade;image;note\n"
        '"two\nlines";cat;dog;;0;train;1;13;nope.png;\n'
        "\n"
        ";cat;;dog;B;valid;1;5;a.png;\n"
        "x;cat;dog\n"
        'x;"cat"e;dog;;;;;;;\n'
        "x;y;z;;7;test;3;;.;\n"
    )
    path = write_text(tmp_path / "t.csv", text)
    found = faults(path)
    expected = [
        "1: answers: expected a known column, found 'answers': did you mean answer?",
        "2: grade: expected a text or a grade from 1 to 12, found '13'",
        "2: image: expected the path of a picture, absolute or from the table's folder, found "
        f"'nope.png': there is no such file in {tmp_path}",
        "5: question: expected a text, found nothing",
        "5: choice_b: expected a text, found nothing",
        "5: split: expected train, val, test (or validation, dev) for every question, or no column "
        "split at all, found 'valid'",
        "5: question_id: expected an id of its own, found '1', as on line 2",
        "6: expected 10 cells, as the header has, found 3",
        '7: expected quoted cells that end in one " (those within are written ""): '
        "';' expected after '\"'",
        "8: image: expected the path of a picture, absolute or from the table's folder, found "
        f"'.': there is no such file in {tmp_path}",
    ]
    assert sorted(found) == sorted(expected)
    lines = [int(line.partition(":")[0]) for line in found]
    assert lines == sorted(lines)


def test_many_faults_are_counted_and_twenty_shown(tmp_path):
    path = write_jsonl(tmp_path / "t.jsonl", [record(answer=n) for n in range(2, 35)])
    found = faults(path)
    assert len(found) == 21
    assert found[-1] == "and 13 more"
    assert found[19].startswith("20: answer: expected the index of a choice, 0 to 1, or its letter")
    with pytest.raises(DataError, match=": 33 faults in the table"):
        read_question_table(path)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("question,choices", "1: answer: expected this column, found 'question', 'choices'"),
        ("question,answer", "1: choices: expected this column or choice_a, choice_b, …, found "),
        ("question,options,answer", "1: options: .*did you mean choices"),
        ("Question,choices,answer", "1: Question: .*did you mean question"),
        ("question,choices, answer", "1: ' answer': .*did you mean answer"),
        ("question,choices,label", "1: label: .*did you mean answer"),
        ("question,choices,answer,hints", "1: hints: .*did you mean hint"),
        ("question,choices,answer,image_path", "1: image_path: .*did you mean image"),
        ("question,choices,answer,id", "1: id: .*did you mean question_id"),
        ("question,choices,answer,image,image_2", "1: image_2: .*did you mean question_2"),
        ("question,choices,answer,hint,hint", "1: hint: expected one column of this name, found 2"),
        ("question,choices,answer,choice_a,choice_b", "1: choices: expected either this column or"),
        ("question,answer,choice_a,choice_c", "1: choice_c: .*found no choice_b"),
        ("question,answer,choice_a", "1: choice_a: expected at least 2 choices"),
        ("question,answer,choise_a,choice_b", "1: choise_a: .*did you mean choice_a"),
        (b"question,choices,answer,th\xe9", "1: 'th.udce9': expected a name in UTF-8"),
        (b"question,choices,answer,a\0b", r"1: 'a.x00b': expected a name in UTF-8 without NUL"),
    ],
)
def test_headers(tmp_path, header, expected):
    """Catches a misspelt column that is left out in silence."""
    header = header if isinstance(header, bytes) else header.encode()
    found = faults(write_text(tmp_path / "t.csv", header + b"\n"))
    assert re.match(expected, found[0]), found


def test_columns_that_are_not_used_are_listed(tmp_path):
    """Names that only begin like known ones, and the nameless index of pandas are fine."""
    rows = [{"": "0", "note": "x", "task_id": "7", "question_text": "y", "id": "z"}]
    rows[0] |= record(question_id=5)
    path = write_csv(tmp_path / "t.csv", rows)
    table = read_question_table(path)
    assert table.unused_columns == ("", "note", "task_id", "question_text", "id")
    lines = [record(question_id=1), record(question_id=2, extra={"a": [1]}), record(question_id=3)]
    assert read_question_table(write_jsonl(tmp_path / "t.jsonl", lines)).unused_columns == (
        "extra",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["question: expected this column", "choices: expected", "answer: expected"]),
        ("question,choices,answer\n", ["expected at least one question, found none"]),
        ("question,choices,answer\n\n\r\n", ["expected at least one question, found none"]),
        (
            'question,choice_a,choice_b,answer\nx,a,b,0\ny,"a,b,1\nz,a,b,0\n',
            ["3: expected quoted cells that end in one .*unexpected end of data"],
        ),
        (
            b"question,choice_a,choice_b,answer,hint\nx,a,\xff,0,\xe9\n",
            [r"2: hint: expected a text in UTF-8, found '.udce9'", "2: choice_b: .*UTF-8"],
        ),
        (
            "question,choice_a,choice_b,answer\nx,a\0,b,0\n",
            ["2: choice_a: expected a text without NUL"],
        ),
        (f"question,choice_a,choice_b,answer\n{'x' * 140_000},a,b,0\n", ["2: .*field limit"]),
    ],
)
def test_broken_csv(tmp_path, text, expected):
    found = faults(write_text(tmp_path / "t.csv", text))
    assert len(found) == len(expected)
    for pattern in expected:
        assert any(re.search(pattern, line) for line in found), (pattern, found)


def test_spreadsheets_in_utf16_are_named(tmp_path):
    path = write_text(tmp_path / "t.csv", "question,choices,answer\n".encode("utf-16"))
    with pytest.raises(DataError, match="expected text in UTF-8, found UTF-16: save it as UTF-8"):
        read_question_table(path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"question": "a",', "expected a JSON object: not valid JSON"),
        ("[" * 100_000, "expected a JSON object: not valid JSON"),
        ("[1]", r"expected a JSON object, found \[1\]"),
        ("null", "expected a JSON object, found nothing"),
        (b'{"question": "th\xe9"}', "expected UTF-8, found byte 0xe9 at position 16"),
        ('{"hint": "a", "hint": "b"}', "the key 'hint' occurs more than once"),
        (json.dumps(record(answer=True)), "answer: .*found True"),
        (json.dumps(record(answer="1")), r"answer: .*\(not its text\), found '1'"),
        (json.dumps(record(answer="so")), r"answer: .*\(not its text\), found 'so'"),
        (json.dumps(record(answer="C")), "answer: .*or its letter, A to B"),
        (json.dumps(record(answer=-1)), "answer: .*found -1"),
        (json.dumps(record(answer=1.0)), r"answer: .*found 1\.0"),
        (json.dumps(record(choices="ab")), "choices: expected a list of texts, found 'ab'"),
        (json.dumps(record(choices=["a", 2])), "choices: expected a text, found 2"),
        (json.dumps(record(choices=["a", " "])), "choices: expected a text, found ' '"),
        (json.dumps(record(choices=["a"] * 27)), "choices: expected 2 to 26 choices, found 27"),
        (json.dumps(record(hint=3)), "hint: expected a text, found 3"),
        (json.dumps(record(hint="\ud800")), "hint: expected a text in UTF-8"),
        (json.dumps(record(grade=0)), "grade: expected a text or a grade from 1 to 12, found 0"),
        (json.dumps(record(image=["a.png"])), "image: expected a text"),
        (json.dumps(record(image="x\\a.png")), "image: .*write paths with / instead of"),
        (json.dumps(record(image="a" * 300)), "image: .*File name too long"),
        (json.dumps(record(answers=1)), None),
        (json.dumps(record(question_id=None)), "question_id: expected a text or a whole number"),
        ('{"question": "a", "choices": ["b", "c"]}', "answer: expected this column, found"),
        (
            '{"question": "a", "choices": ["b", "c"], "answers": 1}',
            "answers: .*did you mean answer",
        ),
        ('{"question": "a", "answer": 1, "choice_a": "b"}', "choice_a: expected at least 2"),
        ('{"question": "a", "answer": 1, "choice_a": "b", "choice_b": null}', "choice_b: expected"),
    ],
)
def test_broken_json_lines(tmp_path, line, expected):
    """Each between two good lines, which must not hide its number."""
    line = line.encode() if isinstance(line, str) else line
    good = [json.dumps(record(question=text)).encode() for text in "12"]
    path = write_text(tmp_path / "t.jsonl", b"\n".join([good[0], b"", line, good[1]]))
    if expected is None:
        assert read_question_table(path).unused_columns == ("answers",)
        return
    found = [line for line in faults(path) if not line.startswith(("1:", "4:"))]
    assert len(found) == 1
    assert re.match(f"3: .*{expected}", found[0])


def test_a_column_of_ids_or_splits_is_there_for_all(tmp_path):
    """Catches ids that are half the table's, half made: joins with them would lose rows."""
    rows = [record(question="1", question_id=4, split="train"), record(question="2")]
    found = faults(write_jsonl(tmp_path / "t.jsonl", rows))
    assert [line.split(": expected")[0] for line in found] == ["2: question_id", "2: split"]


# Parquet


def write_parquet(path, **columns):
    columns = {"question": ["a", "b"], "choices": [["x", "y"]] * 2, "answer": [0, 1]} | columns
    pq.write_table(pa.table(columns), path, row_group_size=1)
    return path


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"answer": [0.0, None]}, "answer: expected texts or whole numbers, found the type double"),
        ({"choices": ["xy", "z"]}, "choices: expected lists of texts, found the type string"),
        ({"choices": [[1, 2]] * 2}, "choices: expected lists of texts, found the type list"),
        ({"question": [1, 2]}, "question: expected texts, found the type int64"),
        ({"hint": [b"a", None]}, "hint: expected texts, found the type binary"),
        ({"image": [{"bytes": b"a", "path": "x"}] * 2}, "image: .*struct.*--layout parquet"),
        ({"answer": [0, 2]}, "row 2: answer: expected the index of a choice, 0 to 1"),
        ({"choices": [["x", None], ["x", "y"]]}, "row 1: choices: expected a text, found nothing"),
        (
            {"choices": [["x", "y"], None]},
            "row 2: choices: expected a list of texts, found nothing",
        ),
        ({"question_id": [7, 7]}, "row 2: question_id: .*found '7', as on row 1"),
        ({"hnit": ["a", "b"]}, "hnit: expected a known column, found 'hnit': did you mean hint?"),
    ],
)
def test_broken_parquet(tmp_path, columns, expected):
    (found,) = faults(write_parquet(tmp_path / "t.parquet", **columns))
    assert re.match(expected, found), found


def test_parquet_with_bytes_that_are_no_text(tmp_path):
    """pyarrow reads them without a complaint, and fails at the first that it has to show."""
    raw = pa.array([b"fine", b"th\xe9"]).cast(pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    choices = pa.ListArray.from_arrays(
        pa.array([0, 2, 4], pa.int32()), pa.concat_arrays([text] * 2)
    )
    columns = {"hint": text, "solution": text.dictionary_encode(), "choices": choices}
    found = faults(write_parquet(tmp_path / "t.parquet", **columns))
    places = [line.split(": expected a text in UTF-8")[0] for line in found]
    assert sorted(places) == ["row 1: choices", "row 2: choices", "row 2: hint", "row 2: solution"]


def test_parquet_in_other_types_of_text(tmp_path):
    """Large strings, string views, dictionaries, fixed-size lists, all null: one and the same."""
    expected = read_question_table(write_parquet(tmp_path / "t.parquet")).data
    path = write_parquet(
        tmp_path / "t.parquet",
        question=pa.array(["a", "b"], pa.string_view()),
        choices=pa.array([["x", "y"]] * 2, pa.list_(pa.large_string(), 2)),
        answer=pa.array(["A", "B"]).dictionary_encode(),
        hint=pa.nulls(2),
        lecture=pa.array(["", None], pa.large_string()),
    )
    assert read_question_table(path).data == expected


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(DataError, match=r"can't be read as parquet"):
        read_question_table(write_text(tmp_path / "t.parquet", "PAR1 and no more"))
    with pytest.raises(DataError, match=r"a file that ends in \.csv, \.tsv, \.jsonl, \.parquet"):
        read_question_table(write_text(tmp_path / "t.txt", "x"))
    with pytest.raises(DataError, match=r"t\.csv does not exist"):
        read_question_table(tmp_path / "t.csv")
    good = read_question_table(write_jsonl(tmp_path / "t.jsonl", [record()])).data
    write_questions(tmp_path / "shards/questions.parquet", good.questions)
    with pytest.raises(DataError, match="an artifact root's table of questions"):
        read_question_table(tmp_path / "shards/questions.parquet")


# Ids and splits


def test_ids_follow_content_not_position(tmp_path):
    """The recipe is documented; other programs may rely on it."""
    rows = [record(question=str(n), answer=n % 2, solution=str(n)) for n in range(5)]
    one = read_question_table(write_jsonl(tmp_path / "t.jsonl", rows)).data
    other = [row | {"answer": None, "solution": "changed"} for row in reversed(rows)]
    two = read_question_table(write_jsonl(tmp_path / "t.jsonl", other)).data
    ids = {question.question: question.question_id for question in one.questions}
    assert {question.question: question.question_id for question in two.questions} == ids
    assert ids["3"] == sha256('[null, "3", ["so", "not so"], "", []]')[:16]


def test_equal_questions_without_ids_are_named(tmp_path):
    rows = [record(), record(question="else"), record(answer=1)]
    (found,) = faults(write_jsonl(tmp_path / "t.jsonl", rows))
    assert re.match("3: expected a question of its own, found the split.* of line 1", found)
    rows = [row | {"question_id": number} for number, row in enumerate(rows)]
    assert len(read_question_table(write_jsonl(tmp_path / "t.jsonl", rows)).data.questions) == 3


def test_whole_numbers_and_texts_are_the_same_ids(tmp_path):
    rows = [record(question_id=7), record(question_id="7")]
    assert re.match("2: question_id", faults(write_jsonl(tmp_path / "t.jsonl", rows))[0])


def test_questions_about_one_picture_share_a_split_that_new_rows_do_not_change(tmp_path):
    """Catches splits by position, and pictures of the test split seen in training."""
    for number in range(40):
        (tmp_path / f"{number}.png").touch()
    rows = [
        record(question=str(n), image=f"{'./' * (n % 2)}{n % 40}.png" if n % 3 else None)
        for n in range(240)
    ]
    path = write_jsonl(tmp_path / "t.jsonl", rows)
    before = read_question_table(path, split_shares="60/20/20").data
    splits = {question.question_id: question.split for question in before.questions}
    pictures = {}
    for image in before.images:
        pictures.setdefault(image.path, set()).add(splits[image.question_id])
    assert len(pictures) == 40
    assert all(len(found) == 1 for found in pictures.values())
    assert set(splits.values()) == {"train", "val", "test"}
    write_jsonl(path, [record(question="new"), *reversed(rows)])
    after = read_question_table(path, split_shares="60/20/20").data
    again = {question.question_id: question.split for question in after.questions}
    assert splits.items() <= again.items()


def test_shares_are_what_they_say(tmp_path):
    """Within five standard deviations of binomial counts."""
    rows = [record(question=str(number)) for number in range(5000)]
    path = write_csv(tmp_path / "t.csv", rows)
    for shares, expected in (("80/10/10", (80, 10, 10)), ("0/50/50", (0, 50, 50))):
        counts = Counter(
            q.split for q in read_question_table(path, split_shares=shares).data.questions
        )
        for split, share in zip(("train", "val", "test"), expected, strict=True):
            deviation = (5000 * share / 100 * (1 - share / 100)) ** 0.5
            assert abs(counts[split] - 50 * share) <= 5 * deviation


@pytest.mark.parametrize(
    "shares", ["80/10", "80/10/20", "80/20/-0", "a/b/c", "", "80/10/10/0", "٨٠/10/10"]
)
def test_shares_that_are_none(tmp_path, shares):
    path = write_jsonl(tmp_path / "t.jsonl", [record()])
    with pytest.raises(DataError, match="expected the percentages of train, val and test"):
        read_question_table(path, split_shares=shares)


def test_shares_for_a_table_with_splits_are_refused(tmp_path):
    path = write_jsonl(tmp_path / "t.jsonl", [record(split="dev")])
    table = read_question_table(path)
    assert (table.assigned_splits, table.data.questions[0].split) == (None, "val")
    with pytest.raises(DataError, match="has a column split: leave out the split shares"):
        read_question_table(path, split_shares="80/10/10")


# What stands beside the table, and reading any data set


def test_dataset_json_gives_name_licence_and_shares(tmp_path):
    path = write_jsonl(tmp_path / "t.jsonl", [record(), record(caption="a bird", question="?")])
    about = tmp_path / "dataset.json"
    about.write_text('{"name": "birds", "licence": "CC0", "split_shares": "0/0/100"}')
    table = read_question_table(path)
    assert (table.data.dataset, table.data.licence) == ("birds", "CC0")
    assert {(q.dataset, q.split) for q in table.data.questions} == {("birds", "test")}
    assert list(table.data.captions.values()) == ["a bird"]
    assert str(table.assigned_splits) == "0/0/100"
    given_shares = read_question_table(path, split_shares="0/100/0").data
    assert {question.split for question in given_shares.questions} == {"val"}
    for content, message in (
        ('{"name": "birds"}', "expected the texts 'name' and 'licence', found 'birds' and None"),
        (
            '{"name": "a", "licence": "b", "split_shares": "1"}',
            "dataset.json: expected the percent",
        ),
        ('{"name": "a", "licence": "b", "split_shares": 1}', "expected a text as '80/10/10'"),
        ("[]", "expected a JSON object, found list"),
        ("{", "not valid JSON"),
    ):
        about.write_text(content)
        with pytest.raises(DataError, match=message):
            read_question_table(path)


def test_captions_need_a_data_set_with_the_name_of_a_file(tmp_path):
    """Else questions.parquet would be written before the captions are refused."""
    path = write_jsonl(tmp_path / "my own.jsonl", [record()])
    assert read_question_table(path).data.dataset == "my own"
    write_jsonl(path, [record(caption="x")])
    with pytest.raises(DataError, match=r"'my own' can't be the name of a file.*dataset\.json"):
        read_question_table(path)


def test_any_data_set_is_read(tmp_path):
    draw_sample(tmp_path / "sample", num_questions=100, num_workers=1)
    assert read_data(tmp_path / "sample") == read_scienceqa(tmp_path / "sample")
    (tmp_path / "own").mkdir()
    path = write_jsonl(tmp_path / "own/questions.jsonl", [record()])
    assert read_data(path) == read_data(tmp_path / "own")
    assert read_data(path, split_shares="0/0/100").questions[0].split == "test"
    with pytest.raises(DataError, match="names the splits itself"):
        read_data(tmp_path / "sample", split_shares="80/10/10")
    for nothing in (tmp_path, tmp_path / "none", write_text(tmp_path / "a.txt", "x")):
        with pytest.raises(DataError, match=r"expected a folder in ScienceQA's layout"):
            read_data(nothing)


def test_a_table_is_found_in_its_folder(tmp_path):
    assert find_question_table(tmp_path) is None
    table = write_csv(tmp_path / "questions.csv", [record()])
    assert find_question_table(tmp_path) == table
    write_questions(tmp_path / "questions.parquet", read_question_table(table).data.questions)
    assert find_question_table(tmp_path) == table, "an artifact root in the same folder is no table"
    write_jsonl(tmp_path / "questions.jsonl", [record()])
    with pytest.raises(DataError, match=r"questions\.csv and questions\.jsonl: expected one table"):
        find_question_table(tmp_path)
