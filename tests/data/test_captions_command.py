"""``mmcot-data captions``: what users type, what they are told, and which files are there then."""

import argparse
import json
import subprocess
import sys

import huggingface_hub.constants
import polars as pl
import pytest

from mmcot_data import cli
from mmcot_data.captions import read_caption_file, read_captions
from mmcot_data.cli import captions
from mmcot_data.errors import DataError
from mmcot_data.questions import read_questions
from mmcot_data.sample import draw_sample
from mmcot_data.scienceqa import read_scienceqa
from mmcot_data.tables import write_tables
from mmcot_data.text_artifacts import read_made_by


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "sample"
    draw_sample(folder, num_questions=120, num_workers=1)
    return folder


@pytest.fixture
def root(data, tmp_path):
    """An artifact root with the sample's questions and no captions."""
    write_tables(read_scienceqa(data), tmp_path / "shards")
    for path in (tmp_path / "shards/captions").glob("*.parquet"):
        path.unlink()
    return tmp_path / "shards"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def run(*arguments):
    return cli.main(["captions", *map(str, arguments)])


def by_kind(root):
    """Question ids: with a question picture, with choice pictures only, with none."""
    kinds = {"question": [], "choice": [], "none": []}
    for question in read_questions(root):
        roles = question.image_roles
        kinds["question" if "question" in roles else "choice" if roles else "none"].append(
            question.question_id
        )
    assert all(kinds.values())
    return kinds


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_generate_covers_every_picture_and_a_second_time_does_nothing(data, tmp_path, capsys):
    """Catches roles that are left out, a wrong producer's name, and work that is done twice."""
    out = tmp_path / "shards"
    assert run("generate", data, "--captioner", "tiny", "--out", out) == 0
    first = capsys.readouterr().out
    table = pl.read_parquet(out / "captions/tiny.parquet")
    keys = [(q.question_id, role) for q in read_questions(out) for role in q.image_roles]
    assert sorted(table.select("question_id", "role").rows()) == sorted(keys)
    assert table["question_id"].unique(maintain_order=True).to_list() == list(
        dict.fromkeys(key for key, _ in keys)
    )
    distinct = table.unique("image_sha256")
    assert f"{len(keys)} captions of {len(keys)} pictures, {distinct.height} distinct" in first
    assert distinct["caption"].n_unique() > 10
    assert table.unique(["image_sha256", "caption"]).height == distinct.height
    assert run("generate", data, "--captioner", "tiny", "--out", out) == 0
    assert "all of it was there already" in capsys.readouterr().out


def test_splits_and_roles_grow_one_table_in_the_order_of_the_questions(data, tmp_path, capsys):
    """Test first and train later must leave what one run for both leaves."""
    common = ["generate", data, "--captioner", "tiny", "--role", "question", "--role", "choice_0"]
    for number, splits in enumerate((["test"], ["train"])):
        assert run(*common, "--split", *splits, "--out", tmp_path / "parts") == 0
        assert (number == 0) == ("train" not in questions_of(tmp_path / "parts"))
    flags = ["--split", "train", "--split", "test"]
    assert run(*common, *flags, "--out", tmp_path / "whole") == 0
    parts, whole = (
        pl.read_parquet(tmp_path / each / "captions/tiny.parquet") for each in ("parts", "whole")
    )
    assert parts.equals(whole)
    assert set(whole["role"]) == {"question", "choice_0"}
    capsys.readouterr()


def questions_of(root):
    """The splits of the captioned questions."""
    splits = {question.question_id: question.split for question in read_questions(root)}
    return {splits[key] for key in pl.read_parquet(root / "captions/tiny.parquet")["question_id"]}


