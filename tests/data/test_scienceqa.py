"""Reading ScienceQA's layout: identity and order, both folder layouts, and every kind of fault."""

import json
import os
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from mmcot_data.errors import DataError
from mmcot_data.questions import read_questions, select_split, write_questions
from mmcot_data.sample import draw_sample
from mmcot_data.scienceqa import read_scienceqa

REAL = Path(__file__).resolve().parents[3] / "shared" / "scienceqa" / "real"


def record(split, **changes):
    texts = ("question", "hint", "task", "grade", "subject", "topic", "category", "skill")
    return {
        **{key: f"the {key}" for key in texts},
        "choices": ["yes", "no"],
        "answer": 0,
        "image": None,
        "lecture": "",
        "solution": "",
        "split": split,
    } | changes


def problems():
    return {
        "1": record("train"),
        "2": record("train", image="image.png", answer=1),
        "5": record("val"),
        "7": record("test", image="image.png"),
        "11": record("test"),
    }


def lists():
    return {
        "train": ["1", "2"],
        "val": ["5"],
        "test": ["7", "11"],
        "trainval": ["1", "2", "5"],
        "minitest": ["11", "7"],
    }


def write(folder, content=None, splits=None, **files):
    folder.mkdir(exist_ok=True)
    (folder / "problems.json").write_text(json.dumps(problems() if content is None else content))
    (folder / "pid_splits.json").write_text(json.dumps(lists() if splits is None else splits))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def touch(folder, *names):
    for name in names:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def roles(data, question_id):
    return {i.role: i.path for i in data.images if i.question_id == question_id}


def test_questions_keep_their_ids_and_official_places(tmp_path):
    """Positions must come from the lists: file order and id order are others."""
    shuffled = dict(sorted(problems().items(), key=lambda item: item[0], reverse=True))
    splits = lists() | {"test": ["11", "7"]}
    data = read_scienceqa(write(tmp_path / "data", shuffled, splits))
    places = [(q.question_id, q.split, q.position, q.mini_position) for q in data.questions]
    assert places == [
        ("1", "train", 0, None),
        ("2", "train", 1, None),
        ("5", "val", 0, None),
        ("11", "test", 0, 0),
        ("7", "test", 1, 1),
    ]
    by_id = {question.question_id: question for question in data.questions}
    assert by_id["2"].has_image
    assert by_id["2"].answer == 1
    assert by_id["2"].choices == ("yes", "no")
    assert by_id["2"].skill == "the skill"
    assert not by_id["1"].has_image
    assert (data.dataset, data.licence) == ("scienceqa", "CC BY-NC-SA 4.0")
    assert data.captions is None


def test_the_table_gives_back_what_was_read(tmp_path):
    data = read_scienceqa(write(tmp_path / "data"))
    write_questions(tmp_path / "questions.parquet", data.questions)
    assert read_questions(tmp_path) == data.questions


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (pl.col("question_id").cast(pl.Int64), r"question_id \(Int64\)"),
        (pl.col("choices").list.join(" "), r"choices \(String\)"),
        (pl.lit(None, pl.String).alias("split"), "found 5 nulls"),
        (pl.lit("7").alias("question_id"), "occurs 5 times"),
    ],
)
def test_a_table_of_another_schema_is_refused(tmp_path, change, found):
    """Catches ids that join with nothing, and choices that are letters of a text."""
    path = tmp_path / "questions.parquet"
    write_questions(path, read_scienceqa(write(tmp_path / "data")).questions)
    pl.read_parquet(path).with_columns(change).write_parquet(path)
    with pytest.raises(DataError, match=rf"questions\.parquet.*{found}.*`mmcot-data questions"):
        read_questions(path)


def test_a_table_without_a_column_is_refused(tmp_path):
    path = tmp_path / "questions.parquet"
    pl.DataFrame({"question_id": ["1"]}).write_parquet(path)
    with pytest.raises(DataError, match=r"expected the columns .*found question_id \(String\)"):
        read_questions(tmp_path)


def test_a_root_that_does_not_exist_is_named_with_the_command_that_makes_it(tmp_path):
    """Catches advice to write into the folder above."""
    root = tmp_path / "shards"
    with pytest.raises(DataError) as error:
        read_questions(root)
    assert str(error.value).startswith(f"{root / 'questions.parquet'} does not exist")
    assert f"--out {root}`" in str(error.value)


