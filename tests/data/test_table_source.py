"""Pictures that tables of questions name, the commands on them, and docs/own-data.md as it runs."""

import io
import json
import re
import shlex
from contextlib import redirect_stderr
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_encoder import FakeEncoder
from PIL import Image

from mmcot_data.cli import main
from mmcot_data.errors import DataError
from mmcot_data.question_tables import read_question_table
from mmcot_data.questions import read_questions
from mmcot_data.shards import open_features
from mmcot_data.sources import open_source, open_stored

PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"
NAMES = ("a.png", "x/b#3.png")


def write_table(folder, name="t.jsonl", **columns):
    """Three questions: two pictures, one of them twice, in the train and the test split."""
    for number, file in enumerate(NAMES):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number, 0, 7)).save(folder / file)
    rows = [
        {"question_id": "1", "split": "train", "image": "a.png", "choice_0": "x/b#3.png"},
        {"question_id": "2", "split": "test", "image": str(folder.resolve() / "a.png")},
        {"question_id": "3", "split": "test"},
    ]
    common = {"question": "Why?", "choices": ["so", "not so"], "answer": 1} | columns
    path = folder / name
    frame = pl.DataFrame([common | row for row in rows], infer_schema_length=None)
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_ndjson(path)
    return path


def contents(source):
    return {(image.question_id, image.role): image.stored.read() for image in source.images}


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet", "questions.jsonl", "questions.parquet"])
@pytest.mark.parametrize("layout", ["auto", "table"])
def test_pictures_are_found_by_their_questions_and_again_by_their_files(tmp_path, name, layout):
    """Catches paths from the working directory, absolute paths cut, and ``#3`` taken for a row."""
    table = write_table(tmp_path, name)
    expected = {
        ("1", "question"): (tmp_path / "a.png").read_bytes(),
        ("1", "choice_0"): (tmp_path / "x/b#3.png").read_bytes(),
        ("2", "question"): (tmp_path / "a.png").read_bytes(),
    }
    for data in [table] if name.startswith("t") else [table, tmp_path]:
        source = open_source(data, layout)
        assert contents(source) == expected
        found = {(i.question_id, i.role): open_stored(data, i.file).read() for i in source.images}
        assert found == expected
        assert source.questions == read_question_table(table).data
        assert [image.file for image in source.images][:2] == ["a.png", "x/b#3.png"]


def test_files_are_named_as_the_table_names_them(tmp_path, monkeypatch):
    """index.parquet must be of use where the same folder is mounted elsewhere."""
    write_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    files = [image.file for image in open_source(Path("t.jsonl")).images]
    assert files == ["a.png", "x/b#3.png", str(tmp_path.resolve() / "a.png")]


def test_splits_choose_pictures_and_leave_the_questions(tmp_path):
    source = open_source(write_table(tmp_path), splits=["test"], dataset="mine", licence="CC0")
    assert [image.question_id for image in source.images] == ["2"]
    assert {question.dataset for question in source.questions.questions} == {"mine"}
    assert len(source.questions.questions) == 3
    assert (source.dataset, source.licence, source.questions.licence) == ("mine", "CC0", "CC0")


def test_parquet_with_pictures_in_it_stays_the_layout_of_pictures(tmp_path):
    """Catches data sets of the hub that would lose their pictures in silence."""
    texts = {"id": ["q"], "question": ["Why?"], "choices": [["a", "b"]], "answer": [0]}
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "PNG")
    struct = {"bytes": data.getvalue(), "path": "a.png"}
    for column in ({"image": [struct]}, {"photo": [data.getvalue()]}, {"photos": [[struct]]}):
        path = tmp_path / "questions.parquet"
        pq.write_table(pa.table(texts | column), path)
        for given in (path, tmp_path):
            source = open_source(given)
            assert source.questions is None
            assert contents(source) == {("q", "question"): data.getvalue()}


def test_what_is_no_table_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"no table of questions.*questions\.csv or"):
        open_source(tmp_path, "table")
    (tmp_path / "t.txt").touch()
    with pytest.raises(DataError, match=r"ends in \.csv, \.tsv"):
        open_source(tmp_path / "t.txt", "table")
    table = write_table(tmp_path)
    with pytest.raises(DataError, match="layout table, which has no columns to choose"):
        open_source(table, id_column="question_id")
    with pytest.raises(DataError, match="the split 'val' has no questions"):
        open_source(table, splits=["val"])