def test_failed_pictures_end_in_exit_code_3(tmp_path, capsys):
    """A script must notice that some captions are not there."""
    draw_sample(tmp_path / "sample", num_questions=100, num_workers=1)
    picture = sorted((tmp_path / "sample/images").glob("*/*/image.png"))[0]
    picture.write_bytes(b"no picture")
    out = tmp_path / "shards"
    command = ["generate", tmp_path / "sample", "--captioner", "tiny", "--out", out]
    assert run(*command, "--max-failures", "0") == 1
    assert "pictures can't be used" in capsys.readouterr().err
    assert run(*command, "--max-failures", "5%") == 3
    assert "1 pictures have no caption (1 unreadable)" in capsys.readouterr().err
    (listed,) = read_made_by(out / "captions/tiny.parquet")["failures"]
    assert (listed["question_id"], listed["role"]) == (picture.parent.name, "question")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --captioner NAME, or --model"),
        (["--captioner", "tiny", "--num-beams", "0"], "num_beams is 0"),
        (["--captioner", "tiny", "--max-failures", "x"], "max_failures is 'x'"),
        (["--captioner", "tiny", "--out", "s3://x"], "expected a local path"),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        run("generate", tmp_path, "--out", tmp_path / "shards", *arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_unknown_captioners_and_absent_models_are_told_with_exit_code_1(tmp_path, data, capsys):
    common = ["generate", data, "--out", tmp_path / "shards"]
    assert run(*common, "--captioner", "vit") == 1
    assert "expected vit-gpt2, blip, blip2, instructblip, tiny or hf:" in capsys.readouterr().err
    assert run(*common, "--model", tmp_path / "none") == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("shape", ["scienceqa", "flat", "lists"])
def test_both_shapes_of_caption_files_are_imported(root, tmp_path, capsys, shape):
    """extract_caption.py of the reference writes what the reference can't read."""
    kinds = by_kind(root)
    texts = {kinds["question"][0]: "a map", kinds["question"][1]: "größe", kinds["choice"][0]: ""}
    about = {"model": "m", "num_beams": 4}
    content = {
        "scienceqa": {**about, "captions": texts},
        "flat": texts,
        "lists": {key: [text] for key, text in texts.items()},
    }[shape]
    file = write(tmp_path / "captions.json", content)
    arguments = ["import", file, "--artifacts", root, "--producer", "given"]
    assert run(*arguments) == 0
    told = capsys.readouterr().out
    assert "3 captions" in told
    assert "1 are of questions with choice images only: role choice_0" in told
    path = root / "captions/given.parquet"
    assert read_captions(path) == {key: texts[key] for key in kinds["question"][:2]}
    assert read_captions(path, ("question", "choice_0")) == texts
    made_by = read_made_by(path)
    assert made_by["imported_from"] == "captions.json"
    assert made_by["about"] == (about if shape == "scienceqa" else {})

    assert run(*arguments) == 0  # again: the same
    write(file, texts | {kinds["question"][0]: "another map"})
    assert run(*arguments) == 1
    assert "holds other captions" in capsys.readouterr().err
    assert read_captions(path)[kinds["question"][0]] == "a map"


def test_the_first_role_that_has_a_caption_decides(root, tmp_path):
    """A choice's caption must not replace that of the question's picture."""
    key = by_kind(root)["question"][0]
    for role, text in (("question", "the question"), ("choice_0", "a choice")):
        file = write(tmp_path / f"{role}.json", {key: text})
        run("import", file, "--artifacts", root, "--producer", role, "--role", role)
    tables = [
        pl.read_parquet(root / f"captions/{role}.parquet") for role in ("question", "choice_0")
    ]
    path = root / "captions/both.parquet"
    pl.concat(tables).write_parquet(path)
    assert read_captions(path, ("question", "choice_0")) == {key: "the question"}
    assert read_captions(path, ("choice_0", "question")) == {key: "a choice"}


def test_captions_of_unknown_questions_are_refused_unless_they_are_to_be_skipped(
    root, tmp_path, capsys
):
    """Captions of another data set must not be joined by chance; a subset may be wanted."""
    known = by_kind(root)["question"][0]
    file = write(tmp_path / "c.json", {"captions": {known: "a", "x1": "b", "x2": "c"}})
    arguments = ["import", file, "--artifacts", root, "--producer", "given"]
    assert run(*arguments) == 1
    assert "2 of 3 captions are of questions that are not in" in capsys.readouterr().err
    assert not (root / "captions/given.parquet").exists()
    assert run(*arguments, "--skip-unknown") == 0
    assert "2 more are of unknown questions" in capsys.readouterr().out
    for content in ({"captions": {"x1": "b"}}, {"captions": {}}):
        write(file, content)
        assert run(*arguments, "--skip-unknown") == 1
    assert read_captions(root / "captions/given.parquet") == {known: "a"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"captions": {"1": "a", "1": "b"}}', "occurs more than once"),
        (b'{"captions": {"1": "a"', "not valid JSON"),
        (b'{"1": "gr\xf6\xdfe"}', "expected text in UTF-8"),
        (b'{"1": {"text": "a"}}', "caption of question '1': expected a text"),
    ],
)
def test_damaged_caption_files_are_refused(tmp_path, content, message):
    """Python's parser takes the last of two captions in silence."""
    path = tmp_path / "captions.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_caption_file(path)


