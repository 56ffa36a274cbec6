"""Every layout of pictures against the bytes that were put into it."""

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_encoder import FakeEncoder
from feature_sets import make_spec
from PIL import Image

from mmcot_data.cli import main
from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.errors import DataError, DiskFullError, ImageError
from mmcot_data.extraction import ExtractionConfig, extract_features
from mmcot_data.inspection import PictureFeatures, draw_feature_maps
from mmcot_data.scienceqa import read_scienceqa
from mmcot_data.sources import open_source, open_stored, parquet_source, row_groups
from mmcot_data.sources.row_groups import RowGroupCache
from mmcot_data.sources.row_places import RowPlace

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(number, size=(8, 6)):
    """The bytes of a PNG that no other number gives."""
    file = io.BytesIO()
    Image.new("RGB", size, (number % 256, number // 256, 7)).save(file, "PNG")
    return file.getvalue()


def struct(number):
    return {"bytes": picture(number), "path": f"{number}.png"}


def write_table(path, images, kind=STRUCT, *, row_group_size=3, **columns):
    columns = columns or {"id": [f"q{number}" for number in range(len(images))]}
    table = pa.table({**columns, "image": pa.array(images, kind)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def contents(source):
    return {(image.question_id, image.role): image.stored.read() for image in source.images}


def found_again(source, data):
    """What open_stored reads; it must be what the source reads."""
    return {
        (image.question_id, image.role): open_stored(data, image.file).read()
        for image in source.images
    }


# ScienceQA


def write_scienceqa(folder, *, flat):
    record = dict.fromkeys(
        ("question", "hint", "lecture", "solution", "subject", "topic"), "some words"
    )
    record |= dict.fromkeys(("category", "skill", "grade", "task"), "some words")
    splits = {"1": "train", "2": "train", "3": "val", "4": "test", "5": "minitest"}
    lists = {"train": ["2", "1"], "val": ["3"], "test": ["4", "5"], "trainval": ["2", "1", "3"]}
    lists |= {"minitrain": ["1"], "minival": ["3"], "minitest": ["5"]}
    problems = {}
    for number, split in splits.items():
        own = "test" if split == "minitest" else split
        problems[number] = record | {"split": own, "choices": ["a", "b"], "answer": 0}
        problems[number]["image"] = "image.png"
        place = folder / "images" / number if flat else folder / "images" / own / number
        place.mkdir(parents=True)
        (place / "image.png").write_bytes(picture(int(number)))
        (place / "choice_0.png").write_bytes(picture(100 + int(number)))
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps(lists))
    return folder


@pytest.mark.parametrize("flat", [False, True], ids=["by split", "flat"])
def test_scienceqa_in_both_layouts_of_its_pictures(tmp_path, flat):
    data = write_scienceqa(tmp_path, flat=flat)
    source = open_source(data)
    expected = {(str(n), "question"): picture(n) for n in range(1, 6)}
    expected |= {(str(n), "choice_0"): picture(100 + n) for n in range(1, 6)}
    assert contents(source) == found_again(source, data) == expected
    assert source.questions == read_scienceqa(data)
    assert [(i.question_id, i.role) for i in source.images] == [
        (i.question_id, i.role) for i in source.questions.images
    ]
    assert (source.dataset, source.licence) == ("scienceqa", "CC BY-NC-SA 4.0")


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["train"], "12"),
        (["trainval"], "123"),
        (["minitrain"], "1"),
        (["val", "minitest"], "35"),
        (None, "12345"),
    ],
)
def test_splits_choose_pictures_and_leave_the_questions(tmp_path, splits, expected):
    source = open_source(write_scienceqa(tmp_path, flat=True), splits=splits)
    assert sorted({image.question_id for image in source.images}) == list(expected)
    assert len(source.questions.questions) == 5