@pytest.mark.parametrize("flat", [False, True], ids=["by split", "flat"])
def test_both_folder_layouts_and_every_role(tmp_path, flat):
    folder = write(tmp_path / "data")
    seven, eleven = ("7", "11") if flat else ("test/7", "test/11")
    touch(folder, f"{seven}/choice_10.png", f"{seven}/choice_2.png", f"{seven}/image_2.png")
    touch(folder, f"{seven}/image.png", f"{eleven}/choice_0.png")
    data = read_scienceqa(folder)
    assert list(roles(data, "7")) == ["question", "question_2", "choice_2", "choice_10"]
    assert roles(data, "7")["question_2"] == folder / "images" / seven / "image_2.png"
    assert list(roles(data, "11")) == ["choice_0"]
    by_id = {question.question_id: question for question in data.questions}
    assert by_id["7"].image_roles == ("question", "question_2", "choice_2", "choice_10")
    assert not by_id["11"].has_image, "choice images alone do not count"
    expected = "2/image.png" if flat else "train/2/image.png"
    assert roles(data, "2") == {"question": folder / "images" / expected}, "missing, but named"


def test_a_picture_on_disk_counts_though_the_record_names_none(tmp_path):
    folder = write(tmp_path / "data")
    touch(folder, "test/11/image.png")
    assert list(roles(read_scienceqa(folder), "11")) == ["question"]


def test_layouts_may_be_mixed_but_each_question_has_one_folder(tmp_path):
    folder = write(tmp_path / "data")
    touch(folder, "test/7/image.png", "2/image.png")
    assert roles(read_scienceqa(folder), "2")["question"].is_file()
    touch(folder, "7/image.png")
    with pytest.raises(DataError, match="images: question '7' has the folders 7 and test/7"):
        read_scienceqa(folder)


def test_a_folder_in_another_split_is_an_error(tmp_path):
    folder = write(tmp_path / "data")
    touch(folder, "train/7/image.png")
    with pytest.raises(DataError, match="train/7 is the folder of a question of split 'test'"):
        read_scienceqa(folder)


def test_stray_files_and_other_folders_are_skipped(tmp_path):
    """The reference dies on .DS_Store."""
    folder = write(tmp_path / "data")
    touch(folder, ".DS_Store", "test/.DS_Store", "test/7/.DS_Store", "test/7/Thumbs.db")
    touch(folder, "test/99/image.png", "test/7/choice_01.png", "test/7/image_0.png")
    touch(folder, "test/7/image.png", "test/7/choice_0.png.bak", "test/7/choice_3.png/x")
    data = read_scienceqa(folder)
    assert list(roles(data, "7")) == ["question"]
    assert {image.question_id for image in data.images} == {"2", "7"}


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    """A look at every possible file of every question takes minutes on network drives."""
    folder = write(tmp_path / "data")
    touch(folder, *(f"test/7/choice_{n}.png" for n in range(5)), "test/7/image.png")
    listed, scandir = Counter(), os.scandir

    def counting(path):
        listed[str(path)] += 1
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    read_scienceqa(folder)
    assert set(listed.values()) == {1}


def test_another_data_set_names_itself(tmp_path):
    about = {"name": "birds", "licence": "CC0-1.0", "seed": 3}
    data = read_scienceqa(write(tmp_path / "data", dataset=about))
    assert (data.dataset, data.licence) == ("birds", "CC0-1.0")
    assert {question.dataset for question in data.questions} == {"birds"}
    with pytest.raises(DataError, match=r"dataset\.json: expected the texts 'name' and 'licence'"):
        read_scienceqa(write(tmp_path / "data", dataset={"name": "birds"}))


@pytest.mark.parametrize(
    "captions", [{"model": "m", "captions": {"2": "a", "999": "b"}}, {"2": "a"}, {"2": ["a"]}]
)
def test_captions_of_known_questions(tmp_path, captions):
    assert read_scienceqa(write(tmp_path / "data", captions=captions)).captions == {"2": "a"}


RECORD_FAULTS = [
    ({"answer": 2}, "answer is 2, expected an index below 2"),
    ({"answer": -1}, "answer is -1"),
    ({"answer": "0"}, "answer is '0', expected an index of the choices or null"),
    ({"answer": True}, "answer is True"),
    ({"choices": []}, "0 choices, expected 2 to 26"),
    ({"choices": ["one"]}, "1 choices"),
    ({"choices": "yes, no"}, "choices is 'yes, no', expected a list of texts"),
    ({"choices": ["yes", 3]}, "choices is"),
    ({"hint": None}, "hint is None, expected a text"),
    ({"image": "picture.jpg"}, r"image is 'picture\.jpg', expected 'image\.png' or null"),
]


