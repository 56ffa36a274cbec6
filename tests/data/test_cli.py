"""The command mmcot-data: what it prints, what it leaves, and how it ends."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fake_encoder import FakeEncoder, make_data, picture_path

from mmcot_data.cli import main
from mmcot_data.rationales import Rationale, write_rationales
from mmcot_data.shards import open_features

EXTRACT = ("extract", "data", "--out", "shards", "--encoder", "vit")
COMMANDS = ("sample", "questions", "extract", "inspect", "verify", "inputs", "export", "import")


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    return make_data(tmp_path / "data", captions={"0": "a colour", "11": "another"})


@pytest.fixture
def shards(tmp_path):
    return tmp_path / "shards"


@pytest.fixture
def encoders(monkeypatch):
    """Every encoder is a fake one of that name; gives the configs that were loaded."""
    loaded = []

    def load(config):
        encoder = FakeEncoder()
        encoder.name = config.name
        loaded.append(config)
        return encoder

    monkeypatch.setattr("mmcot_data.extraction.run.load_encoder", load)
    return loaded


def extract(data, shards, *flags):
    return main(["extract", str(data), "--out", str(shards), "--encoder", "detr", *flags])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_and_every_flag_of_them(command, capsys):
    """Catches examples that the command itself would refuse."""
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    flags, examples = text.split("examples:")
    assert f"mmcot-data {command}" in examples
    for word in examples.split():
        if word.startswith("--"):
            assert word in flags


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["extract", "data", "--out", "shards"],
        [*EXTRACT, "--format", "npy"],
        [*EXTRACT, "--max-failures", "few"],
        [*EXTRACT, "--shard-size", "0"],
        [*EXTRACT, "--random-weights", "1", "--revision", "main"],
        [*EXTRACT, "--encoder", "clip", "--model", "folder"],
        ["inputs", "shards", "--prompt-format", "QCX", "--out", "x.parquet"],
    ],
)
def test_bad_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: mmcot-data" in capsys.readouterr().err


def test_extract_passes_every_flag_on(data, shards, encoders):
    """Catches a flag that is parsed and then forgotten."""
    flags = (
        "--model folder --random-weights 7 --preprocessing native --precision bf16 --device cpu "
        "--format arrow --dtype float32 --shard-size 3 --batch-size 2 --split val --split test "
        "--resize torchvision --alpha drop --backend openvino --pad-to 1 --layout scienceqa"
    )
    assert extract(data, shards, *flags.split()) == 0
    (config,) = encoders
    assert (config.name, config.model, config.random_weights) == ("detr", "folder", 7)
    assert (config.preprocessing, config.precision, config.device) == ("native", "bf16", "cpu")
    assert (config.resize, config.alpha, config.backend) == ("torchvision", "drop", "openvino")
    manifest = json.loads((shards / "detr" / "manifest.json").read_text())
    assert manifest["plan"]["format"] == "arrow"
    assert manifest["plan"]["shard_size"] == 3
    commit = json.loads((shards / "detr" / "00000-of-00003.arrow.json").read_text())
    assert (commit["made_by"]["batch_size"], commit["made_by"]["pad_to"]) == (2, 1)
    assert manifest["plan"]["num_images"] == 8
    assert manifest["spec"]["dtype"] == "float32"


def test_extract_of_several_encoders(data, shards, encoders, capsys):
    assert extract(data, shards, "--encoder", "clip", "--encoder", "detr") == 0
    assert [config.name for config in encoders] == ["detr", "clip"]
    output = capsys.readouterr()
    assert "12 rows of (4, 3) float16 in 1 shard," in output.out
    assert "pictures/s)" in output.out
    assert "image" not in output.out + output.err
    assert "12/12" in output.err
    np.testing.assert_array_equal(
        open_features(shards / "detr")["5"], open_features(shards / "clip")["5"]
    )
    assert extract(data, shards) == 0
    assert "there already" in capsys.readouterr().out


def test_extract_exits_with_3_where_some_pictures_failed(data, shards, encoders, capsys):
    picture_path(data, 3).unlink()
    picture_path(data, 8).write_bytes(b"no picture")
    assert extract(data, shards, "--max-failures", "2") == 3
    error = capsys.readouterr().err
    assert "2 pictures have no features (1 missing, 1 unreadable)" in error
    assert str(shards / "detr" / "index.parquet") in error
    assert len(open_features(shards / "detr")) == 10


def test_extract_exits_with_1_where_too_many_failed(data, shards, encoders, capsys):
    picture_path(data, 3).unlink()
    assert extract(data, shards) == 1
    error = capsys.readouterr().err
    assert "1 of 12 pictures can't be used" in error
    assert "Traceback" not in error
    assert not (shards / "detr").exists()


@pytest.mark.parametrize("command", ["questions", "extract"])
def test_a_folder_that_is_no_data_set_is_one_paragraph(tmp_path, command, encoders, capsys):
    flags = ["--encoder", "detr"] if command == "extract" else []
    assert main([command, str(tmp_path), "--out", str(tmp_path / "out"), *flags]) == 1
    error = capsys.readouterr().err
    assert error.startswith("mmcot-data: ")
    assert "problems.json" in error or "no layout that is known" in error
    assert "\n\n" not in error.strip()


def test_a_folder_that_cannot_be_written_is_one_paragraph(data, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["questions", str(data), "--out", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err


def test_questions_opens_no_picture_and_needs_no_picture_library(data, shards):
    """The core install, without torch and Pillow, makes the tables."""
    for path in (data / "images").rglob("*.png"):
        path.write_bytes(b"not a picture")
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["torch", "PIL", "transformers", "torchvision", "timm"]))
from mmcot_data.cli import main
assert main(["questions", {str(data)!r}, "--out", {str(shards)!r}]) == 0
arguments = [{str(shards)!r}, "--prompt-format", "QCM-A", "--out", {str(shards / "x.jsonl")!r}]
assert main(["inputs", *arguments]) == 0
sys.exit(main(["extract", {str(data)!r}, "--out", {str(shards)!r}, "--encoder", "vit"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "pip install 'mmcot[extract]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "12 questions (4 train, 4 val, 4 test)" in done.stdout
    assert "2 captions" in done.stdout
    assert pl.read_parquet(shards / "questions.parquet").height == 12
    assert len((shards / "x.jsonl").read_text().splitlines()) == 12


def test_inputs_joins_captions_and_rationales_by_question(data, shards, capsys):
    """Catches texts that are joined by position."""
    assert main(["questions", str(data), "--out", str(shards)]) == 0
    rationales = [
        Rationale(question_id=str(n), rationale=f"Solution: because {n}.", prompt_format="QCM-LE")
        for n in reversed(range(12))
    ]
    write_rationales(shards / "rationales" / "mine.parquet", rationales, {"model": "x"})
    out = shards / "inputs.parquet"
    flags = "--prompt-format QCMG-A --captions scienceqa --rationales mine --split test"
    assert main(["inputs", str(shards), "--out", str(out), *flags.split()]) == 0
    table = pl.read_parquet(out)
    assert table.columns == ["question_id", "source", "target"]
    assert table["question_id"].to_list() == ["8", "9", "10", "11"]
    assert table["source"].to_list()[3] == (
        "Question: What is on picture 11? Context: another Options: (A) this (B) that "
        "Solution: because 11. Answer:"
    )
    assert table["target"].to_list()[3] == "The answer is (B)."
    assert main(["inputs", str(shards), "--out", str(out), *flags.split(), "--captions", "x"]) == 1
    assert "x.parquet" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["questions", "inputs"])
def test_a_text_file_in_the_place_of_the_table_is_one_paragraph(data, shards, command, capsys):
    shards.mkdir()
    (shards / "questions.parquet").write_text("question_id,split\n1,train\n")
    arguments = {
        "questions": [str(data), "--out", str(shards)],
        "inputs": [str(shards), "--prompt-format", "QCM-A", "--out", str(shards / "x.jsonl")],
    }
    assert main([command, *arguments[command]]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"mmcot-data: {shards / 'questions.parquet'}: expected a parquet file")
    assert f"delete it and make it anew with `mmcot-data questions DATA --out {shards}`" in error
    assert "\n\n" not in error.strip()


def test_ctrl_c_exits_with_130_and_the_same_command_continues(data, shards, encoders, tmp_path):
    """A real SIGINT to a real process; its encoder hangs in the second shard."""
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import fake_encoder
import mmcot_data.extraction.run as run
from mmcot_data.cli import main

def load(config):
    encoder = fake_encoder.FakeEncoder(hang_at=5)
    encoder.name = config.name
    return encoder

run.load_encoder = load
sys.exit(main(sys.argv[1:]))
"""
    )
    arguments = ["extract", str(data), "--out", str(shards), "--encoder", "detr"]
    arguments += ["--shard-size", "5", "--batch-size", "2"]
    command = [sys.executable, str(script), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (shards / "detr" / "00000-of-00003.h5.json").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "run the same command to go on" in error
    assert "Traceback" not in error
    assert main(arguments) == 0
    assert len(open_features(shards / "detr")) == 12


def test_sample_then_extract_with_the_tiny_encoder(tmp_path, shards, capsys):
    """The whole way on real pictures with a real model, without a download."""
    sample = tmp_path / "sample"
    assert main(["sample", str(sample), "--num-questions", "100", "--workers", "1"]) == 0
    arguments = ["extract", str(sample), "--out", str(shards), "--encoder", "tiny"]
    assert main([*arguments, "--split", "minitest"]) == 0
    assert "rows of (50, 192) float16" in capsys.readouterr().out
    features = open_features(shards / "tiny", roles=("question", "choice_0"))
    assert features.spec.encoder == "tiny"
    assert len(features) > 0
    assert features.gather(features.question_ids)[1].all()


def test_a_feature_set_is_no_artifact_root(data, tmp_path, capsys):
    """Catches tables and a feature set that are written into another feature set."""
    out = tmp_path / "shards"
    assert main(["extract", str(data), "--encoder", "tiny", "--out", str(out)]) == 0
    before = sorted(out.rglob("*"))
    for command in ("extract", "questions"):
        options = ["--encoder", "tiny"] if command == "extract" else []
        assert main([command, str(data), *options, "--out", str(out / "tiny")]) == 1
        assert "is a feature set, expected an artifact root" in capsys.readouterr().err
    assert sorted(out.rglob("*")) == before