def test_another_name_is_the_name_of_the_questions_too(tmp_path):
    """Else the tables would join under two names."""
    source = open_source(write_scienceqa(tmp_path, flat=True), dataset="mine", licence="CC0")
    assert (source.dataset, source.licence) == ("mine", "CC0")
    assert {question.dataset for question in source.questions.questions} == {"mine"}
    assert (source.questions.dataset, source.questions.licence) == ("mine", "CC0")


# Folders of pictures


def write_files(folder, names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))


def test_a_folder_is_known_by_relative_paths(tmp_path):
    """Catches keys by stem: a.b.png, a.c.png and x/a.b.png would become one."""
    names = ["a.b.png", "a.c.png", "x/a.b.png", "x/y/z.JPG", "Ä ö#3.webp", "b.tiff", "c.heic"]
    write_files(tmp_path / "birds", names)
    write_files(
        tmp_path / "birds", [".hidden.png", ".git/a.png", "x/notes.txt", "list.csv", "README"]
    )
    write_files(tmp_path / "birds", names)
    source = open_source(tmp_path / "birds")
    assert [image.question_id for image in source.images] == sorted(names)
    assert all(image.file == image.question_id for image in source.images)
    expected = {(name, "question"): picture(n) for n, name in enumerate(names)}
    assert contents(source) == found_again(source, tmp_path / "birds") == expected
    assert (source.dataset, source.licence, source.questions) == ("birds", "unknown", None)


def test_links_in_circles_end_and_links_to_nowhere_are_missing(tmp_path):
    write_files(tmp_path, ["data/a/1.png", "other/2.png"])
    data = tmp_path / "data"
    (data / "a" / "up").symlink_to(data)
    (data / "self").symlink_to(data / "self")
    (data / "self.png").symlink_to(data / "self.png")
    (data / "gone.png").symlink_to(tmp_path / "nothing.png")
    (data / "linked").symlink_to(tmp_path / "other")
    os.mkfifo(data / "pipe.png")
    images = {image.question_id: image.stored for image in open_source(data).images}
    assert sorted(images) == ["a/1.png", "gone.png", "linked/2.png", "self.png"]
    for name, reason in (("gone.png", "missing"), ("self.png", "unreadable")):
        with pytest.raises(ImageError, match=name) as caught:
            images[name].read()
        assert caught.value.reason == reason


def test_a_name_that_no_table_can_hold_is_explained(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"x")
    with pytest.raises(DataError, match=r"\\xff\.png.*no valid UTF-8"):
        open_source(tmp_path)


# Parquet


LISTS = [[0, 1], [], None, [2], [3, None, 4]]


@pytest.mark.parametrize("row_group_size", [1, 2, 100])
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (pa.binary(), picture),
        (pa.large_binary(), picture),
        (STRUCT, struct),
        (pa.struct([("bytes", pa.binary())]), lambda n: {"bytes": picture(n)}),
    ],
    ids=["binary", "large binary", "struct", "struct without path"],
)
def test_parquet_cells(tmp_path, kind, make, row_group_size):
    """Rows of null have no picture; all others give their own bytes."""
    images = [None if n % 5 == 3 else make(n) for n in range(12)]
    data = write_table(tmp_path / "t.parquet", images, kind, row_group_size=row_group_size)
    source = open_source(data)
    expected = {(f"q{n}", "question"): picture(n) for n in range(12) if n % 5 != 3}
    assert contents(source) == found_again(source, data) == expected
    assert found_again(source, tmp_path) == expected
    assert [image.file for image in source.images][:2] == ["t.parquet#0", "t.parquet#1"]
    assert (source.dataset, source.licence, source.questions) == ("t", "unknown", None)


