"""The command line of mmcot-train: flags, files, what is checked first, and the hub."""

import json
import re
import subprocess
import sys
from argparse import BooleanOptionalAction
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hub_server import TOKEN, serve_hub
from huggingface_hub import constants

from mmcot_data.cli import main as data_main
from mmcot_data.errors import TrainingError
from mmcot_data.sample import draw_sample
from mmcot_model.cli.options import config_from
from mmcot_model.cli.train import build_parser, main
from mmcot_model.runs.folder import read_config
from mmcot_model.runs.reporters import check_reporters
from mmcot_model.settings.config import TrainConfig
from mmcot_model.settings.descriptions import SETTINGS, flag_of
from mmcot_model.settings.files import write_config_file
from mmcot_model.settings.recipes import RECIPES, REFERENCE

NOT_SETTINGS = {"help", "resume", "config", "reference"}
QUICK = ["--max-steps", "1", "--batch-size", "4", "--max-rationale", "4", "--max-answer", "4"]


def config_of(*arguments: str) -> TrainConfig:
    return config_from(build_parser().parse_args(arguments))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    draw_sample(folder / "data", num_questions=120, num_workers=1)
    assert data_main(["questions", str(folder / "data"), "--out", str(folder / "shards")]) == 0
    return folder / "shards"


def test_every_field_has_a_flag_and_every_flag_a_field():
    """Would catch a setting that can be made in Python only, or a flag that nothing reads."""
    actions = {action.dest: action for action in build_parser()._actions}
    assert actions.keys() - NOT_SETTINGS == {field.name for field in fields(TrainConfig)}
    assert all(flag_of(name) in actions[name].option_strings for name in SETTINGS)


def test_help_tells_meaning_and_default_of_each_flag():
    """Would catch a flag without a word, and a default that is not the field's."""
    actions = {action.dest: action for action in build_parser()._actions}
    for name in SETTINGS:
        assert re.fullmatch(r".{10,}\(default: .+\)", actions[name].help), name
    expected = {"seed": "42", "compile": "off", "max_source": "512", "captions": "none"}
    expected |= {"image_roles": "question", "test_split": "test", "precision": "auto"}
    assert {name: actions[name].help.rpartition("default: ")[2] for name in expected} == {
        name: f"{shown})" for name, shown in expected.items()
    }
    for name in ("learning_rate", "batch_size", "keep"):
        tiny, other = (getattr(RECIPES[recipe], name) for recipe in ("tiny", "default"))
        assert f"{tiny} for the model tiny, {other} for any other" in actions[name].help


def test_help_shows_groups_examples_and_exit_codes(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for part in (
        "examples:",
        "torchrun --nproc-per-node",
        "exit codes:",
        "what it reads:",
        "QCM-E",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_flag_gives_each_field_the_value_that_its_text_says():
    """Would catch a flag that stores text where a number, a path or several are meant."""
    given = {
        "features": (Path("a/detr"), "s3://bucket/clip"),
        "artifacts": Path("a"),
        "image_roles": ("question", "choice_0"),
        "learning_rate": 3e-4,
        "max_steps": 7,
        "captions": "vit-gpt2",
        "report_to": ("wandb", "mlflow"),
        "absent_image": "zeros",
        "seed": -3,
    }
    words = []
    for name, value in given.items():
        words += [flag_of(name), *map(str, value if isinstance(value, tuple) else [value])]
    config = config_of(*words, "--compile", "--no-hub-private")
    assert {name: getattr(config, name) for name in given} == given
    assert config.compile
    assert not config.hub_private
    bools = {a.dest for a in build_parser()._actions if isinstance(a, BooleanOptionalAction)}
    assert bools == {"compile", "gradient_checkpointing", "hub_private"}


def test_flags_win_over_the_reference_and_that_over_the_file(tmp_path):
    """Would catch a file that undoes what the command line says, or a default that undoes both."""
    path = tmp_path / "a.yaml"
    path.write_text(
        "artifacts: shards\nbatch_size: 3\nlearning_rate: 0.5\npadding: longest\n"
        "length_window: 9\ncaptions: vit-gpt2\nmodel: some/t5\n"
    )
    config = config_of(
        "--config", str(path), "--reference", "--batch-size", "5", "--length-window", "2",
        "--captions", "none",
    )  # fmt: skip
    assert config.batch_size == 5
    assert config.learning_rate == 0.5
    assert config.padding == "fixed"
    assert config.length_window == 2
    assert config.captions is None
    assert config.warmup == RECIPES["default"].warmup, "of a model that the file names"
    assert config.output == Path("runs/text-t5")


def test_the_reference_sets_every_switch():
    config = config_of("--artifacts", "a", "--reference")
    assert {name: getattr(config, name) for name in REFERENCE} == dict(REFERENCE)
    assert config.train_rationales == "gold-le", "whatever stage 1 writes"
    one_stage = config_of("--artifacts", "a", "--reference", "--stage", "answer")
    assert one_stage.train_rationales is None
    given = config_of("--artifacts", "a", "--reference", "--train-rationales", "stage1-kfold")
    assert given.train_rationales == "stage1-kfold"


def test_the_settings_of_a_run_give_the_same_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of("--features", "shards/detr", "--model", "a/b", "--early-stopping", "3")
    write_config_file(Path("train.yaml"), config)
    assert config_of("--config", "train.yaml") == config
    again = config_of("--config", "train.yaml", "--seed", "7", "--output", "runs/seed-7")
    assert again == replace(config, seed=7, output=Path("runs/seed-7"))


def test_several_feature_sets_name_the_run_and_the_artifact_root():
    config = config_of("--features", "shards/detr", "shards/clip")
    assert config.output == Path("runs/detr+clip-tiny")
    assert config.artifacts == Path("shards").resolve()
    with_url = config_of("--features", "s3://bucket/detr", "shards/clip")
    assert with_url.artifacts == Path("shards").resolve()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "nothing to train on: give --features DIR"),
        (["--features", "s3://b/detr"], "is a URL: give --artifacts DIR"),
        (["--features", "a/detr", "b/clip"], "stand in several folders"),
        (["--features", "s3:/b/detr"], "expected a URL with two slashes"),
        (["--features", "x", "--batch-size", "many"], "expected a whole number, got 'many'"),
        (["--features", "x", "--batch-size", "0"], "batch_size must be at least 1"),
        (["--features", "x", "--test-split", "tests"], "expected one of train, val, test"),
        (["--features", "x", "--batch", "3"], "unrecognized arguments: --batch"),
        (["--features", "x", "--prompt-format", "QCM-A"], "--stage both takes"),
        (["--config", "absent.yaml"], "absent.yaml: cannot be read"),
    ],
)
def test_wrong_usage_is_explained_in_few_lines(arguments, expected, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) <= 6, "not all flags again"