@pytest.mark.parametrize(("changes", "message"), RECORD_FAULTS)
def test_a_malformed_record_names_file_id_and_fault(tmp_path, changes, message):
    content = problems() | {"5": record("val", **changes)}
    with pytest.raises(DataError, match=rf"problems\.json: question '5': {message}"):
        read_scienceqa(write(tmp_path / "data", content))


@pytest.mark.parametrize("key", record("val"))
def test_a_record_that_lacks_a_key_says_which(tmp_path, key):
    incomplete = {k: v for k, v in record("val").items() if k != key}
    with pytest.raises(DataError, match=f"question '5': lacks {key}"):
        read_scienceqa(write(tmp_path / "data", problems() | {"5": incomplete}))


LIST_FAULTS = [
    ({"test": ["7", "11", "12"]}, "test: question '12' is not in problems.json"),
    ({"minitest": ["12"]}, "minitest: question '12' is not in problems.json"),
    ({"test": ["7"]}, "question '11' of problems.json is in none of train, val, test"),
    ({"test": ["7", "11", "7"]}, "test: question '7' occurs more than once"),
    ({"val": ["5", "7"]}, "val: question '7' has split 'test' in problems.json"),
    ({"minitest": ["1"]}, "minitest: question '1' has split 'train' in problems.json"),
    ({"trainval": ["2", "1", "5"]}, "trainval: expected the list of train followed by"),
    ({"test": [7, 11]}, "test: expected a list of question ids as texts"),
    ({"dev": ["5"]}, "'dev' is no split; expected some of train, val, test"),
]


@pytest.mark.parametrize(("changes", "message"), LIST_FAULTS)
def test_a_wrong_list_names_file_and_id(tmp_path, changes, message):
    with pytest.raises(DataError, match=rf"pid_splits\.json: {message}"):
        read_scienceqa(write(tmp_path / "data", splits=lists() | changes))


def test_all_faults_are_counted_and_ten_are_shown(tmp_path):
    """One fault at a time would mean as many runs as faults."""
    content = {str(n): record("train", answer=9) for n in range(30)}
    folder = write(tmp_path / "data", content, {"train": [*content, "x"]})
    touch(folder, "train/3/image.png", "3/image.png")
    with pytest.raises(DataError) as caught:
        read_scienceqa(folder)
    text = str(caught.value)
    assert "32 faults" in text
    assert text.count("\n  ") == 11
    assert text.endswith("and 22 more")
    assert "'x' is not in problems.json" in text
    assert "question '3' has the folders" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object, found list"),
        ('{"1": {}, "1": {}}', "the key '1' occurs more than once"),
    ],
)
def test_a_file_that_is_no_object_is_named(tmp_path, text, message):
    folder = write(tmp_path / "data")
    (folder / "problems.json").write_text(text)
    with pytest.raises(DataError, match=rf"problems\.json: .*{message}"):
        read_scienceqa(folder)


def test_an_absent_data_set_is_explained(tmp_path):
    with pytest.raises(
        DataError,
        match=r"problems\.json does not exist.*download scienceqa OUT.*mmcot-data sample OUT",
    ):
        read_scienceqa(tmp_path)


def test_the_drawn_sample_can_be_read(tmp_path):
    draw_sample(tmp_path / "data", num_questions=100, num_workers=1)
    data = read_scienceqa(tmp_path / "data")
    assert len(data.questions) == 100
    assert data.dataset != "scienceqa"
    assert all(image.path.is_file() for image in data.images)
    files = sum(1 for _ in (tmp_path / "data" / "images").rglob("*.png"))
    assert len(data.images) == files
    assert data.captions
    assert len(select_split(data.questions, "minitest")) > 0


@pytest.mark.skipif(not REAL.is_dir(), reason="the real sample is not here")
def test_the_real_sample():
    data = read_scienceqa(REAL)
    assert Counter(q.split for q in data.questions) == {"train": 1041, "val": 371, "test": 481}
    assert len(data.questions) == 1893
    assert sum(q.has_image for q in data.questions) == 879
    assert len(select_split(data.questions, "minitest")) == 42
    present = [image for image in data.images if image.path.is_file()]
    assert len(present) == 304
    assert {image.path.parent.parent.name for image in present} == {"test"}
    absent = [image for image in data.images if not image.path.is_file()]
    assert {image.role for image in absent} == {"question"}
    assert len(absent) == 521 + 191
    official = json.loads((REAL / "pid_splits.json").read_text())
    for name in ("train", "val", "test", "trainval", "minitrain", "minival", "minitest"):
        assert [q.question_id for q in select_split(data.questions, name)] == official[name]
    assert data.captions is not None
    assert len(data.captions) == 879