@pytest.mark.parametrize("row_group_size", [1, 2, 100])
@pytest.mark.parametrize("with_paths", [True, False])
@pytest.mark.parametrize("make_list", [pa.list_, pa.large_list])
def test_parquet_lists_have_a_role_for_each_picture(
    tmp_path, make_list, with_paths, row_group_size
):
    """A null within a list must not move the others' roles."""

    def make(n):
        return n if n is None else {"bytes": picture(n), "path": "x" if with_paths else None}

    cells = [cell if cell is None else [make(n) for n in cell] for cell in LISTS]
    path = tmp_path / "t.parquet"
    write_table(path, cells, make_list(STRUCT), row_group_size=row_group_size)
    source = open_source(path)
    expected = {
        ("q0", "question"): picture(0),
        ("q0", "question_2"): picture(1),
        ("q3", "question"): picture(2),
        ("q4", "question"): picture(3),
        ("q4", "question_3"): picture(4),
    }
    assert contents(source) == found_again(source, path) == expected


def test_a_picture_whose_bytes_are_null_is_a_file_beside_the_table(tmp_path):
    """Some rows of one row group have bytes, some a path, some neither: statistics can't tell."""
    cells = [struct(0), {"bytes": None, "path": "own/1.png"}, {"bytes": None, "path": None}, None]
    cells += [{"bytes": None, "path": "nowhere.png"}, {"bytes": None, "path": "/etc/passwd"}]
    cells += [{"bytes": None, "path": "../secret.png"}, {"bytes": b"", "path": None}]
    data = write_table(tmp_path / "data" / "t.parquet", cells, row_group_size=10)
    write_files(tmp_path, ["data/own/other.png", "data/own/1.png", "secret.png"])
    images = {image.question_id: image.stored for image in open_source(data).images}
    assert list(images) == ["q0", "q1", "q4", "q5", "q6", "q7"]
    assert [images[key].read() for key in ("q0", "q1")] == [picture(0), picture(1)]
    for key in ("q4", "q5", "q6"):
        with pytest.raises(ImageError, match=r"only the path .* put the files there") as caught:
            images[key].read()
        assert caught.value.reason == "missing"
    with pytest.raises(ImageError, match="no bytes") as caught:
        images["q7"].read()
    assert caught.value.reason == "empty"


def test_a_folder_of_parquet_files_is_one_data_set(tmp_path):
    for part in range(3):
        images = [struct(10 * part + n) for n in range(4)]
        ids = [10 * part + n for n in range(4)]
        write_table(tmp_path / f"hub/data/train-{part}.parquet", images, question_id=ids)
    shutil.copy(tmp_path / "hub/data/train-0.parquet", tmp_path / "hub/.cached.parquet")
    source = open_source(tmp_path / "hub", dataset="birds", licence="CC0")
    expected = {
        (str(10 * part + n), "question"): picture(10 * part + n)
        for part in range(3)
        for n in range(4)
    }
    assert contents(source) == found_again(source, tmp_path / "hub") == expected
    assert source.images[-1].file == "data/train-2.parquet#3"
    assert (source.dataset, source.licence) == ("birds", "CC0")


@pytest.mark.parametrize("write", ["polars", "duckdb", "dictionary ids"])
def test_what_other_programs_write_is_read(tmp_path, write):
    path = tmp_path / "t.parquet"
    frame = pl.DataFrame({"pid": [1, 2, 3], "image": [picture(0), None, picture(2)]})
    if write == "polars":
        frame.write_parquet(path)
    elif write == "duckdb":
        duckdb = pytest.importorskip("duckdb")
        duckdb.from_arrow(frame.to_arrow()).write_parquet(str(path))
    else:
        table = frame.to_arrow().set_column(0, "pid", pa.array(["1", "2", "3"]).dictionary_encode())
        pq.write_table(table, path)
    expected = {("1", "question"): picture(0), ("3", "question"): picture(2)}
    assert contents(open_source(path)) == expected