def test_what_can_be_checked_is_checked_before_torch_is_imported(artifacts, tmp_path):
    """Would catch an import that lets one wait twelve seconds to learn of a misspelt name."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    script = (
        "import sys\n"
        "from mmcot_model.cli.train import main\n"
        "for arguments in {cases!r}:\n"
        "    assert main(['--artifacts', {root!r}, '--output', {out!r}, *arguments]) == 1\n"
        "heavy = {{'torch', 'transformers', 'accelerate'}} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    ).format(
        cases=[
            ["--captions", "absent"],
            ["--train-rationales", "absent"],
            ["--features", str(tmp_path / "absent")],
            ["--output", str(tmp_path / "other")],
        ],
        root=str(artifacts),
        out=str(tmp_path / "run"),
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    for expected in ("captions", "rationales", "absent", "holds no run"):
        assert expected in finished.stderr
    assert not (tmp_path / "run").exists()


def test_trackers_that_are_not_installed_stop_before_training(monkeypatch, capsys):
    installed = {"tensorboard", "mlflow"}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: name if name in installed else None
    )
    check_reporters(["tensorboard", "mlflow"])
    with pytest.raises(TrainingError, match="pip install wandb trackio, or leave them out"):
        check_reporters(["wandb", "tensorboard", "trackio"])
    assert main(["--artifacts", "a", "--report-to", "wandb"]) == 1
    assert "pip install wandb" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="no experiment tracker comet"):
        check_reporters(["comet"])


FAKE_WANDB = """
class errors:
    class Error(Exception):
        pass

def login():
    raise errors.Error("No API key configured.")
"""


def test_a_tracker_without_a_key_stops_before_training(monkeypatch, tmp_path):
    """Would catch W&B's own traceback when the model is loaded and the folder claimed."""
    (tmp_path / "wandb.py").write_text(FAKE_WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(TrainingError, match=r"No API key configured\. Without a netw"):
        check_reporters(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_reporters(["wandb"])
    monkeypatch.delitem(sys.modules, "wandb")


def test_only_the_main_process_of_several_prints(monkeypatch, capsys):
    monkeypatch.setattr("mmcot_model.runs.run.train_run", lambda *_, **__: None)
    for rank, expected in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert main(["--artifacts", "a", "--stage", "rationale"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == expected


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serve_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_without_access_to_the_hub_nothing_is_trained(hub, monkeypatch, capsys):
    """Would catch a token that is missed only when a day of training is over."""
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(
        "mmcot_model.runs.run.train_run", lambda *_, **__: pytest.fail("it trained")
    )
    assert main(["--artifacts", "a", "--push-to-hub", "me/x"]) == 1
    assert "hf auth login" in capsys.readouterr().err


def test_a_run_is_pushed_and_a_push_that_failed_is_made_up_for(hub, artifacts, tmp_path, capsys):
    """From the command to the hub: two stages, the card, a refusal at the end, and --resume."""
    run = tmp_path / "run"
    arguments = ["--artifacts", str(artifacts), "--output", str(run), *QUICK]
    arguments += ["--push-to-hub", "me/tiny", "--hub-private"]
    hub.refusals["/commit/main"] = 403
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert f"the run in {run} is complete, but was not pushed" in error
    assert "--resume pushes it again" in error
    hub.refusals.clear()
    assert main([*arguments, "--resume"]) == 0
    assert f"pushed to {hub.url}/me/tiny" in capsys.readouterr().out
    pushed = hub.repositories["me/tiny"]
    assert pushed.private
    told = {"config.json", "run.json", "train.yaml"}  # with the names of folders only
    local = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file()
        and "checkpoints" not in path.parts
        and path.name not in (".lock", "cuts.json")
    }
    assert pushed.files.keys() == local.keys()
    assert all(pushed.files[name] == content for name, content in local.items() if name not in told)
    assert not any(str(tmp_path).encode() in content for content in pushed.files.values())
    assert {"README.md", "rationale/model.safetensors", "answer/model.safetensors"} <= set(
        pushed.files
    )
    assert config_of("--config", str(run / "train.yaml")) == config_of(*arguments)
    assert config_of("--config", str(run / "config.json")) == read_config(run)
    (snippet,) = re.findall(r"```python\n(.*?)```", (run / "README.md").read_text(), re.DOTALL)
    exec(snippet.replace("RUN", str(run)))  # the card's own lines
    assert json.loads((run / "run.json").read_text())["environment"]["command"]
