"""Settings of a run as a file: what is written is read, and what is wrong is named."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcot_data.errors import TrainingError
from mmcot_model.settings.config import TrainConfig
from mmcot_model.settings.descriptions import GROUPS
from mmcot_model.settings.files import read_config_file, write_config_file

CONFIG = TrainConfig(artifacts=Path("shards"), output=Path("runs/x"))
# A surrogate is no text; "none" is what an absent setting is called.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda t: t != "none")
PATH = TEXT.filter(lambda text: "\0" not in text and "://" not in text).map(Path)
OPEN_RATE = st.floats(0, 1, exclude_min=True)
COUNT = st.integers(1, 10**9)


@st.composite
def configs(draw):
    stage = draw(st.sampled_from(["both", "rationale", "answer"]))
    forms = ["QCM-A", "QCM-LEA"] if stage == "answer" else ["QCM-E", "QCM-LE"]
    keep = draw(st.sampled_from(["best", "last"]))
    urls = st.just("s3://bucket/shards/détr")
    return TrainConfig(
        artifacts=draw(PATH),
        output=draw(PATH),
        features=tuple(draw(st.lists(PATH | urls, max_size=3))),
        stage=stage,
        prompt_format=draw(st.sampled_from(forms)),
        model=draw(TEXT),
        captions=draw(st.none() | TEXT),
        train_rationales=draw(st.none() | TEXT) if stage == "both" else None,
        image_roles=tuple(draw(st.lists(TEXT, min_size=1, max_size=3))),
        rationale_epochs=draw(OPEN_RATE),
        learning_rate=draw(OPEN_RATE),
        weight_decay=draw(st.floats(0, allow_nan=False)),
        max_steps=draw(st.none() | COUNT),
        batch_size=draw(COUNT),
        seed=draw(st.integers(-(2**70), 2**70)),
        keep=keep,
        early_stopping=draw(st.none() | COUNT) if keep == "best" else None,
        gradient_checkpointing=draw(st.booleans()),
        precision=draw(st.sampled_from(["auto", "fp32", "bf16"])),
        report_to=tuple(draw(st.lists(st.sampled_from(["wandb", "mlflow"]), unique=True))),
        push_to_hub=draw(st.none() | TEXT),
    )


@settings(max_examples=60, deadline=None)
@given(config=configs())
def test_what_is_written_is_read(config, tmp_path_factory):
    """Would catch a value that YAML takes for another type (no, 1e5, 012, ~), and bad quoting."""
    path = tmp_path_factory.mktemp("runs") / "train.yaml"
    write_config_file(path, config)
    assert TrainConfig(**read_config_file(path)) == config


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "\u2029", "é\x85\n", "\ufeff", "é: - #"])
def test_text_with_line_breaks_of_unicode_is_read(text, tmp_path):
    """Would catch a line break that YAML knows and that is folded to a space."""
    config = replace(CONFIG, model=text, image_roles=(text, "question"))
    write_config_file(tmp_path / "train.yaml", config)
    assert TrainConfig(**read_config_file(tmp_path / "train.yaml")) == config


def test_the_file_holds_every_field_with_a_comment(tmp_path):
    """Would catch a field that is not saved, and a line that other YAML readers see otherwise."""
    write_config_file(tmp_path / "train.yaml", CONFIG)
    text = (tmp_path / "train.yaml").read_text()
    found = yaml.safe_load(text)
    assert list(found) == [setting.name for group in GROUPS.values() for setting in group]
    assert set(found) == {field.name for field in fields(TrainConfig)}
    assert found["learning_rate"] == CONFIG.learning_rate
    assert found["captions"] is None
    assert found["features"] == []
    lines = text.splitlines()
    for name in found:
        (place,) = (i for i, line in enumerate(lines) if line.startswith(f"{name}:"))
        assert lines[place - 1].startswith("# ")
    assert all(f"# {title} -" in text for title in GROUPS)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".yaml", "batch_size: 4\nlearning_rate: 8e-5\nfeatures: [a/b, s3://c/d]\ncaptions: ~\n"),
        (".yml", "batch_size: 4\nlearning_rate: 0.00008\nfeatures: [a/b, 's3://c/d']\ncaptions:"),
        (
            ".toml",
            "batch_size = 4\nlearning_rate = 8e-5\nfeatures = ['a/b', 's3://c/d']\n"
            "captions = 'none'\n",
        ),
        (
            ".json",
            '{"batch_size": 4, "learning_rate": 8e-5, "features": ["a/b", "s3://c/d"], '
            '"captions": null}',
        ),
    ],
)
def test_formats_say_the_same(suffix, text, tmp_path):
    """Would catch 8e-5 read as text, as YAML 1.1 has it, and an absent value that TOML lacks."""
    path = tmp_path / f"settings{suffix}"
    path.write_text(text)
    values = read_config_file(path)
    assert values == {
        "batch_size": 4,
        "learning_rate": 8e-5,
        "features": (Path("a/b"), "s3://c/d"),
        "captions": None,
    }
    assert isinstance(values["learning_rate"], float)


def test_the_settings_of_a_run_are_a_config_file(tmp_path):
    """Would catch a config.json of a run that is refused for what it says besides."""
    config = replace(CONFIG, features=(tmp_path / "shards" / "detr",), report_to=("wandb",))
    found = config.to_json() | {"sha256 of questions": "00", "processes": 2}
    (tmp_path / "config.json").write_text(json.dumps(found))
    read = TrainConfig(**read_config_file(tmp_path / "config.json"))
    assert read.to_json() == config.to_json()


def test_only_comments_say_nothing(tmp_path):
    (tmp_path / "a.yaml").write_text("# batch_size: 4\n")
    assert read_config_file(tmp_path / "a.yaml") == {}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "a.yaml",
            "batch-size: 4",
            "a.yaml: unknown setting 'batch-size', did you mean batch_size",
        ),
        ("a.yaml", "learnig_rate: 1", "did you mean learning_rate"),
        ("a.yaml", "qwertz: 1", r"unknown setting 'qwertz'\. "),
        ("a.yaml", "7: 1", "unknown setting 7"),
        ("a.yaml", "batch_size: four", "batch_size is 'four', expected a whole number"),
        ("a.yaml", "batch_size: 4.0", "batch_size is 4.0, expected a whole number"),
        ("a.yaml", "batch_size: yes", "batch_size is True, expected a whole number"),
        ("a.yaml", "learning_rate: fast", "expected a number"),
        ("a.yaml", "compile: 1", "compile is 1, expected true or false"),
        ("a.yaml", "captions: no", "captions is False, expected text, or none"),
        ("a.yaml", "features: shards/detr", "expected a list, each a path, or none"),
        ("a.yaml", "features: [s3:/b/c]", "expected a URL with two slashes"),
        ("a.yaml", "image_roles: []", "expected a list, each text"),
        ("a.yaml", "max_steps: {a: 1}", "expected a whole number, or none"),
        ("a.yaml", "stage: answers", "expected one of rationale, answer, both"),
        ("a.yaml", "test_split: tests", "expected one of train, val, test"),
        ("a.yaml", "report_to: [tensorbord]", "each one of tensorboard, wandb"),
        ("a.yaml", "seed: 1\nmodel: tiny\nseed: 2", "seed stands there more than once"),
        ("a.json", '{"seed": 1, "seed": 2}', "seed stands there more than once"),
        ("a.toml", "seed = 1\nseed = 2", "not valid TOML"),
        ("a.yaml", "seed: [1", "not valid YAML"),
        ("a.json", "{", "not valid JSON"),
        ("a.yaml", "- seed", "expected settings by name"),
        ("a.ini", "seed = 1", "expected a file of settings"),
    ],
)
def test_what_is_wrong_is_named(name, text, expected, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(TrainingError, match=expected) as caught:
        read_config_file(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_all_that_is_wrong_is_named_at_once(tmp_path):
    (tmp_path / "a.yaml").write_text("sead: 1\nbatch_size: x\n")
    with pytest.raises(TrainingError, match=r"seed.*batch_size is 'x'"):
        read_config_file(tmp_path / "a.yaml")


def test_an_absent_file_is_explained(tmp_path):
    with pytest.raises(TrainingError, match=r"absent.yaml: cannot be read: No such file"):
        read_config_file(tmp_path / "absent.yaml")