def test_columns_are_found_or_chosen(tmp_path):
    images = [struct(n) for n in range(3)]
    path = write_table(
        tmp_path / "t.parquet",
        images,
        key=["a", "b", "c"],
        pid=[7, 8, 9],
        mask=pa.array([picture(50 + n) for n in range(3)], pa.binary()),
    )
    assert [image.question_id for image in open_source(path).images] == ["7", "8", "9"]
    source = open_source(path, id_column="key", image_column="mask")
    assert (
        contents(source)
        == found_again(source, path)
        == {("abc"[n], "question"): picture(50 + n) for n in range(3)}
    )
    assert source.images[1].file == "t.parquet#1:mask"
    with pytest.raises(DataError, match=r"'title'.*found the columns key, pid, mask, image"):
        open_source(path, id_column="title")
    with pytest.raises(DataError, match=r"'pid' is no column of pictures.*mask \(binary\)"):
        open_source(path, image_column="pid")
    with pytest.raises(DataError, match=r"the column mask is binary, expected strings or whole"):
        open_source(path, id_column="mask")


def test_several_columns_of_pictures_need_a_choice(tmp_path):
    table = pa.table({"id": [1], "left": [picture(1)], "right": [picture(2)]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="left, right; choose one with --image-column"):
        open_source(tmp_path / "t.parquet")
    pq.write_table(pa.table({"id": [1], "image": ["http://x"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"has no column of pictures.*image \(string\)"):
        open_source(tmp_path / "t.parquet")


def test_the_number_of_a_row_is_no_identifier(tmp_path):
    """The hub's own ScienceQA has no ids: positions would join features to wrong questions."""
    images = [struct(n) for n in (0, 1, 0, 2)]
    path = write_table(tmp_path / "t.parquet", images, question=list("abcd"))
    with pytest.raises(DataError, match=r"no identifier.*--id-column image_sha256"):
        open_source(path)
    source = open_source(path, id_column="image_sha256")
    assert [image.question_id for image in source.images] == [
        hashlib.sha256(picture(n)).hexdigest() for n in (0, 1, 2)
    ]
    assert [image.file for image in source.images] == [f"t.parquet#{n}" for n in (0, 1, 3)]
    gone = write_table(tmp_path / "u.parquet", [{"bytes": None, "path": "x.png"}])
    with pytest.raises(DataError, match=r"u\.parquet#0 can't be known by the sha256"):
        open_source(gone, id_column="image_sha256")


def test_bad_ids_are_named(tmp_path):
    images = [struct(n) for n in range(4)]
    write_table(tmp_path / "data/a.parquet", images, id=["1", None, "3", ""])
    with pytest.raises(DataError, match=r"2 rows have no id: a\.parquet#1, a\.parquet#3; name a"):
        open_source(tmp_path / "data")
    write_table(tmp_path / "data/a.parquet", images, id=["1", "2", "3", "2"])
    write_table(tmp_path / "data/b.parquet", images, id=["4", "5", "6", "1"])
    with pytest.raises(DataError, match=r"a\.parquet#3 has the id '2' of a\.parquet#1, b\."):
        open_source(tmp_path / "data")
    write_table(tmp_path / "data/b.parquet", images, id=[0.5, 1.5, 2.5, 3.5])
    with pytest.raises(DataError, match=r"b\.parquet: the column id is double"):
        open_source(tmp_path / "data")


def test_damaged_parquet_files_are_explained(tmp_path):
    path = write_table(tmp_path / "t.parquet", [struct(n) for n in range(30)], row_group_size=10)
    source = open_source(path)
    whole = path.read_bytes()
    place = whole.index(picture(15))
    path.write_bytes(whole[: place - 20] + b"\xff" * 40 + whole[place + 20 :])
    with pytest.raises(ImageError, match=r"t\.parquet, row 15") as caught:
        source.images[15].stored.read()
    assert caught.value.reason == "unreadable"
    assert source.images[2].stored.read() == picture(2)
    path.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"t\.parquet can't be read as parquet"):
        open_source(path)
    path.unlink()
    with pytest.raises(ImageError, match=r"t\.parquet does not exist") as caught:
        source.images[25].stored.read()
    assert caught.value.reason == "missing"
    with pytest.raises(DataError, match="does not exist"):
        open_source(path)


@pytest.mark.parametrize("how", ["renamed", "written in place", "removed and written"])
def test_a_replaced_parquet_file_is_read_anew(tmp_path, how):
    """Catches tables kept by their path: later extractions in a process got the old pictures."""
    path = write_table(tmp_path / "t.parquet", [struct(n) for n in range(7)])
    listed = open_source(path).images
    assert [image.stored.read() for image in listed] == [picture(n) for n in range(7)]
    new = write_table(tmp_path / "new", [struct(20 + n) for n in range(5)], row_group_size=2)
    if how == "renamed":
        new.replace(path)
    else:
        if how == "removed and written":
            path.unlink()
        path.write_bytes(new.read_bytes())
    assert [image.stored.read() for image in listed[:5]] == [picture(20 + n) for n in range(5)]
    with pytest.raises(ImageError, match="the file has 5 rows"):
        listed[6].stored.read()
    assert contents(open_source(path)) == {(f"q{n}", "question"): picture(20 + n) for n in range(5)}


def test_a_parquet_file_that_is_replaced_while_it_is_read_is_explained(tmp_path, monkeypatch):
    """Catches rows of the new file found by the row groups of the old one."""
    path = write_table(tmp_path / "t.parquet", [struct(n) for n in range(6)], row_group_size=3)
    new = write_table(tmp_path / "new", [struct(20 + n) for n in range(6)], row_group_size=2)
    image = open_source(path).images[5]
    find_ends = parquet_source._row_group_ends

    def replace_file(*args):
        ends = find_ends(*args)
        if new.exists():
            new.replace(path)
        return ends

    monkeypatch.setattr(parquet_source, "_row_group_ends", replace_file)
    with pytest.raises(ImageError, match="was replaced while it was read"):
        image.stored.read()
    assert image.stored.read() == picture(25)


def test_a_row_that_is_gone_is_missing(tmp_path):
    path = write_table(tmp_path / "t.parquet", [struct(0)])
    with pytest.raises(ImageError, match="the file has 1 rows") as caught:
        open_stored(path, "t.parquet#1").read()
    assert caught.value.reason == "missing"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({}, 10), ({"memory_nbytes": 9000}, None), ({"group_nbytes": 500, "num_unpacked": 2}, 2)],
    ids=["all kept", "some kept", "unpacked to files"],
)
def test_any_order_from_several_threads(tmp_path, monkeypatch, limits, expected):
    """Rows of dropped groups, and of groups that two threads ask for at once, must be the same."""
    path = tmp_path / "t.parquet"
    write_table(path, [struct(n) for n in range(400)], row_group_size=40)
    source = open_source(path)
    cache = RowGroupCache(**limits)
    monkeypatch.setattr(parquet_source, "_cache", cache)
    monkeypatch.setattr(row_groups.tempfile, "tempdir", str(tmp_path))
    order = list(range(400)) * 3
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: source.images[n].stored.read(), order))
    assert found == [picture(n) for n in order]
    kept = [future.result() for future in cache._groups.values()]
    assert [group.is_unpacked for group in kept] == [expected == 2] * len(kept)
    assert sum(group.nbytes for group in kept) <= limits.get("memory_nbytes", 10**6)
    assert len(kept) == (expected or len(kept))
    assert sorted(tmp_path.iterdir()) == [path]


