"""Prefect ignores keys that it does not know without a word, so the file is checked here."""

import copy
import functools
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import Settings
from prefect.utilities.schema_tools import validate

from pipelines._prefect_plugin import DEPLOYMENTS

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "flows.yaml").read_text())
ENTRIES = FILE["deployments"]
PROCESS_VARIABLES = {"env", "command", "working_dir", "stream_output", "label", "name", "labels"}


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    """Entrypoints are relative to it."""
    monkeypatch.chdir(ROOT)


@functools.cache
def load(entrypoint):
    return load_flow_from_entrypoint(entrypoint)


def keys(model):
    """What Prefect reads of a part of the file."""
    return {field.alias or name for name, field in model.model_fields.items()}


def unknown_keys(file):
    """Keys at any level that Prefect would ignore, with their place."""
    found = [(key,) for key in file.keys() - keys(PrefectYamlModel)]
    for entry in file["deployments"]:
        name = entry.get("name")
        found += [(name, key) for key in entry.keys() - keys(DeploymentConfig)]
        pool = entry.get("work_pool", {})
        parts = [
            ("work_pool", pool, keys(WorkPoolConfig)),
            ("job_variables", pool.get("job_variables", {}), PROCESS_VARIABLES),
            ("concurrency_limit", entry.get("concurrency_limit", {}), keys(ConcurrencyLimitSpec)),
            *(("schedules", each, keys(RawScheduleConfig)) for each in entry.get("schedules", ())),
        ]
        for part, value, known in parts:
            found += [(name, part, key) for key in value.keys() - known]
    return sorted(found)


def environment_names():
    """The environment variables of Prefect's settings."""

    def walk(model):
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                yield from walk(inner)
            else:
                yield f"{model.model_config.get('env_prefix', 'PREFECT_')}{name}".upper()

    return set(walk(Settings))


def test_short_names_are_those_of_the_file():
    assert tuple(entry["name"] for entry in ENTRIES) == DEPLOYMENTS


def test_file_has_only_keys_that_prefect_reads():
    assert unknown_keys(FILE) == []


@pytest.mark.parametrize(
    ("place", "misspelt"),
    [
        ([], "deployment"),
        (["deployments", 1], "parameter"),
        (["deployments", 1, "work_pool"], "work_queue"),
        (["deployments", 1, "work_pool", "job_variables"], "environment"),
        (["deployments", 1, "concurrency_limit"], "strategy"),
        (["deployments", 4, "schedules", 0], "is_active"),
    ],
)
def test_misspelt_key_is_found_at_every_level(place, misspelt):
    """A check that looks at some of the levels only would let it pass."""
    file = copy.deepcopy(FILE)
    part = file
    for step in place:
        part = part[step]
    part[misspelt] = 1
    assert {found[-1] for found in unknown_keys(file)} == {misspelt}


def test_prefect_itself_accepts_the_values():
    """Values of a wrong type are dropped with the whole deployment, with a warning at most."""
    parsed = PrefectYamlModel.model_validate(FILE)
    assert [deployment.name for deployment in parsed.deployments] == list(DEPLOYMENTS)
    for deployment in parsed.deployments:
        limit = deployment.concurrency_limit
        assert (limit.limit, limit.collision_strategy) == (1, "ENQUEUE")


def test_schedules_are_off_and_valid():
    """A schedule that is on would start a run on the machine of whoever tries the project."""
    schedules = [schedule for entry in ENTRIES for schedule in entry.get("schedules", ())]
    assert schedules
    for schedule in schedules:
        assert RawScheduleConfig.model_validate(schedule).active is False
        assert schedule["slug"], "or each deploy makes another one"


def test_what_needs_the_device_waits_in_one_queue():
    queues = {entry["name"]: entry["work_pool"]["work_queue_name"] for entry in ENTRIES}
    assert queues.pop("download-scienceqa") == "default"
    assert set(queues.values()) == {"gpu"}


def test_environment_of_runs_names_settings_of_prefect():
    """A misspelt variable of the environment does nothing, and heartbeats stay away."""
    for entry in ENTRIES:
        env = entry["work_pool"]["job_variables"]["env"]
        assert int(env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) == 30
        assert env.keys() <= environment_names(), "variables of others: say why in flows.yaml"
        assert all(isinstance(value, str) for value in env.values())


@pytest.mark.parametrize("entry", ENTRIES, ids=DEPLOYMENTS)
def test_deployment_fits_its_flow(entry):
    flow = load(entry["entrypoint"])
    assert flow.name == entry["name"], "the short name is completed by doubling it"
    schema = flow.parameters.model_dump_for_openapi()
    assert [error.message for error in validate(entry["parameters"], schema)] == []
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(flow.fn).parameters.items()
    }
    validated = flow.validate_parameters(entry["parameters"])
    assert {name: validated[name] for name in entry["parameters"]} == {
        name: defaults[name] for name in entry["parameters"]
    }


@pytest.mark.parametrize("entry", ENTRIES, ids=DEPLOYMENTS)
def test_form_explains_every_parameter(entry):
    """What the docstring's Args section lacks has no description in the web interface."""
    flow = load(entry["entrypoint"])
    assert flow.description
    properties = flow.parameters.properties
    assert [name for name in properties if not properties[name].get("description")] == []


def test_work_pool_is_the_default_one_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    default = project["tool"]["prefect"]["deployments"]["default_work_pool_name"]
    assert {entry["work_pool"]["name"] for entry in ENTRIES} == {default}


def test_flows_are_imported_without_what_computes():
    """Prefect imports a flow's file in a new process before it says that a run is cancelled.

    Would catch PyTorch there: the place of a run is held for the seconds that this takes.
    """
    names = [name.replace("-", "_") for name in DEPLOYMENTS]
    code = (
        f"import sys, {', '.join(f'pipelines.{name}' for name in names)}\n"
        "assert not sys.modules.keys() & {'torch', 'transformers', 'timm', 'ray', 'distributed'}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
