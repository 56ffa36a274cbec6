"""Extraction: the right picture in the right row, whatever is broken, missing or interrupted."""

import errno
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from fake_encoder import (
    PATCHES,
    WIDTH,
    FakeEncoder,
    colour_of,
    make_data,
    picture_path,
    save_picture,
)
from PIL import Image

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.errors import (
    DataError,
    EncoderError,
    ExtractionError,
    FolderLockedError,
    ImageError,
    ShardError,
    SpecMismatchError,
)
from mmcot_data.extraction import (
    ExtractionConfig,
    begin_extraction,
    extract_feature_sets,
    extract_features,
    extract_shard,
    finish_extraction,
    open_pictures,
    prepare_extraction,
    scan_source,
)
from mmcot_data.extraction.config import allowed_failures
from mmcot_data.images import bytes_sha256, decode_rgb
from mmcot_data.scienceqa import read_scienceqa
from mmcot_data.shards import open_features
from mmcot_data.shards.folder import write_folder
from mmcot_data.tables import write_tables


def make_config(data, out, **changes):
    encoder = EncoderConfig(name=changes.pop("name", "fake"))
    settings = {"shard_size": 5, "batch_size": 2} | changes
    return ExtractionConfig(data=data, out=out, encoder=encoder, **settings)


def make_plan(config, encoder=None):
    source = scan_source(open_pictures(config))
    return prepare_extraction(config, encoder or FakeEncoder(), source)[0]


def pending_of(plan):
    """The shards that are to be made, after a worker that has made none."""
    with begin_extraction(plan, FakeEncoder()) as pending:
        return pending


def run(data, out, encoder=None, **changes):
    return extract_features(make_config(data, out, **changes), encoder=encoder or FakeEncoder())


def shard_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[0-9]*-of-*"))}


def assert_colours(folder, numbers, dtype="float16"):
    """The independent answer: each picture's own colour, in the row of its own question."""
    features = open_features(folder)
    assert features.question_ids == [str(number) for number in numbers]
    for number in numbers:
        expected = (np.array(colour_of(number), np.float32) / 256).astype(dtype)
        np.testing.assert_array_equal(features[str(number)], np.tile(expected, (PATCHES, 1)))


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    return make_data(tmp_path / "data")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "shards"


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_question_gets_its_own_picture(data, out, container, dtype):
    """Catches rows in the order of batches instead of the plan's, and a shard's offset."""
    calls = []
    config = make_config(data, out, format=container, dtype=dtype)
    summary = extract_features(config, lambda *call: calls.append(call), encoder=FakeEncoder())
    assert_colours(out / "fake", range(12), dtype)
    assert (summary.num_images, summary.num_distinct, summary.num_extracted) == (12, 12, 12)
    assert (summary.num_shards, summary.failed, summary.row_shape) == (3, {}, (PATCHES, WIDTH))
    assert calls[0] == (0, 12)
    assert calls[-1] == (12, 12)
    assert calls == sorted(calls)
    suffix = {"hdf5": "h5", "arrow": "arrow"}[container]
    names = [f"{n:05d}-of-00003.{suffix}" for n in range(3)]
    records = [f"{name}.json" for name in names]
    assert sorted(path.name for path in (out / "fake").iterdir()) == sorted(
        [".lock", *names, *records, "index.parquet", "manifest.json"]
    )


def test_only_pictures_of_equal_size_are_encoded_together(data, out):
    encoder = FakeEncoder()
    run(data, out, encoder)
    shapes = {(3, 16, 16), (3, 16, 24), (3, 32, 16)}
    assert {shape[1:] for shape in encoder.batches} == shapes
    assert max(shape[0] for shape in encoder.batches) == 2
    assert sum(shape[0] for shape in encoder.batches) == 12


def test_index_names_every_picture(data, out):
    """Catches an index without roles, sizes or the digests that other data sets are joined by."""
    save_picture(picture_path(data, 3, "choice_1.png"), 500, (20, 40))
    run(data, out)
    index = pl.read_parquet(out / "fake" / "index.parquet")
    assert index.columns == [
        "question_id",
        "role",
        "shard",
        "row",
        "num_patches",
        "width",
        "height",
        "image_sha256",
        "pixel_sha256",
        "status",
        "error",
        "file",
    ]
    row = index.filter(pl.col("role") == "choice_1").row(0, named=True)
    assert (row["question_id"], row["file"]) == ("3", "images/train/3/choice_1.png")
    assert (row["shard"], row["row"]) == ("00000-of-00003.h5", 4)
    assert (row["width"], row["height"], row["num_patches"]) == (20, 40, PATCHES)
    assert (row["status"], row["error"]) == ("ok", None)
    assert index["image_sha256"].n_unique() == index["pixel_sha256"].n_unique() == 13
    assert index["status"].to_list() == ["ok"] * 13


