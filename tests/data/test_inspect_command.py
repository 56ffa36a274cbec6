"""The command mmcot-data inspect: what it says of a feature set, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from feature_sets import D, P, make_feature_set, make_rows, make_spec, write_set
from local_storage_servers import serve_folder
from PIL import Image

from mmcot_data.cli import main
from mmcot_data.files import file_sha256, write_parquet
from mmcot_data.shards import open_features
from mmcot_data.shards.manifest import read_manifest, write_manifest

SHARDS = ("00000-of-00002.h5", "00001-of-00002.h5")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def features(tmp_path):
    """A feature set of two HDF5 shards."""
    make_feature_set(tmp_path / "fake", grid=(2, 2))
    return tmp_path / "fake"


def kilobytes(folder, *names):
    return f"{sum((folder / name).stat().st_size for name in names) / 1000:.1f} kB"


def inspect(*arguments):
    return main(["inspect", *map(str, arguments)])


def printed(capsys):
    """The summary as a dictionary."""
    lines = capsys.readouterr().out.splitlines()
    cells = [line.partition("  ") for line in lines[1:] if not line.startswith(" ")]
    return {name.strip(): value.strip() for name, _, value in cells}


def test_the_summary_says_what_made_the_features_and_what_they_are(features, capsys):
    size = kilobytes(features, *SHARDS)
    for name in SHARDS:
        (features / name).unlink()  # none of them is read
    assert inspect(features) == 0
    assert printed(capsys) == {
        "encoder": "fake",
        "model": "org/fake",
        "revision": "not known",
        "weights": "sha256 abababababab…",
        "layer": "last",
        "preprocessing": "1. resize (size 224)",
        "precision": "fp32 with torch, stored as float16",
        "versions": "torch 2.15.0",
        "licence": "CC0-1.0",
        "row": "5 patches x 7 features; the last 4 on a grid of 2 x 2",
        "format": "hdf5, version 1",
        "questions": "7 with pictures, 6 with features",
        "pictures": "8: 5 question, 2 choice_0",
        "failed": "1 missing",
        "rows": "6 distinct pictures",
        "shards": f"2 of up to 4 rows, {size} in all",
    }


def test_every_step_of_the_preprocessing_is_printed(features, capsys):
    assert inspect(features) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "2. normalize (mean [0.5])" in lines


def test_what_is_not_known_is_said(tmp_path, capsys):
    make_feature_set(
        tmp_path, weights_sha256=None, random_weights=3, versions={}, preprocessing=["unknown"]
    )
    assert inspect(tmp_path) == 0
    found = printed(capsys)
    assert found["weights"] == "not known, random with seed 3"
    assert found["versions"] == "not known"
    assert found["preprocessing"] == "1. unknown"
    assert found["row"] == "5 patches x 7 features; no place in the picture"


def test_json_holds_everything(features, tmp_path):
    out = tmp_path / "fake.json"
    assert inspect(features, "--json", out) == 0
    found = json.loads(out.read_text())
    assert found["spec"] == json.loads(json.dumps(make_spec(grid=(2, 2)).to_json()))
    assert found["roles"] == {"question": 5, "choice_0": 2}
    assert found["failed"] == {"missing": 1}
    assert [shard["file"] for shard in found["shards"]] == list(SHARDS)
    assert found["nbytes"] == sum((features / name).stat().st_size for name in SHARDS)
    assert "statistics" not in found


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
def test_statistics_are_those_of_all_rows(tmp_path, container, capsys):
    """Catches a shard that is left out, and the gaps between shards that are counted."""
    values = make_feature_set(tmp_path / "fake", container, "float32").astype(np.float64)
    out = tmp_path / "fake.json"
    assert inspect(tmp_path / "fake", "--statistics", "--json", out) == 0
    found = json.loads(out.read_text())["statistics"]
    assert (found["num_rows"], found["num_patches"]) == (6, 6 * P)
    expected = {
        "mean": values.mean((0, 1)),
        "std": values.std((0, 1)),
        "minimum": values.min((0, 1)),
        "maximum": values.max((0, 1)),
        "zero_share": (values == 0).mean((0, 1)),
    }
    for name, value_D in expected.items():
        np.testing.assert_allclose(found["dimensions"][name], value_D, atol=1e-12)
    output = capsys.readouterr()
    assert "6/6" in output.err
    assert f"6 rows, {6 * P} patches, of {D} dimensions 0 constant" in output.out
    row = next(line for line in output.out.splitlines() if "all values" in line)
    cells = [cell.strip() for cell in row.split("│")[2:-1]]
    numbers = (values.mean(), values.std(), None, values.min(), values.max())
    assert cells == ["0.00%" if number is None else f"{number:.4g}" for number in numbers]
    least = next(line for line in output.out.splitlines() if "least dimension" in line)
    assert least.split("│")[2].strip() == f"{values.mean((0, 1)).min():.4g}"


def test_values_that_are_not_finite_are_an_error_that_names_the_question(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("mmcot_data.shards.writer._check_finite", lambda *_: None)
    features, digests = make_rows(4)
    features[3, 1, 2] = np.nan
    index = [(f"q{row}", "question", row) for row in range(4)]
    write_set(
        tmp_path / "fake",
        make_spec(),
        [(features[:2], digests[:2]), (features[2:], digests[2:])],
        index,
    )
    out = tmp_path / "fake.json"
    assert inspect(tmp_path / "fake", "--statistics", "--json", out) == 1
    error = capsys.readouterr().err
    assert f"1 values are NaN or infinite, first in row 1 of {SHARDS[1]} (question q3)" in error
    statistics = json.loads(out.read_text())["statistics"]
    assert statistics["num_not_finite"] == 1
    assert statistics["dimensions"]["mean"][2] is None
    assert statistics["dimensions"]["mean"][1] == pytest.approx(
        features[..., 1].astype(np.float64).mean()
    )


def test_statistics_of_damaged_features_are_refused(features, capsys):
    record = read_manifest(features).shards[1]
    path = features / record.file
    content = bytearray(path.read_bytes())
    content[record.data_offset + record.data_nbytes - 1] ^= 1
    path.write_bytes(content)
    assert inspect(features, "--statistics") == 1
    assert f"{path} is damaged: the checksum of row 1 is wrong" in capsys.readouterr().err


def drawn(monkeypatch, *arguments):
    """The pictures that ``inspect`` draws."""
    calls = []
    monkeypatch.setattr(
        "mmcot_data.inspection.draw_feature_maps",
        lambda path, spec, pictures, data: calls.append((path, spec, pictures, data)),
    )
    assert inspect(*arguments) == 0
    ((_, _, pictures, _),) = calls
    return pictures


def test_pictures_are_drawn(features, tmp_path, capsys):
    out = tmp_path / "maps.png"
    assert inspect(features, "--pictures", out) == 0
    assert f"{out}: 6 pictures" in capsys.readouterr().out
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert len(image.getcolors(10**6)) > 20


def test_pictures_are_distinct_and_spread_over_the_set(features, tmp_path, monkeypatch):
    """Catches features that are given to the wrong question."""
    arguments = (features, "--pictures", tmp_path / "maps.png")
    reader = open_features(features, roles="all", combine="all")
    pictures = drawn(monkeypatch, *arguments)
    assert [(p.question_id, p.role) for p in pictures] == [
        ("q0", "question"),
        ("q1", "question"),
        ("q3", "question"),
        ("q4", "choice_0"),
        ("q5", "choice_0"),
        ("q5", "question"),
    ]
    for picture in pictures:
        place = reader.roles.index(picture.role) * P
        expected = reader[picture.question_id][place : place + P]
        np.testing.assert_array_equal(picture.features, expected)
        assert (picture.width, picture.height) == (64, 48)
        assert picture.file == f"images/{picture.question_id}/{picture.role}.png"
    few = drawn(monkeypatch, *arguments, "--num-pictures", "2")
    assert [picture.question_id for picture in few] == ["q0", "q5"]


def test_pictures_of_the_questions_asked_for(features, tmp_path, monkeypatch, capsys):
    arguments = (features, "--pictures", tmp_path / "maps.png", "--question", "q5")
    pictures = drawn(monkeypatch, *arguments, "--question", "q2")
    assert [(p.question_id, p.role) for p in pictures] == [
        ("q2", "question"),
        ("q5", "choice_0"),
        ("q5", "question"),
    ]
    assert inspect(*arguments, "--question", "q6", "--question", "nobody") == 1
    assert "has no features of the questions nobody, q6" in capsys.readouterr().err


def test_pictures_of_an_unknown_size_are_refused(features, tmp_path, capsys):
    """As an import without its data set leaves them."""
    path = features / "index.parquet"
    write_parquet(path, pl.read_parquet(path).with_columns(width=pl.lit(None, pl.Int32)))
    manifest = replace(
        read_manifest(features), index_sha256=file_sha256(path), index_nbytes=path.stat().st_size
    )
    write_manifest(features, manifest)
    assert inspect(features, "--pictures", tmp_path / "maps.png") == 1
    assert "does not say the width and height of the picture of" in capsys.readouterr().err


def test_a_picture_that_is_not_the_one_of_the_features_is_refused(features, tmp_path, capsys):
    path = tmp_path / "data" / "images" / "q0" / "question.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(path)
    arguments = ("--pictures", tmp_path / "maps.png", "--data", tmp_path / "data")
    assert inspect(features, *arguments, "--question", "q0") == 1
    assert "is not the picture that the features of question 'q0'" in capsys.readouterr().err
    assert not (tmp_path / "maps.png").exists()


def test_an_artifact_root_lists_its_feature_sets(tmp_path, capsys):
    for name in ("clip", "detr", "vit"):
        make_feature_set(tmp_path / name, encoder=name)
    (tmp_path / "captions").mkdir()
    (tmp_path / "detr" / "manifest.json").unlink()
    (tmp_path / "detr" / f"{SHARDS[1]}.json").unlink()
    (tmp_path / "vit" / "manifest.json").write_text("{")
    out = tmp_path / "root.json"
    assert inspect(tmp_path, "--json", out) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells == [
        [
            "clip",
            "clip",
            "org/fake",
            "5 x 7",
            "6",
            kilobytes(tmp_path / "clip", *SHARDS),
            "finished",
        ],
        [
            "detr",
            "detr",
            "org/fake",
            "5 x 7",
            "4",
            kilobytes(tmp_path / "detr", SHARDS[0]),
            "unfinished",
        ],
        ["vit", "", "", "", "0", "0 bytes", "damaged"],
    ]
    found = json.loads(out.read_text())
    assert [item["state"] for item in found] == ["finished", "unfinished", "damaged"]
    assert found[0]["spec"]["encoder"] == "clip"


def test_a_feature_set_at_a_url(features, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMCOT_CACHE", str(tmp_path / "cache"))
    with serve_folder(features.parent) as server:
        assert inspect(f"{server.url}/fake", "--statistics") == 0
        output = capsys.readouterr().out
        assert f"{server.url}/fake" in output
        assert "6 rows, 30 patches" in output
        assert inspect(f"{server.url}/nothing") == 1
        assert "there is no such file" in capsys.readouterr().err


def test_an_unfinished_or_absent_feature_set_is_an_error(features, tmp_path, capsys):
    (features / "manifest.json").unlink()
    for path, message in (
        (features, f"the feature set {features} is unfinished"),
        (tmp_path / "nothing", f"{tmp_path / 'nothing'} does not exist"),
    ):
        assert inspect(path) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"mmcot-data: {message}")
        assert "\n\n" not in error.strip()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "the following arguments are required: DIR"),
        (("fake", "--data", "x"), "need --pictures"),
        (("fake", "--question", "q0"), "need --pictures"),
        (("fake", "--pictures", "x.png", "--num-pictures", "0"), "expected at least 1"),
        ((".", "--statistics"), "are of one feature set: give one of fake"),
        ((".", "--pictures", "x.png"), "are of one feature set: give one of fake"),
    ],
)
def test_bad_usage_exits_with_2(features, monkeypatch, flags, message, capsys):
    monkeypatch.chdir(features.parent)
    with pytest.raises(SystemExit) as end:
        inspect(*flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as end:
        inspect("--help")
    assert end.value.code == 0
    flags, examples = capsys.readouterr().out.split("examples:")
    assert "mmcot-data inspect shards/detr --statistics" in examples
    for word in examples.split():
        if word.startswith("--") and word.isascii():
            assert word in flags
