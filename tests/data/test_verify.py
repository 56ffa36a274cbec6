"""Verification finds all that is wrong with a feature set, and nothing that is right."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fake_encoder import FakeEncoder, make_data
from feature_sets import make_feature_set, make_rows, make_spec, write_set
from local_storage_servers import serve_folder

from mmcot_data.cli import main
from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.extraction import ExtractionConfig, extract_features
from mmcot_data.files import file_sha256, write_parquet
from mmcot_data.shards.manifest import (
    read_commit,
    read_manifest,
    write_commit,
    write_manifest,
)
from mmcot_data.shards.schema import ShardRecord
from mmcot_data.shards.verification import verify_features

FIRST, SECOND = "00000-of-00002.h5", "00001-of-00002.h5"


@pytest.fixture
def features(tmp_path):
    """A feature set of two HDF5 shards."""
    make_feature_set(tmp_path / "fake")
    return tmp_path / "fake"


def flip(path, position=-1, mask=1):
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


def flip_row(folder, number, row):
    record = read_manifest(folder).shards[number]
    flip(folder / record.file, record.data_offset + row * record.data_nbytes // record.rows)


def change_index(folder, change):
    """Another index, which the manifest then describes."""
    path = folder / "index.parquet"
    write_parquet(path, change(pl.read_parquet(path)))
    found = replace(
        read_manifest(folder), index_sha256=file_sha256(path), index_nbytes=path.stat().st_size
    )
    write_manifest(folder, found)


def problems_of(folder):
    return [(problem.file, problem.message) for problem in verify_features(folder).problems]


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_whole_feature_set_has_no_problem(tmp_path, container, dtype):
    make_feature_set(tmp_path, container, dtype)
    progress = []
    report = verify_features(tmp_path, lambda done, total: progress.append((done, total)))
    assert (report.problems, report.notes) == ((), ())
    nbytes = sum(path.stat().st_size for path in tmp_path.iterdir() if "-of-" in path.stem)
    nbytes -= sum(path.stat().st_size for path in tmp_path.glob("*-of-*.json"))
    assert (report.path, report.num_shards, report.num_rows) == (str(tmp_path), 2, 6)
    assert report.nbytes == nbytes
    assert progress == sorted(progress)
    assert progress[-1] == (nbytes, nbytes)


def test_rows_are_looked_at_in_every_block(tmp_path, monkeypatch):
    """Catches an offset that is lost from one block of a large shard to the next."""
    block = "mmcot_data.shards.shard_scan._BLOCK_NBYTES"
    monkeypatch.setattr("mmcot_data.shards.writer._check_finite", lambda *_: None)
    features, digests = make_rows(11)
    features[[3, 9], 0, 0] = np.nan
    index = [(f"q{row}", "question", row) for row in range(11)]
    write_set(tmp_path, make_spec(), [(features, digests)], index)
    for row in (2, 6, 10):
        flip_row(tmp_path, 0, row)
    for rows in (1, 2, 3, 5, 11, 100):
        monkeypatch.setattr(block, rows * features[0].nbytes)
        damaged, not_finite = verify_features(tmp_path).problems
        assert damaged.rows == (2, 6, 10)
        assert damaged.question_ids == ("q2", "q6", "q10")
        assert not_finite.rows == (3, 9)


def test_all_problems_are_listed(features):
    """Catches a verification that stops at the first one."""
    flip_row(features, 0, 1)
    flip_row(features, 0, 2)
    (features / SECOND).unlink()
    flip(features / f"{SECOND}.json", 100)
    first, second, commit = sorted(verify_features(features).problems, key=lambda p: p.file)
    assert (first.file, first.rows, first.question_ids) == (FIRST, (1, 2), ("q1", "q2", "q5"))
    assert first.message.startswith("2 of 4 rows differ from their checksums; restore it")
    assert (second.file, second.rows, second.question_ids) == (SECOND, (0, 1), ("q4", "q5"))
    assert second.message.startswith("it is absent")
    assert commit.file == f"{SECOND}.json"
    assert "Readers do not need this file" in commit.message


def test_a_damaged_index_leaves_the_rows_to_be_told(features):
    """A damaged index may name the wrong questions: it names none."""
    flip(features / "index.parquet", 200)
    flip_row(features, 1, 0)
    index, shard = verify_features(features).problems
    assert index.file == "index.parquet"
    assert (shard.file, shard.rows, shard.question_ids) == (SECOND, (0,), ())


def test_a_shared_folder_has_no_commit_records(features):
    for path in features.glob("*.h5.json"):
        path.unlink()
    (features / ".lock").touch()
    report = verify_features(features)
    assert (report.problems, report.notes) == ((), ())


def test_an_unfinished_folder_says_how_far_it_is(features):
    (features / "manifest.json").unlink()
    (features / "index.parquet").unlink()
    (problem,) = verify_features(features).problems
    assert problem.file == "manifest.json"
    assert "is unfinished" in problem.message
    assert "2 of 2 shards are complete" in problem.message
    (features / FIRST).write_bytes(b"")
    (features / f"{SECOND}.json").unlink()
    report = verify_features(features)
    manifest, shard = report.problems
    assert "0 of 2 shards are complete" in manifest.message
    assert (shard.file, shard.rows) == (FIRST, (0, 1, 2, 3))
    assert "it has 0 bytes, the commit record says" in shard.message
    assert [note.file for note in report.notes] == [SECOND]


def test_without_a_manifest_shards_are_compared_with_their_commit_records(features):
    flip_row(features, 1, 1)
    flip(features / "manifest.json", 300)
    manifest, shard = verify_features(features).problems
    assert (manifest.file, shard.file, shard.rows) == ("manifest.json", SECOND, (1,))
    assert "is damaged" in manifest.message


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_folder_that_is_no_feature_set_is_a_problem(tmp_path, name):
    (tmp_path / "empty").mkdir()
    ((file, message),) = problems_of(tmp_path / name)
    assert file == "manifest.json"
    assert "does not exist" in message if name == "nothing" else "is no feature set" in message


def test_what_is_left_over_is_noted(features):
    (features / ".00002-of-00003.h5.17.tmp").write_bytes(b"half")
    (features / "00002-of-00003.h5").write_bytes(b"of another plan")
    (features / "README.md").write_text("ours")
    report = verify_features(features)
    assert report.problems == ()
    temporary, stray = report.notes
    assert temporary.file == ".00002-of-00003.h5.17.tmp"
    assert "half-written" in temporary.message
    assert (stray.file, stray.message) == (
        "00002-of-00003.h5",
        "it is not among the shards that manifest.json describes",
    )


def test_rows_of_no_question_are_noted(features):
    change_index(features, lambda index: index.filter(pl.col("question_id") != "q4"))
    report = verify_features(features)
    assert report.problems == ()
    (note,) = report.notes
    assert (note.file, note.rows, note.question_ids) == (SECOND, (0,), ())
    assert note.message == "1 of 2 rows belong to no question"


@pytest.mark.parametrize("bad", [np.nan, np.copysign(np.nan, -1), np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values_that_are_not_finite_are_found(tmp_path, monkeypatch, bad, dtype):
    """A writer that let them through made checksums that fit."""
    monkeypatch.setattr("mmcot_data.shards.writer._check_finite", lambda *_: None)
    features, digests = make_rows(4, dtype)
    features[1, 0, :2] = np.finfo(dtype).max, np.finfo(dtype).min
    features[2, 4, 6] = bad
    index = [("a", "question", 0), ("b", "question", 2), ("b", "choice_0", 1), ("c", "x", 3)]
    write_set(tmp_path, make_spec(dtype), [(features, digests)], index)
    (problem,) = verify_features(tmp_path).problems
    assert (problem.rows, problem.question_ids) == ((2,), ("b",))
    assert "1 of 4 rows hold values that are NaN or infinite" in problem.message


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.with_columns(
            image_sha256=pl.when(question_id="q3").then(pl.lit("ab" * 32)).otherwise("image_sha256")
        ),
        lambda index: index.with_columns(
            image_sha256=pl.when(question_id="q3").then(None).otherwise("image_sha256")
        ),
        lambda index: index.with_columns(
            num_patches=pl.when(question_id="q3").then(5).otherwise("num_patches").cast(pl.Int32)
        ),
    ],
)
def test_an_index_of_other_pictures_is_found(tmp_path, container, change):
    """The index has the right digest: only the shards contradict it."""
    make_feature_set(tmp_path, container)
    change_index(tmp_path, change)
    (problem,) = verify_features(tmp_path).problems
    assert (problem.rows, problem.question_ids) == ((3,), ("q3",))
    assert "than index.parquet says" in problem.message


def test_rows_of_unknown_pictures_agree_with_an_index_that_does_not_know_them(tmp_path):
    """As an import without its data set leaves them."""
    features, digests = make_rows(2)
    digests[1] = 0
    index = [("a", "question", 0), ("b", "question", 1)]
    write_set(tmp_path, make_spec(), [(features, digests)], index)
    change_index(
        tmp_path,
        lambda index: index.with_columns(
            image_sha256=pl.when(question_id="b").then(None).otherwise("image_sha256")
        ),
    )
    assert verify_features(tmp_path).problems == ()


@pytest.mark.parametrize(
    ("change", "message", "question_ids"),
    [
        (lambda index: pl.concat([index, index[2:3]]), "2 rows share question and image role", ()),
        (
            lambda index: index.with_columns(
                status=pl.when(question_id="q6").then(pl.lit("ok")).otherwise("status")
            ),
            "ok and no features",
            ("q6",),
        ),
        (
            lambda index: index.with_columns(row=pl.col("row") + 1),
            "2 rows point outside the shards",
            (),
        ),
        (lambda index: index.drop("status"), "status: expected String, found nothing", ()),
        (lambda index: index.cast({"width": pl.String}), "width: expected Int32", ()),
        (lambda index: index.rename({"row": "place"}), "row", ()),
    ],
)
def test_an_index_that_contradicts_itself_is_found(features, change, message, question_ids):
    change_index(features, change)
    found = [p for p in verify_features(features).problems if p.file == "index.parquet"]
    assert len(found) == 1
    assert message in found[0].message
    assert found[0].question_ids == question_ids


def test_a_manifest_that_contradicts_itself_is_found(features):
    manifest = read_manifest(features)
    write_manifest(features, replace(manifest, rows=7))
    assert problems_of(features) == [("manifest.json", "it says 7 rows, its shards have 6")]
    twice = replace(manifest, rows=10, shards=(*manifest.shards, manifest.shards[0]))
    write_manifest(features, twice)
    assert ("manifest.json", "it lists a shard more than once") in problems_of(features)
    first, second = manifest.shards
    write_manifest(features, replace(manifest, rows=5, shards=(replace(first, rows=3), second)))
    assert any(
        "the manifest is damaged: 280 bytes" in message for _, message in problems_of(features)
    )


def test_a_manifest_with_another_spec_or_digest_than_the_shards_is_found(features):
    manifest = read_manifest(features)
    write_manifest(features, replace(manifest, spec=make_spec(revision="v2")))
    problems = dict(problems_of(features))
    assert problems.keys() == {FIRST, SECOND, f"{FIRST}.json", f"{SECOND}.json"}
    assert all("revision: expected 'v2', found None" in message for message in problems.values())
    first = replace(manifest.shards[0], sha256="ab" * 32)
    write_manifest(features, replace(manifest, shards=(first, manifest.shards[1])))
    problems = dict(problems_of(features))
    assert problems.keys() == {FIRST, f"{FIRST}.json"}
    assert "all rows agree with their checksums" in problems[FIRST]


def test_a_shard_all_of_whose_pictures_failed_has_a_commit_record_only(features):
    commit = read_commit(features / f"{FIRST}.json")
    record = ShardRecord.without_rows("00002-of-00003.h5", failed=2)
    write_commit(features, replace(commit, shard=record, pixel_sha256=()))
    assert verify_features(features).problems == ()
    (features / "manifest.json").unlink()
    (problem,) = verify_features(features).problems
    assert "3 of 2 shards are complete" in problem.message


def test_a_commit_record_that_contradicts_the_manifest_is_found(features):
    commit = read_commit(features / f"{FIRST}.json")
    write_commit(features, replace(commit, plan=replace(commit.plan, shard_size=9)))
    ((file, message),) = problems_of(features)
    assert file == f"{FIRST}.json"
    assert "shard_size: expected 4, found 9" in message
    write_commit(features, commit)
    write_commit(features, replace(commit, shard=replace(commit.shard, file="00002-of-00002.h5")))
    ((file, message),) = problems_of(features)
    assert file == "00002-of-00002.h5.json"
    assert "rows: expected 0, found 4" in message


@pytest.mark.parametrize("name", [FIRST, f"{FIRST}.json", "index.parquet", "manifest.json"])
def test_what_is_deleted_as_advised_is_made_anew(tmp_path, name):
    """Catches advice that leaves the damage: an extraction does not read whole shards again."""
    (tmp_path / "data").mkdir()
    config = ExtractionConfig(
        data=make_data(tmp_path / "data"),
        out=tmp_path,
        encoder=EncoderConfig(name="fake"),
        shard_size=6,
    )
    extract_features(config, encoder=FakeEncoder())
    folder = tmp_path / "fake"
    assert verify_features(folder).problems == ()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    flip(folder / name, len(before[name]) // 2)
    assert name in [file for file, _ in problems_of(folder)]
    (folder / name).unlink()
    extract_features(config, encoder=FakeEncoder())
    assert verify_features(folder).problems == ()
    assert (folder / name).read_bytes() == before[name]


def test_a_disk_that_fails_is_one_problem_of_several(features, monkeypatch):
    """Catches a verification that an I/O error ends."""
    opened = Path.open

    def fail(path, *arguments, **keywords):
        if path.name == FIRST:
            raise OSError(5, "Input/output error", str(path))
        return opened(path, *arguments, **keywords)

    flip_row(features, 1, 0)
    monkeypatch.setattr(Path, "open", fail)
    first, second = verify_features(features).problems
    assert (first.file, first.question_ids) == (FIRST, ("q0", "q1", "q2", "q3", "q5"))
    assert "Input/output error" in first.message
    assert (second.file, second.rows) == (SECOND, (0,))


def test_a_feature_set_at_a_url_is_downloaded_and_verified(features, tmp_path):
    cache = tmp_path / "cache"
    with serve_folder(features.parent) as server:
        url = f"{server.url}/fake"
        report = verify_features(url, cache=cache)
        assert (report.path, report.problems, report.num_rows) == (url, (), 6)
        sha256 = read_manifest(features).shards[0].sha256
        (copy,) = (path for path in cache.rglob("*.h5") if path.stem == sha256)
        flip(copy)
        (problem,) = verify_features(url, cache=cache).problems
        assert f"delete {copy} to download it again" in problem.message
        copy.unlink()
        flip(features / FIRST)
        (problem,) = verify_features(url, cache=cache).problems
        assert (problem.file, problem.rows) == (FIRST, (0, 1, 2, 3))
        assert "expected sha256" in problem.message


def test_the_command_prints_every_problem_and_exits_with_1(features, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    other = tmp_path / "other"
    make_feature_set(other, "arrow")
    assert main(["verify", str(other)]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{other}: no problem; read 2 shards, 6 rows, ")
    assert "1/1" in output.err
    flip_row(features, 0, 1)
    (features / ".x.tmp").touch()
    report = tmp_path / "report.json"
    assert main(["verify", str(features), str(other), "--json", str(report)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{features}: 1 problem; read 2 shards")
    assert lines[1].startswith(f"  PROBLEM {FIRST}: 1 of 4 rows differ from their checksums")
    assert lines[2:4] == ["    rows: 1", "    questions: q1, q2"]
    assert lines[4].startswith("  note .x.tmp: half-written")
    assert lines[5].startswith(f"{other}: no problem")
    first, second = json.loads(report.read_text())
    assert first["problems"][0]["question_ids"] == ["q1", "q2"]
    assert first["notes"][0]["file"] == ".x.tmp"
    assert second["problems"] == []
    assert second["num_rows"] == 6


def test_the_command_verifies_all_feature_sets_of_an_artifact_root(tmp_path, capsys):
    for name in ("clip", "detr"):
        make_feature_set(tmp_path / name)
    (tmp_path / "captions").mkdir()
    assert main(["verify", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        str(tmp_path / "clip"),
        str(tmp_path / "detr"),
    ]
    (tmp_path / "clip" / "manifest.json").unlink()
    assert main(["verify", str(tmp_path)]) == 1


def test_the_command_shortens_long_lists(tmp_path, capsys):
    features, digests = make_rows(40)
    index = [(f"q{row}", "question", row) for row in range(40)]
    write_set(tmp_path, make_spec(), [(features, digests)], index)
    flip(tmp_path / "00000-of-00001.h5", 0)
    assert main(["verify", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "    rows: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … (40 in all)" in out
    assert "q12" not in out


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as end:
        main(["verify", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "mmcot-data verify shards/detr --json report.json" in text
    assert "Exit code 0: no problem, 1: problems" in text