def test_equal_files_become_one_row(data, out):
    shutil.copy(picture_path(data, 0), picture_path(data, 7))
    shutil.copy(picture_path(data, 0), picture_path(data, 7, "choice_0.png"))
    encoder = FakeEncoder()
    summary = run(data, out, encoder)
    assert (summary.num_images, summary.num_distinct) == (13, 11)
    assert sum(shape[0] for shape in encoder.batches) == 11
    features = open_features(out / "fake", roles=("choice_0",))
    np.testing.assert_array_equal(features["7"], open_features(out / "fake")["0"])


def damage(data):
    """Four pictures that can't be used; the last is found out only by decoding it."""
    picture_path(data, 1).unlink()
    picture_path(data, 4).write_bytes(b"")
    picture_path(data, 6).write_text("no picture")
    path = picture_path(data, 9)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-900])


def test_bad_pictures_are_outcomes(data, out):
    """Catches a bad picture that ends the run, shifts the rows behind it, or becomes zeros."""
    damage(data)
    summary = run(data, out, max_failures="4")
    assert_colours(out / "fake", [0, 2, 3, 5, 7, 8, 10, 11])
    assert dict(summary.failed) == {"missing": 1, "empty": 1, "unreadable": 1, "truncated": 1}
    index = pl.read_parquet(out / "fake" / "index.parquet")
    failed = index.filter(pl.col("status") != "ok")
    assert failed["question_id"].to_list() == ["1", "4", "6", "9"]
    assert failed["status"].to_list() == ["missing", "empty", "unreadable", "truncated"]
    assert failed["row"].null_count() == failed["shard"].null_count() == 4
    assert all("image.png" in error for error in failed["error"])


def test_many_missing_pictures_stop_before_anything_is_computed(data, out):
    for number in range(11):
        picture_path(data, number).unlink()
    encoder = FakeEncoder()
    with pytest.raises(ExtractionError, match=r"11 of 12 .* allows 0") as error:
        run(data, out, encoder)
    assert str(error.value).count(": missing: ") == 10
    assert "and 1 more" in str(error.value)
    assert "--max-failures 11" in str(error.value)
    assert encoder.batches == []
    assert not (out / "fake").exists()


def test_repaired_pictures_are_tried_again_and_nothing_else(data, out, tmp_path):
    """Catches a failure that is final, and a repair that costs the whole data set."""
    originals = {number: picture_path(data, number).read_bytes() for number in (1, 4, 6, 9)}
    run(data, tmp_path / "whole")
    damage(data)
    with pytest.raises(ExtractionError, match="4 of 12 pictures can't be used"):
        run(data, out, max_failures="3")
    run(data, out, max_failures="4")
    for number, failed in ((9, "3"), (6, "2")):
        picture_path(data, number).write_bytes(originals[number])
        encoder = FakeEncoder()
        summary = run(data, out, encoder, max_failures="4")
        assert (summary.num_extracted, summary.num_failed) == (5, int(failed))
        assert str(number) in open_features(out / "fake").question_ids
    for number in (1, 4):
        picture_path(data, number).write_bytes(originals[number])
    assert run(data, out).num_extracted == 5
    assert shard_bytes(out / "fake").keys() == shard_bytes(tmp_path / "whole" / "fake").keys()
    for name, content in shard_bytes(tmp_path / "whole" / "fake").items():
        if name.endswith(".h5"):
            assert (out / "fake" / name).read_bytes() == content
    assert_colours(out / "fake", range(12))


@pytest.mark.parametrize("same", [True, False])
def test_equal_bad_files_are_repaired_one_by_one(data, out, same):
    """Catches two pictures that share a place in the plan because a server sent an error page."""
    for number in (2, 7):
        picture_path(data, number).write_bytes(b"<html>404 not found</html>")
    run(data, out, max_failures="2")
    save_picture(picture_path(data, 2), 2)
    assert run(data, out, max_failures="1").num_failed == 1
    save_picture(picture_path(data, 7), 2 if same else 7)
    assert run(data, out).num_failed == 0
    features = open_features(out / "fake")
    assert features.question_ids == [str(number) for number in range(12)]
    assert np.array_equal(features["7"], features["2"]) == same