def test_the_same_command_twice_where_out_is_the_folder_of_the_table(tmp_path, monkeypatch, capsys):
    """Catches questions.parquet of the first run taken for another table."""
    monkeypatch.setattr("mmcot_data.extraction.run.load_encoder", lambda _: FakeEncoder())
    write_table(tmp_path, "questions.jsonl")
    command = ["extract", str(tmp_path), "--out", str(tmp_path), "--encoder", "fake"]
    assert main(command) == 0
    assert "3 pictures, 2 rows" in capsys.readouterr().out
    assert main(command) == 0
    assert "all of it was there already" in capsys.readouterr().out
    assert main(["questions", str(tmp_path), "--out", str(tmp_path)]) == 0


def test_a_table_is_not_overwritten(tmp_path, capsys):
    """Its name may be the one of the table that is made of it."""
    table = write_table(tmp_path, "questions.parquet")
    before = table.read_bytes()
    assert main(["questions", str(table), "--out", str(tmp_path)]) == 1
    assert "would be overwritten" in capsys.readouterr().err
    assert table.read_bytes() == before


def test_features_are_extracted_and_verified(tmp_path, capsys):
    """The whole way, with rows extracted anew from the table's pictures."""
    table, out = write_table(tmp_path), tmp_path / "shards"
    assert main(["extract", str(table), "--out", str(out), "--encoder", "tiny"]) == 0
    features = open_features(out / "tiny")
    assert sorted(features.question_ids) == ["1", "2"]
    assert [question.question_id for question in read_questions(out)] == ["1", "2", "3"]
    verify = ["verify", str(out / "tiny"), "--reextract", "2", "--data", str(table)]
    assert main(verify) == 0
    assert "2 equal to the bit" in capsys.readouterr().out


def test_the_command_says_what_was_made_of_a_table(tmp_path, capsys):
    path, out = tmp_path / "t.csv", str(tmp_path / "shards")
    path.write_text("question,choice_a,choice_b,answer,note,,caption\na,b,c,0,x,y,words\n")
    (tmp_path / "dataset.json").write_text(
        '{"name": "t", "licence": "CC0", "split_shares": "0/100/0"}'
    )
    assert main(["questions", str(path), "--out", out]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"{out}/questions.parquet: 1 questions (1 val)",
        f"{out}/captions/t.parquet: 1 captions",
        "not used: note, (a column without a name)",
        "question ids: made of split, question, choices, hint and pictures",
        "splits: 0/100/0 train/val/test, assigned by a hash of each picture's path, or of the "
        "question id where there is no picture",
    ]
    path.write_text("question_id,split,question,choice_a,choice_b,answer\n1,val,a,b,c,0\n")
    assert main(["questions", str(path), "--out", f"{out}2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}2/questions.parquet: 1 questions (1 val)"
    ]


# The page


def test_the_page_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    """Catches an example that is no longer valid, a command that changed, and other messages."""
    (tmp_path / "pictures").mkdir()
    for name, colour in (("cat", "red"), ("dog", "blue")):
        Image.new("RGB", (64, 48), colour).save(tmp_path / f"pictures/{name}.png")
    monkeypatch.chdir(tmp_path)
    errors, num_commands = "", 0
    for language, file, block in re.findall(
        r"^```(\w*) ?([\w.]*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S
    ):
        if file:
            Path(file).write_text(block, encoding="utf-8")
        elif language == "python":
            exec(compile(block, str(PAGE), "exec"), {})
        elif language == "text":
            assert errors == block
        else:
            for line in block.splitlines():
                command, *arguments = shlex.split(line)
                assert command == "mmcot-data"
                with redirect_stderr(io.StringIO()) as stderr:
                    status = main(arguments)
                assert status == ("broken.csv" in line)
                errors, num_commands = stderr.getvalue(), num_commands + 1
    assert num_commands == 4
    assert not Path("broken").exists()
    tables = [
        read_question_table(Path(f"pets.{suffix}")).data for suffix in ("csv", "jsonl", "parquet")
    ]
    assert tables[0] == tables[1] == tables[2]
    assert (tables[0].dataset, tables[0].licence) == ("pets", "CC0")
    inputs = [json.loads(line) for line in Path("inputs.jsonl").read_text().splitlines()]
    assert {"p1", "p2", "p3"} == {row["question_id"] for row in inputs}
    read = read_question_table(Path("array.csv"))
    assert str(read.assigned_splits) == "70/15/15"
    assert capsys.readouterr().out.count("3 questions (1 train, 1 val, 1 test)") == 1
