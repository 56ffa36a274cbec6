import inspect
import os
import sys
from importlib.metadata import entry_points
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest

from pipelines import _prefect_plugin
from pipelines._prefect_plugin import complete, setup_environment

SHORT = "extract-features"
LONG = "extract-features/extract-features"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (f"deployment run {SHORT}", f"deployment run {LONG}"),
        (f"deployments run {SHORT}", f"deployments run {LONG}"),
        (f"deployment inspect {SHORT}", f"deployment inspect {LONG}"),
        (f"deployment delete {SHORT}", f"deployment delete {LONG}"),
        (f"deployment run --watch {SHORT}", f"deployment run --watch {LONG}"),
        (f"deployment run {SHORT} --watch", f"deployment run {LONG} --watch"),
        (f"deployment run -p encoder=vit {SHORT}", f"deployment run -p encoder=vit {LONG}"),
        (f"deployment run --name {SHORT}", f"deployment run --name {LONG}"),
        (f"--profile x deployment run {SHORT}", f"--profile x deployment run {LONG}"),
        (f"--no-prompt deployment run {SHORT}", f"--no-prompt deployment run {LONG}"),
        # only the first: the second is the value of an option
        (f"deployment run {SHORT} --tag {SHORT}", f"deployment run {LONG} --tag {SHORT}"),
        (f"deployment run --tag {SHORT} {SHORT}", f"deployment run --tag {SHORT} {LONG}"),
    ],
)
def test_short_name_is_completed_wherever_it_stands(typed, completed, tmp_path):
    assert complete(["prefect", *typed.split()], tmp_path) == ["prefect", *completed.split()]


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "deployment",
        "deployment run",
        "deployment ls",
        f"deployment run {LONG}",
        f"deployment run other/{SHORT}",
        "deployment run extract-feature",
        f"deployment run -p {SHORT} other/flow",
        f"deployment run --flow-run-name {SHORT} other/flow",
        f"flow-run inspect {SHORT}",
        f"--profile deployment run {SHORT}",
        "deploy --all",
        "--profile",
    ],
)
def test_everything_else_is_left_as_it_was_typed(typed, tmp_path):
    argv = ["prefect", *typed.split()]
    assert complete(argv, tmp_path) == argv


@pytest.mark.parametrize(
    ("typed", "added"),
    [
        ("deploy --all", "--prefect-file flows.yaml --no-prompt"),
        ("--profile x deploy --all", "--prefect-file flows.yaml --no-prompt"),
        ("--no-prompt deploy --all", "--prefect-file flows.yaml"),
        ("--prompt deploy --all", "--prefect-file flows.yaml"),
        (f"deploy --name {SHORT}", "--prefect-file flows.yaml"),
        ("deploy --all --prefect-file x.yaml", ""),
        ("deploy --all --prefect-file=x.yaml", ""),
    ],
)
def test_deploy_is_given_the_file_where_it_exists(typed, added, tmp_path):
    """Without --no-prompt Prefect asks in a terminal where to pull code from, default: remote."""
    (tmp_path / "flows.yaml").touch()
    argv = ["prefect", *typed.split()]
    assert complete(argv, tmp_path) == argv + added.split()


def test_deploy_leaves_a_prefect_yaml_its_place(tmp_path):
    (tmp_path / "flows.yaml").touch()
    (tmp_path / "prefect.yaml").touch()
    assert complete(["prefect", "deploy", "--all"], tmp_path) == ["prefect", "deploy", "--all"]


@pytest.mark.parametrize(
    ("argv0", "orig_argv"),
    [("/x/bin/prefect", ["python", "/x/bin/prefect"]), ("-m", ["python", "-I", "-m", "prefect"])],
)
def test_hook_changes_the_command_line_of_prefect(argv0, orig_argv, monkeypatch):
    monkeypatch.setattr(sys, "argv", [argv0, "deployment", "run", SHORT])
    monkeypatch.setattr(sys, "orig_argv", [*orig_argv, "deployment", "run", SHORT])
    setup_environment(ctx=None)
    assert sys.argv == [argv0, "deployment", "run", LONG]


@pytest.mark.parametrize(
    ("argv0", "orig_argv"),
    [
        ("/x/bin/pytest", ["python", "/x/bin/pytest"]),
        ("-m", ["python", "-m", "prefect.engine"]),
        ("-m", ["python", "-m", "other"]),
        ("", ["python"]),
    ],
)
def test_hook_leaves_other_programs_alone(argv0, orig_argv, monkeypatch):
    monkeypatch.setattr(sys, "argv", [argv0, "deployment", "run", SHORT])
    monkeypatch.setattr(sys, "orig_argv", [*orig_argv, "deployment", "run", SHORT])
    setup_environment(ctx=None)
    assert sys.argv == [argv0, "deployment", "run", SHORT]


@pytest.mark.parametrize(("said", "then"), [(None, "1"), ("0", "0"), ("1", "1"), ("", "")])
def test_no_usage_data_unless_the_user_says_so(said, then, monkeypatch):
    """Would catch a user's explicit wish that is overruled."""
    monkeypatch.setenv("DO_NOT_TRACK", "x")  # so that it is restored however it is set here
    if said is None:
        monkeypatch.delenv("DO_NOT_TRACK")
    else:
        monkeypatch.setenv("DO_NOT_TRACK", said)
    setup_environment(ctx=None)
    assert os.environ["DO_NOT_TRACK"] == then


def test_prefect_finds_the_plugin():
    [found] = [entry for entry in entry_points(group="prefect.plugins") if entry.name == "mmcot"]
    assert found.load() is _prefect_plugin


def test_all_options_of_prefect_that_take_a_value_are_known():
    """Else the value of a new option could be taken for the deployment's name."""
    from prefect.cli import deployment

    options = set()
    for command in (deployment.run, deployment.inspect, deployment.delete):
        for hint in get_type_hints(inspect.unwrap(command), include_extras=True).values():
            if get_origin(hint) is Annotated and get_args(hint)[0] is not bool:
                parameter = get_args(hint)[1]
                options |= {*parameter.name, *(parameter.alias or ())}
    options = {option for option in options if option.startswith("-")}
    assert {"--id", "--param", "-p", "--tag"} <= options
    assert options <= set(_prefect_plugin._WITH_VALUE)