def test_a_worker_that_saw_older_pictures_does_not_finish(data, out):
    """Catches a manifest over shards that another worker is about to make again."""
    content = picture_path(data, 3).read_bytes()
    picture_path(data, 3).unlink()
    config = make_config(data, out, max_failures="1")
    older = make_plan(config)
    for number in pending_of(older):
        extract_shard(older.shard_task(number), FakeEncoder())
    picture_path(data, 3).write_bytes(content)
    newer = make_plan(config)
    with begin_extraction(newer, FakeEncoder()) as pending:
        assert pending == [0]
        with pytest.raises(ExtractionError, match="1 of 3 shards are not complete"):
            finish_extraction(older)
        extract_shard(newer.shard_task(0), FakeEncoder())
        assert finish_extraction(newer).num_failed == 0
    assert_colours(out / "fake", range(12))


def test_another_request_is_refused_from_the_beginning(data, out):
    """Before anything is claimed, too. Catches two plans in one folder."""
    plan = make_plan(make_config(data, out))
    with begin_extraction(plan, FakeEncoder()):
        with pytest.raises(SpecMismatchError, match="dtype"):
            run(data, out, dtype="float32")
        with (
            pytest.raises(FolderLockedError, match="is being written by process"),
            write_folder(plan.folder, plan.spec, plan.key),
        ):
            pass
    assert run(data, out, dtype="float32").num_distinct == 12


def test_padding_is_refused_where_it_would_be_dropped(data, out):
    with pytest.raises(ExtractionError, match=r"takes no padded pictures.*leave out --pad-to"):
        run(data, out, pad_to=32)


