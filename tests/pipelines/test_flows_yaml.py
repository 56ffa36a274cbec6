"""Prefect ignores keys that it does not know without a word, so the file is checked here."""

import inspect
import tomllib
from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from pipelines._prefect_plugin import DEPLOYMENTS

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "flows.yaml").read_text())

KEYS = {
    "name",
    "description",
    "entrypoint",
    "tags",
    "concurrency_limit",
    "parameters",
    "work_pool",
}


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    """Entrypoints are relative to it."""
    monkeypatch.chdir(ROOT)


def test_short_names_are_those_of_the_file():
    assert tuple(entry["name"] for entry in FILE["deployments"]) == DEPLOYMENTS


def test_file_has_only_keys_that_prefect_reads():
    assert FILE.keys() == {"name", "prefect-version", "deployments"}
    for entry in FILE["deployments"]:
        assert entry.keys() == KEYS
        assert entry["work_pool"].keys() == {"name"}
        assert entry["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


@pytest.mark.parametrize("entry", FILE["deployments"], ids=DEPLOYMENTS)
def test_deployment_fits_its_flow(entry):
    flow = load_flow_from_entrypoint(entry["entrypoint"])
    assert flow.name == entry["name"], "the short name is completed by doubling it"
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(flow.fn).parameters.items()
    }
    validated = flow.validate_parameters(entry["parameters"])
    assert {name: validated[name] for name in entry["parameters"]} == {
        name: defaults[name] for name in entry["parameters"]
    }


@pytest.mark.parametrize("entry", FILE["deployments"], ids=DEPLOYMENTS)
def test_form_explains_every_parameter(entry):
    """What the docstring's Args section lacks has no description in the web interface."""
    flow = load_flow_from_entrypoint(entry["entrypoint"])
    assert flow.description
    properties = flow.parameters.properties
    assert [name for name in properties if not properties[name].get("description")] == []


def test_work_pool_is_the_default_one_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    default = project["tool"]["prefect"]["deployments"]["default_work_pool_name"]
    assert {entry["work_pool"]["name"] for entry in FILE["deployments"]} == {default}