def test_no_room_to_unpack_is_explained(tmp_path, monkeypatch):
    path = write_table(tmp_path / "t.parquet", [struct(n) for n in range(40)], row_group_size=40)
    source = open_source(path)
    monkeypatch.setattr(parquet_source, "_cache", RowGroupCache(group_nbytes=10))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_groups.pa, "OSFile", fail)
    with pytest.raises(DiskFullError, match="TMPDIR"):
        source.images[0].stored.read()


def test_listing_does_not_read_pictures_where_statistics_tell(tmp_path, monkeypatch):
    """Else a data set would be read twice before the first picture is encoded."""
    path = write_table(tmp_path / "a.parquet", [struct(n) for n in range(9)])
    monkeypatch.setattr(parquet_source, "read_batches", None)
    assert len(open_source(path).images) == 9


def test_pictures_can_be_pickled_hashed_and_read_elsewhere(tmp_path):
    path = write_table(tmp_path / "t.parquet", [struct(n) for n in range(5)])
    write_files(tmp_path / "files", ["a.png"])
    for data in (path, tmp_path / "files"):
        images = open_source(data).images
        again = pickle.loads(pickle.dumps(images))
        assert again == images
        assert len({hash(image.stored) for image in again}) == len(images)
        assert [i.stored.read() for i in again] == [picture(n) for n in range(len(images))]