def test_every_feature_set_that_can_be_finished_is(data, out):
    """Catches one encoder's failures that leave the others' sets unfinished."""
    picture_path(data, 4).write_bytes(b"no picture")
    configs = [make_config(data, out, name=name, max_failures="1") for name in ("one", "two")]
    extract_feature_sets(configs, encoders=[FakeEncoder(), FakeEncoder()])
    for name in ("one", "two"):
        (out / name / "manifest.json").unlink()
    configs[0] = replace(configs[0], max_failures="1")
    original = finish_extraction

    def finish(plan):
        if plan.folder.name == "one":
            raise ExtractionError("too many failed")
        return original(plan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmcot_data.extraction.run.finish_extraction", finish)
        with pytest.raises(ExtractionError, match="too many failed"):
            extract_feature_sets(configs, encoders=[FakeEncoder(), FakeEncoder()])
    assert not (out / "one" / "manifest.json").exists()
    assert (out / "two" / "manifest.json").exists()


def test_a_picture_that_could_not_be_decoded_is_tried_again(data, out, monkeypatch):
    """The same bytes: only the decoder was at fault. Catches a failure that sticks."""
    digest = bytes_sha256(picture_path(data, 3).read_bytes())

    def fail(bytes_, *args, **kwargs):
        if bytes_sha256(bytes_) == digest:
            raise ImageError("unreadable", "no memory")
        return decode_rgb(bytes_, *args, **kwargs)

    monkeypatch.setattr("mmcot_data.extraction.decode.decode_rgb", fail)
    assert dict(run(data, out, max_failures="1").failed) == {"unreadable": 1}
    assert run(data, out, max_failures="1").num_extracted == 0
    monkeypatch.undo()
    assert run(data, out).num_extracted == 5
    assert_colours(out / "fake", range(12))


def test_too_many_failures_keep_the_shards(data, out):
    """Catches hours of work thrown away by one truncated picture too many."""
    damage(data)
    with pytest.raises(ExtractionError, match="4 of 12"):
        run(data, out, max_failures="3")
    with pytest.raises(ShardError, match="unfinished"):
        open_features(out / "fake")
    encoder = FakeEncoder()
    summary = run(data, out, encoder, max_failures="4")
    assert encoder.batches == []
    assert (summary.num_extracted, summary.num_failed) == (0, 4)
    with pytest.raises(ExtractionError, match="4 of 12"):
        run(data, out, max_failures="3")


def test_a_shard_without_rows_has_a_record_and_no_file(data, out):
    damage(data)
    summary = run(data, out, max_failures="4", shard_size=1, format="arrow")
    assert (summary.num_distinct, summary.num_shards) == (8, 12)
    assert_colours(out / "fake", [0, 2, 3, 5, 7, 8, 10, 11])
    assert len(list((out / "fake").glob("*.arrow"))) == 8
    assert len(list((out / "fake").glob("*.arrow.json"))) == 12
    assert run(data, out, max_failures="4", shard_size=1, format="arrow").num_extracted == 0


def test_a_data_set_all_of_whose_pictures_are_missing_can_be_asked_for(data, out):
    shutil.rmtree(data / "images")
    summary = run(data, out, max_failures="100%")
    assert (summary.num_distinct, summary.num_shards, summary.num_failed) == (0, 3, 12)
    features = open_features(out / "fake")
    assert (len(features), features.question_ids) == (0, [])
    assert not features.gather(["1"])[1].any()


def file_times(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_finished_folder_is_left_alone(data, out):
    run(data, out)
    before = file_times(out)
    encoder = FakeEncoder()
    summary = run(data, out, encoder)
    assert (summary.num_extracted, summary.num_distinct, encoder.batches) == (0, 12, [])
    assert before == file_times(out)


def test_killed_and_run_again_gives_the_same_bytes(data, out, tmp_path):
    """Killed in its second shard. Catches partial files that pass for complete ones."""
    run(data, tmp_path / "whole")
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_extract_and_hang, args=(data, out))
    process.start()
    first = out / "fake" / "00000-of-00003.h5.json"
    while not first.exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (out / "fake" / "manifest.json").exists()
    encoder = FakeEncoder()
    summary = run(data, out, encoder)
    assert summary.num_extracted == sum(shape[0] for shape in encoder.batches) == 7
    assert shard_bytes(out / "fake") == shard_bytes(tmp_path / "whole" / "fake")
    for name in ("manifest.json", "index.parquet"):
        assert (out / "fake" / name).read_bytes() == (
            tmp_path / "whole" / "fake" / name
        ).read_bytes()


def _extract_and_hang(data, out):
    run(data, out, FakeEncoder(hang_at=5))


def test_an_interrupted_shard_leaves_nothing_and_is_made_again(data, out, tmp_path):
    run(data, tmp_path / "whole")

    def interrupt(done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_features(make_config(data, out), interrupt, encoder=FakeEncoder())
    assert len(shard_bytes(out / "fake")) == 2
    (out / "fake" / ".00001-of-00003.h5.123.tmp").write_bytes(b"half a shard")
    assert run(data, out).num_extracted == 7
    assert shard_bytes(out / "fake") == shard_bytes(tmp_path / "whole" / "fake")
    assert list((out / "fake").glob(".*.tmp")) == []


def test_shards_do_not_depend_on_who_makes_them_in_which_order(data, out, tmp_path):
    run(data, tmp_path / "whole")
    plan = pickle.loads(pickle.dumps(make_plan(make_config(data, out))))
    assert pending_of(plan) == [0, 1, 2]
    with pytest.raises(ExtractionError, match="3 of 3 shards"):
        finish_extraction(plan)
    commits = [extract_shard(plan.shard_task(number), FakeEncoder()) for number in (2, 0, 1)]
    assert [commit.shard.rows for commit in commits] == [2, 5, 5]
    assert pending_of(plan) == []
    encoder = FakeEncoder()
    assert extract_shard(plan.shard_task(2), encoder) == commits[0]
    assert encoder.batches == []
    assert finish_extraction(plan).num_distinct == 12
    assert shard_bytes(out / "fake") == shard_bytes(tmp_path / "whole" / "fake")


@pytest.mark.parametrize("finished", [True, False])
def test_another_spec_is_refused_with_what_differs(data, out, finished):
    run(data, out)
    if not finished:
        (out / "fake" / "manifest.json").unlink()
    encoder = FakeEncoder(layer="last")
    with pytest.raises(SpecMismatchError, match="layer: expected 'last', found 'mean'"):
        run(data, out, encoder)
    with pytest.raises(SpecMismatchError, match="dtype: expected 'float32', found 'float16'"):
        run(data, out, dtype="float32")
    assert encoder.batches == []


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard_size": 6}, "shard_size: expected 6, found 5"),
        ({"format": "arrow"}, "format: expected 'arrow', found 'hdf5'"),
        ({"splits": ("test",)}, "num_images: expected 4, found 12"),
    ],
)
def test_another_plan_is_refused_with_what_differs(data, out, finished, changes, message):
    """Catches a folder that mixes two plans, of which some pictures would be lost."""
    run(data, out)
    if not finished:
        (out / "fake" / "manifest.json").unlink()
    with pytest.raises(ShardError, match=message):
        run(data, out, **changes)