def test_coverage_counts_by_hand(root, tmp_path, capsys):
    """Catches choices that are counted as question pictures, and empty ones as words."""
    kinds = by_kind(root)
    splits = {question.question_id: question.split for question in read_questions(root)}
    train = [key for key in kinds["question"] if splits[key] == "train"]
    texts = dict.fromkeys(train[1:], "two words")
    texts |= {train[1]: "", train[2]: "three more words", kinds["none"][0]: "of nothing"}
    texts |= dict.fromkeys(kinds["choice"], "a choice")
    file = write(tmp_path / "c.json", texts)
    assert run("import", file, "--artifacts", root, "--producer", "given") == 0
    assert "1 are of questions without a picture" in capsys.readouterr().out
    assert run("coverage", root, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["producer"], found["num_captions"]) == ("given", len(texts))
    assert found["num_without_picture"] == 1
    of = {(each["split"], each["role"]): each for each in found["roles"]}
    question = of["train", "question"]
    assert (question["num_pictures"], question["num_captions"]) == (len(train), len(train) - 1)
    assert question["num_empty"] == 1
    num_texts = len(train) - 2
    assert question["mean_words"] == pytest.approx((2 * num_texts + 1) / num_texts)
    assert [text for _, text in question["samples"]] == ["", "two words", "two words"]
    choices = [q for q in read_questions(root) if q.split == "train"]
    num_choices = sum(role.startswith("choice_") for q in choices for role in q.image_roles)
    assert of["train", "choice"]["num_pictures"] == num_choices
    assert of["train", "choice"]["num_captions"] == sum(
        splits[key] == "train" for key in kinds["choice"]
    )
    assert run("coverage", root, "--producer", "given") == 0
    assert "two words" in capsys.readouterr().out
    assert run("coverage", root, "--producer", "other") == 1
    assert "producers in" in capsys.readouterr().err


def test_coverage_without_captions_says_how_to_make_them(root, capsys):
    assert run("coverage", root) == 1
    assert "holds no captions: make some with" in capsys.readouterr().err


def test_import_and_coverage_need_no_torch(root, tmp_path):
    """Those who only train do not install what extraction needs."""
    key = by_kind(root)["question"][0]
    file = write(tmp_path / "c.json", {key: "a map"})
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'PIL', 'torchvision'): sys.modules[name] = None\n"
        "from mmcot_data.cli import main\n"
        f"a = main(['captions', 'import', {str(file)!r}, '--artifacts', {str(root)!r}, "
        "'--producer', 'given'])\n"
        f"sys.exit(a or main(['captions', 'coverage', {str(root)!r}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{key}: a map" in done.stdout


def test_help_teaches_every_action(capsys):
    parser = argparse.ArgumentParser(prog="mmcot-data")
    captions.add_parser(parser.add_subparsers())
    for action, part in (
        ("generate", "its captions are nonsense"),
        ("import", "--skip-unknown"),
        ("coverage", "--json"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(["captions", action, "--help"])
        told = capsys.readouterr().out
        assert "examples:" in told
        assert part in told