# Hugging Face datasets


@pytest.fixture(scope="module")
def hf():
    return pytest.importorskip("datasets")


def make_dataset(hf, numbers, **columns):
    columns = columns or {"id": [f"q{n}" for n in numbers]}
    features = hf.Features(
        {
            key: hf.Value("int64" if isinstance(values[0], int) else "string")
            for key, values in columns.items()
        }
        | {"image": hf.Image()}
    )
    cells = [None if n is None else struct(n) for n in numbers]
    return hf.Dataset.from_dict({**columns, "image": cells}, features=features)


@pytest.mark.parametrize("change", ["none", "select", "shuffle", "filter"])
def test_a_saved_dataset_shows_its_own_rows(tmp_path, hf, change):
    """Catches reading the Arrow file's rows past the indices of select, shuffle and filter."""
    numbers = [0, 1, None, 3, 4, 5, 6]
    dataset = make_dataset(hf, numbers, id=list(range(7)))
    dataset = {
        "none": lambda: dataset,
        "select": lambda: dataset.select([5, 0, 2]),
        "shuffle": lambda: dataset.shuffle(seed=3),
        "filter": lambda: dataset.filter(lambda id: id % 2 == 0, input_columns="id"),
    }[change]()
    dataset.save_to_disk(tmp_path / "birds")
    source = open_source(tmp_path / "birds")
    expected = {(str(n), "question"): picture(n) for n in dataset["id"] if numbers[n] is not None}
    assert contents(source) == found_again(source, tmp_path / "birds") == expected
    assert source.images[0].file.startswith("#")
    assert pickle.loads(pickle.dumps(source.images)) == source.images
    assert (source.dataset, source.licence) == ("birds", "unknown")


def test_a_saved_dict_of_splits(tmp_path, hf):
    parts = {
        "train": make_dataset(hf, [0, 1, 2]),
        "test": make_dataset(hf, [7, 8]).shuffle(seed=1),
    }
    for part in parts.values():
        part.info.license = "CC BY 4.0"
    hf.DatasetDict(parts).save_to_disk(tmp_path)
    source = open_source(tmp_path, dataset="birds")
    expected = {(f"q{n}", "question"): picture(n) for n in (0, 1, 2, 7, 8)}
    assert contents(source) == found_again(source, tmp_path) == expected
    assert source.images[1].file == "train#1"
    assert (source.dataset, source.licence) == ("birds", "CC BY 4.0")
    assert len(open_source(tmp_path, splits=["test"]).images) == 2
    with pytest.raises(DataError, match="no split val; expected some of train, test"):
        open_source(tmp_path, splits=["val"])
    with pytest.raises(DataError, match="dataset without splits"):
        open_source(tmp_path / "train", splits=["train"])


def test_lists_and_bytes_in_a_saved_dataset(tmp_path, hf):
    features = hf.Features({"id": hf.Value("string"), "pages": hf.List(hf.Image())})
    cells = [[struct(0), struct(1)], [], None, [struct(2)]]
    dataset = hf.Dataset.from_dict({"id": list("abcd"), "pages": cells}, features=features)
    dataset.select([3, 2, 1, 0]).save_to_disk(tmp_path)
    source = open_source(tmp_path)
    expected = {
        ("d", "question"): picture(2),
        ("a", "question"): picture(0),
        ("a", "question_2"): picture(1),
    }
    assert contents(source) == found_again(source, tmp_path) == expected