@pytest.mark.parametrize("finished", [True, False])
def test_a_changed_picture_is_refused_by_its_name(data, out, finished):
    """Catches features of another picture, and a message that names a digest only."""
    run(data, out)
    if not finished:
        (out / "fake" / "manifest.json").unlink()
    save_picture(picture_path(data, 5), 1000)
    picture_path(data, 7).unlink()
    with pytest.raises(ShardError) as error:
        run(data, out, max_failures="1")
    assert "2 pictures are not those" in str(error.value)
    assert "question 5, question (images/val/5/image.png): expected sha256" in str(error.value)
    assert "question 7, question (images/val/7/image.png)" in str(error.value)
    assert "found it is missing" in str(error.value)
    assert (out / "fake" / "manifest.json").exists() == finished


def test_added_and_removed_questions_are_named(data, out):
    run(data, out, splits=("test",))
    with pytest.raises(ShardError) as error:
        run(data, out)
    assert "8 pictures are asked for now and were not: question 0, question" in str(error.value)


def test_a_picture_that_returns_as_a_copy_needs_no_computing(data, out):
    """Only the index is written anew. Catches a plan that the copy makes shorter."""
    content = picture_path(data, 2).read_bytes()
    picture_path(data, 5).unlink()
    run(data, out, max_failures="1")
    assert "5" not in open_features(out / "fake")
    picture_path(data, 5).write_bytes(content)
    encoder = FakeEncoder()
    summary = run(data, out, encoder)
    assert (encoder.batches, summary.num_failed) == ([], 0)
    features = open_features(out / "fake")
    np.testing.assert_array_equal(features["5"], features["2"])


def test_a_truncated_shard_is_made_again(data, out):
    run(data, out)
    before = shard_bytes(out / "fake")
    path = out / "fake" / "00001-of-00003.h5"
    path.write_bytes(path.read_bytes()[:-100])
    assert run(data, out).num_extracted == 5
    assert shard_bytes(out / "fake") == before
    assert_colours(out / "fake", range(12))


def test_flipped_bits_are_found_before_the_manifest_is_written(data, out):
    plan = make_plan(make_config(data, out))
    for number in pending_of(plan):
        extract_shard(plan.shard_task(number), FakeEncoder())
    path = plan.folder / "00001-of-00003.h5"
    content = bytearray(path.read_bytes())
    content[4100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"00001-of-00003\.h5 is damaged: its sha256"):
        finish_extraction(plan)
    assert not (plan.folder / "manifest.json").exists()


def test_a_picture_that_changes_meanwhile_stops_the_run(data, out):
    """Catches features filed under the digest of another picture."""
    plan = make_plan(make_config(data, out))
    pending_of(plan)
    save_picture(picture_path(data, 0), 1000)
    with pytest.raises(ExtractionError, match="has changed"):
        extract_shard(plan.shard_task(0), FakeEncoder())
    picture_path(data, 0).unlink()
    with pytest.raises(ExtractionError, match="has changed"):
        extract_shard(plan.shard_task(0), FakeEncoder())
    assert shard_bytes(plan.folder) == {}


def fail_to_read(monkeypatch, failing):
    """The disk fails for one picture."""

    def read_bytes(path):
        if path == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path)

    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def test_a_failing_disk_changes_no_plan(data, out, monkeypatch):
    """Catches a picture left out for good because it could not be read once."""
    fail_to_read(monkeypatch, picture_path(data, 6))
    with pytest.raises(OSError, match=r"Input/output error: .*6/image\.png"):
        run(data, out, max_failures="4")
    monkeypatch.undo()
    assert run(data, out).num_failed == 0


def test_a_failing_disk_is_no_changed_picture(data, out, monkeypatch):
    """Only an OSError makes the flow try the shard again."""
    plan = make_plan(make_config(data, out))
    pending_of(plan)
    with monkeypatch.context() as patch:
        fail_to_read(patch, picture_path(data, 0))
        with pytest.raises(OSError, match=r"Input/output error: .*0/image\.png"):
            extract_shard(plan.shard_task(0), FakeEncoder())
    assert shard_bytes(plan.folder) == {}
    assert extract_shard(plan.shard_task(0), FakeEncoder()).shard.rows == 5


