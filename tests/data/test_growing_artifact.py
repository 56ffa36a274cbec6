"""An artifact that grows row by row loses nothing that was added, whatever stops it."""

import json
import os
import signal
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcot_data.errors import DataError
from mmcot_data.growing_artifact import grow_artifact
from mmcot_data.text_artifacts import read_made_by

SCHEMA = pl.Schema({"question_id": pl.String(), "sample": pl.Int32(), "text": pl.String()})
KEY = ("question_id", "sample")
RANK = {"b": 0, "a": 1}
SETTINGS = {"model": "größe", "seed": 1}


def row(question_id, sample=0, text="t"):
    return {"question_id": question_id, "sample": sample, "text": text}


def grow(path, rows, *, finish=True, settings=SETTINGS):
    with grow_artifact(path, SCHEMA, KEY, settings) as artifact:
        for each in rows:
            artifact.add([each])
        if finish:
            artifact.finish(RANK, {"notes": 1})
        return len(artifact)


def test_rows_of_a_stopped_run_and_of_the_next_end_in_one_table(tmp_path):
    """A run that goes on must not lose, repeat or reorder what the stopped one had added."""
    path = tmp_path / "rationales" / "teacher.parquet"
    grow(path, [row("a", 1, "x"), row("a", 0, "line\u2028 break\n")], finish=False)
    assert not path.exists()
    assert grow(path, [row("b")]) == 3
    assert pl.read_parquet(path).rows() == [
        ("b", 0, "t"),
        ("a", 0, "line\u2028 break\n"),
        ("a", 1, "x"),
    ]
    assert read_made_by(path) == {"settings": SETTINGS, "notes": 1}
    assert sorted(file.name for file in path.parent.iterdir()) == [
        ".teacher.lock",
        "teacher.parquet",
    ]


def test_a_finished_table_grows_and_is_left_alone_if_nothing_is_new(tmp_path):
    """A rerun must write nothing, and more questions must not cost those that are there."""
    path = tmp_path / "t.parquet"
    grow(path, [row("a")])
    before = path.stat()
    assert grow(path, []) == 1
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino
    grow(path, [row("b")])
    assert pl.read_parquet(path)["question_id"].to_list() == ["b", "a"]


def test_a_row_that_is_discarded_is_made_anew(tmp_path):
    """A caption of a picture that has changed must not stay."""
    path = tmp_path / "t.parquet"
    grow(path, [row("a", text="old"), row("b")])
    with grow_artifact(path, SCHEMA, KEY, SETTINGS) as artifact:
        artifact.discard([("a", 0)])
        assert ("a", 0) not in artifact
        assert ("b", 0) in artifact
        artifact.add([row("a", text="new")])
        artifact.finish(RANK, {"notes": 1})
    assert pl.read_parquet(path)["text"].to_list() == ["t", "new"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_journal_cut_anywhere_keeps_every_whole_row(tmp_path_factory, data):
    """A torn line (power cut in an append) must neither be read nor block the next run."""
    path = tmp_path_factory.mktemp("cut") / "t.parquet"
    texts = data.draw(st.lists(st.text(max_size=8), min_size=1, max_size=4))
    rows = [row("a", number, text) for number, text in enumerate(texts)]
    grow(path, rows, finish=False)
    journal = path.with_name(".t.journal.jsonl")
    content = journal.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    journal.write_bytes(content[:cut])
    num_lines = content[:cut].count(b"\n")
    assert grow(path, [], finish=False) == max(0, num_lines - 1)
    assert grow(path, rows) == len(rows)
    assert pl.read_parquet(path)["text"].to_list() == texts


@pytest.mark.parametrize("finish", [False, True])
def test_other_settings_are_refused_by_name(tmp_path, finish):
    """Rows of two models must not end in one table; the error has to say what differs."""
    path = tmp_path / "t.parquet"
    grow(path, [row("a")], finish=finish)
    with pytest.raises(DataError, match=r"seed was 1, now 2.*or delete .*t"):
        grow(path, [], settings=SETTINGS | {"seed": 2})
    grow(path, [])


def test_only_what_differs_is_named_of_nested_settings(tmp_path):
    """Two whole dictionaries would leave the search to the user."""
    path = tmp_path / "t.parquet"
    before = SETTINGS | {"generation": {"beams": 4, "length": 12}}
    grow(path, [row("a")], settings=before, finish=False)
    now = SETTINGS | {"generation": {"length": 5, "beams": 4}}
    with pytest.raises(DataError) as caught:
        grow(path, [], settings=now)
    assert "(generation.length was 12, now 5)" in str(caught.value)
    assert "unfinished, in .t.journal.jsonl" in str(caught.value)


def test_a_damaged_journal_and_a_strange_table_are_refused(tmp_path):
    """Neither must be overwritten: the one may be repaired, the other is someone else's."""
    path = tmp_path / "t.parquet"
    grow(path, [row("a"), row("b")], finish=False)
    journal = path.with_name(".t.journal.jsonl")
    content = journal.read_text().splitlines()
    journal.write_text("\n".join([content[0], content[1][:-3], content[2]]) + "\n")
    with pytest.raises(DataError, match="is damaged"):
        grow(path, [])
    journal.write_text("\n".join([content[0], json.dumps({"x": 1})]) + "\n")
    with pytest.raises(DataError, match="other columns"):
        grow(path, [])
    journal.unlink()
    pl.DataFrame([row("a")], schema=SCHEMA).write_parquet(path, metadata={"made_by": "{}"})
    with pytest.raises(DataError, match="was not made by this command"):
        grow(path, [])


def test_two_processes_do_not_make_one_artifact(tmp_path):
    """Two journals in one file would be a mixture."""
    path = tmp_path / "t.parquet"
    with (
        grow_artifact(path, SCHEMA, KEY, SETTINGS),
        pytest.raises(DataError, match="another process"),
    ):
        grow(path, [])


def test_every_row_that_add_confirmed_survives_kill_9(tmp_path):
    """``add`` promises that rows are on the disk; rows in a buffer of the process would be lost."""
    path = tmp_path / "t.parquet"
    program = (
        "import sys; from pathlib import Path; from tests.data.test_growing_artifact import *\n"
        "with grow_artifact(Path(sys.argv[1]), SCHEMA, KEY, SETTINGS) as artifact:\n"
        "    for number in range(10**6):\n"
        "        artifact.add([row('a', number)]); print(number, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    confirmed = [int(process.stdout.readline()) for _ in range(20)][-1]
    os.kill(process.pid, signal.SIGKILL)
    confirmed = max([confirmed, *(int(line) for line in process.stdout if line.endswith("\n"))])
    process.wait()
    process.stdout.close()
    assert grow(path, [], finish=False) > confirmed