def test_a_replaced_dataset_is_read_anew(tmp_path, hf):
    """Catches datasets kept by their path: a second extraction got the old pictures."""
    data = tmp_path / "birds"
    make_dataset(hf, [0, 1, 2]).save_to_disk(data)
    listed = open_source(data).images
    assert [image.stored.read() for image in listed] == [picture(n) for n in range(3)]
    make_dataset(hf, [20, 21]).save_to_disk(tmp_path / "new")
    shutil.rmtree(data)
    with pytest.raises(DataError, match="birds can't be read as a dataset"):
        listed[0].stored.read()
    (tmp_path / "new").rename(data)
    assert [image.stored.read() for image in listed[:2]] == [picture(20), picture(21)]
    with pytest.raises(ImageError, match="the dataset has 2 rows"):
        listed[2].stored.read()
    assert len(open_source(data).images) == 2


def test_rows_of_a_saved_dataset_need_ids_too(tmp_path, hf):
    make_dataset(hf, [0, 1, 0], text=list("abc")).save_to_disk(tmp_path)
    with pytest.raises(DataError, match="no identifier"):
        open_source(tmp_path)
    assert len(open_source(tmp_path, id_column="image_sha256").images) == 2


def test_a_missing_package_is_explained(tmp_path, hf, monkeypatch):
    make_dataset(hf, [0]).save_to_disk(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'mmcot\[datasets\]'"):
        open_source(tmp_path)


# Which layout it is


def test_the_layout_is_recognised_or_asked_for(tmp_path):
    write_files(tmp_path / "both", ["logo.png"])
    write_table(tmp_path / "both/t.parquet", [struct(5)])
    with pytest.raises(DataError, match="the layouts parquet and images: choose one with --layout"):
        open_source(tmp_path / "both")
    assert contents(open_source(tmp_path / "both", "parquet")) == {("q0", "question"): picture(5)}
    assert list(contents(open_source(tmp_path / "both", "images"))) == [("logo.png", "question")]
    write_scienceqa(tmp_path / "both", flat=False)
    assert open_source(tmp_path / "both").questions is not None
    assert open_source(tmp_path / "both", "images").questions is None


@pytest.mark.parametrize("layout", ["images", "parquet"])
@pytest.mark.parametrize("state", ["finished", "without shard records", "begun", "with questions"])
def test_feature_sets_within_the_data_are_no_data(tmp_path, layout, state):
    """Catches index.parquet of --out taken for data: the same command would refuse, run again."""
    data = tmp_path / "data"
    if layout == "images":
        write_files(data, ["a/0.png", "a/1.png"])
    else:
        write_table(data / "a/t.parquet", [struct(0), struct(1)])
    once = contents(open_source(data))
    config = ExtractionConfig(
        data=data, out=data / "a/shards", encoder=EncoderConfig(name="fake"), batch_size=2
    )
    assert extract_features(config, encoder=FakeEncoder()).num_extracted == 2
    folder = data / "a/shards/fake"
    assert (folder / "index.parquet").is_file()
    if state == "without shard records":
        for path in folder.glob("*-of-*.json"):
            path.unlink()
    elif state == "begun":
        (folder / "manifest.json").unlink()
    elif state == "with questions":
        write_table(data / "a/shards/questions.parquet", [struct(7)])
        write_files(data / "a/shards", ["drawn.png"])
    assert contents(open_source(data)) == once


def test_the_same_command_twice_where_out_lies_in_the_data(tmp_path, monkeypatch, capsys):
    """The second run found parquet and pictures, and refused."""
    monkeypatch.setattr("mmcot_data.extraction.run.load_encoder", lambda _: FakeEncoder())
    write_files(tmp_path / "photos", ["0.png", "1.png", "x/2.png"])
    photos, out = str(tmp_path / "photos"), str(tmp_path / "photos/shards")
    command = ["extract", photos, "--out", out, "--encoder", "fake"]
    assert main(command) == 0
    assert "3 rows" in capsys.readouterr().out
    assert main(command) == 0
    assert "all of it was there already" in capsys.readouterr().out


def test_other_programs_manifests_hide_no_pictures(tmp_path):
    """manifest.json, plan.json and questions.parquet are names that anyone may give."""
    write_files(tmp_path, ["app/icon.png", "trip/1.png", "quiz/2.png"])
    (tmp_path / "app/manifest.json").write_text('{"name": "app"}')
    (tmp_path / "trip/plan.json").write_text("[]")
    (tmp_path / "quiz/questions.parquet").write_bytes(b"")
    names = [image.question_id for image in open_source(tmp_path, "images").images]
    assert names == ["app/icon.png", "quiz/2.png", "trip/1.png"]


def test_what_is_no_data_set_is_explained(tmp_path):
    (tmp_path / "notes.txt").write_text("some words")
    with pytest.raises(DataError, match=r"no layout that is known; looked for problems\.json"):
        open_source(tmp_path)
    with pytest.raises(DataError, match=r"notes\.txt is a file, but no parquet file"):
        open_source(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "none")
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "none", "images")
    for layout, message in (
        ("images", "has no pictures"),
        ("parquet", r"has no files that end in \.parquet"),
        ("scienceqa", r"problems\.json does not exist"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(tmp_path, layout)
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="can't be read as a dataset saved to disk"):
        open_source(tmp_path, "hf-dataset")


def test_arguments_without_a_meaning_are_refused(tmp_path):
    write_files(tmp_path, ["a.png"])
    with pytest.raises(DataError, match="no columns"):
        open_source(tmp_path, id_column="id")
    with pytest.raises(DataError, match="no splits"):
        open_source(tmp_path, splits=["train"])


# Places, and pictures beside features


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (RowPlace("data/t#1.parquet", 7), "data/t#1.parquet#7"),
        (RowPlace("t.parquet", 7, 2), "t.parquet#7/2"),
        (RowPlace("", 0, 0, "photo:a"), "#0:photo:a"),
    ],
)
def test_places_as_texts(place, text):
    assert str(place) == text
    assert RowPlace.parse(text) == place