@pytest.mark.parametrize(
    ("factor", "message"), [(float("nan"), "not finite"), (1e6, "more than float16 holds")]
)
def test_features_that_are_not_finite_name_the_picture_and_leave_nothing(
    data, out, factor, message
):
    with pytest.raises(ShardError, match=rf"train/\d/image\.png.*{message}"):
        run(data, out, FakeEncoder(factor=factor))
    assert shard_bytes(out / "fake") == {}
    assert run(data, out, dtype="float32").num_distinct == 12  # as the message advises


def test_an_encoder_that_breaks_its_promise_is_an_error(data, out):
    """numpy would repeat a single row for all pictures without a word."""
    encoder = FakeEncoder()
    encoder.encode = lambda _: torch.zeros(1, PATCHES, WIDTH)
    with pytest.raises(EncoderError, match="promised"):
        run(data, out, encoder)
    encoder = FakeEncoder()
    encoder.prepare = lambda _: torch.zeros(3, 1, 1)
    with pytest.raises(EncoderError, match="expected height and width"):
        run(data, out, encoder)


def test_splits_restrict_the_pictures(data, out):
    summary = run(data, out, splits=("test", "val"))
    assert summary.num_images == 8
    assert_colours(out / "fake", range(4, 12))
    for path in (data / "images").rglob("*.png"):
        path.unlink()
    with pytest.raises(ExtractionError, match=r"--split test"):
        run(data, out, splits=("test",))


def test_an_unknown_split_is_refused_with_those_that_are_known(data, out):
    with pytest.raises(DataError, match=r"dev.*minitrain"):
        run(data, out, splits=("dev",))


def test_questions_without_pictures_are_an_explained_error(tmp_path, out):
    problems = json.loads(((make_data(tmp_path)) / "problems.json").read_text())
    for problem in problems.values():
        problem["image"] = None
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(ExtractionError, match="no pictures"):
        run(tmp_path, out)


def test_folder_name_of_a_hub_model(data, out):
    plan = make_plan(make_config(data, out, name="hf:org/some model"))
    assert plan.folder == out / "hf-org-some-model"


def test_default_shards_hold_1024_rows(data, out):
    plan = make_plan(make_config(data, out, shard_size=None))
    assert plan.key.shard_size == 1024
    big = FakeEncoder()
    big.describe = lambda: FakeEncoder().describe() | {"num_patches": 145, "feature_dim": 1024}
    plan = make_plan(make_config(data, out, shard_size=None), big)
    assert plan.key.shard_size == 512  # 903 rows are 256 MiB


def test_tables_are_written_once(data, out):
    (data / "captions.json").write_text(json.dumps({"captions": {"3": "a colour"}}))
    written = write_tables(read_scienceqa(data), out)
    assert written == [out / "questions.parquet", out / "captions" / "scienceqa.parquet"]
    assert pl.read_parquet(written[0])["question_id"].to_list() == [str(n) for n in range(12)]
    assert pl.read_parquet(written[1]).rows() == [("3", "question", "a colour")]
    before = [path.read_bytes() for path in written]
    run(data, out)
    assert [path.read_bytes() for path in written] == before


def test_an_artifact_root_of_other_questions_is_refused(data, out, tmp_path):
    """Catches shards that are joined to the questions of another data set."""
    run(data, out)
    other = tmp_path / "other"
    other.mkdir()
    make_data(other, num_questions=15)
    with pytest.raises(DataError, match=r"0 only in the table, 3 only in the data set, 8 that"):
        run(other, out, name="other")
    assert not (out / "other").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "npy"},
        {"dtype": "bfloat16"},
        {"layout": "zip"},
        {"pad_to": 16},
        {"pad_to": 64},
        {"pad_to": 0},
        {"shard_size": 0},
        {"batch_size": 0},
        {"max_failures": "-1"},
        {"max_failures": "few"},
    ],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ValueError, match="expected"):
        make_config(Path("data"), Path("out"), **changes)


@pytest.mark.parametrize(
    ("limit", "total", "allowed"),
    [("0", 50, 0), ("7", 3, 7), ("1%", 99, 0), ("1%", 304, 3), ("0.5%", 1000, 5), ("100%", 9, 9)],
)
def test_allowed_failures(limit, total, allowed):
    assert allowed_failures(limit, total) == allowed