def test_a_picture_file_may_look_like_a_row(tmp_path):
    write_files(tmp_path, ["a.png#3/b.png", "t.parquet#1"])
    for number, name in enumerate(["a.png#3/b.png", "t.parquet#1"]):
        assert open_stored(tmp_path, name).read() == picture(number)
    with pytest.raises(ImageError, match="does not exist"):
        open_stored(tmp_path, "gone.png#5").read()


@pytest.mark.parametrize("layout", ["images", "parquet", "hf-dataset"])
def test_pictures_of_every_layout_are_drawn_beside_their_features(tmp_path, layout):
    """Catches a drawing that looks for a row's picture in a file of that name."""
    data = tmp_path / "data"
    if layout == "images":
        write_files(data, ["0.png", "1.png"])
    elif layout == "parquet":
        write_table(data / "t.parquet", [struct(0), struct(1)])
    else:
        make_dataset(pytest.importorskip("datasets"), [0, 1]).save_to_disk(data)
    preprocessing = [{"step": "resize", "rule": "square", "size": 20}]
    spec = make_spec(num_patches=4, feature_dim=3, grid=[2, 2], preprocessing=preprocessing)
    drawn = [
        PictureFeatures(
            features=np.arange(12, dtype=np.float32).reshape(4, 3),
            question_id=image.question_id,
            role=image.role,
            width=8,
            height=6,
            image_sha256=hashlib.sha256(picture(number)).hexdigest(),
            file=image.file,
        )
        for number, image in enumerate(open_source(data).images)
    ]
    draw_feature_maps(tmp_path / "maps.png", spec, drawn, data)
    colours = {colour for _, colour in Image.open(tmp_path / "maps.png").getcolors(10**6)}
    assert {(0, 0, 7), (1, 0, 7)} <= colours
    with pytest.raises(DataError, match="is not the picture that the features of question"):
        draw_feature_maps(
            tmp_path / "maps.png", spec, [replace(drawn[0], file=drawn[1].file)], data
        )
