"""Runs that end in the middle, with a real server and worker; benchmarks/kills.py prints them."""

from pathlib import Path

import pytest
import yaml

from benchmarks.kills import KILLED, overnight

PIPELINES = Path(__file__).parents[2] / "pipelines"
STATES = {
    "run": "Crashed",
    "worker": "Crashed",
    "worker and run": "Crashed",  # by the automation of pipelines/silent_runs.yaml
    "server": "Completed",
    "cancel": "Cancelled",
}


def test_prefect_understands_when_a_run_is_silent():
    """Would catch a key that Prefect ignores, and a run that is Crashed for one lost heartbeat."""
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    written = yaml.safe_load((PIPELINES / "silent_runs.yaml").read_text())
    automation = AutomationCore.model_validate(written)
    read = automation.model_dump(mode="json", exclude_unset=True)
    assert read["trigger"].keys() == written["trigger"].keys()
    [action] = automation.actions
    assert isinstance(action, ChangeFlowRunState)
    assert action.state.value == "CRASHED"
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger)
    assert trigger.posture == Posture.Proactive
    assert trigger.within.total_seconds() == 90
    for deployment in yaml.safe_load((PIPELINES.parent / "flows.yaml").read_text())["deployments"]:
        seconds = deployment["work_pool"]["job_variables"]["env"][
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
        ]
        assert 3 * int(seconds) <= trigger.within.total_seconds(), deployment["name"]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with overnight(tmp_path_factory.mktemp("overnight")) as session:
        yield session


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("killed", KILLED)
def test_the_next_run_ends_with_the_shards_of_an_undisturbed_one(session, killed):
    """Would catch shards lost, made twice or half, and a place that nobody has and nobody frees."""
    outcome = session.end_in_the_middle(killed)
    assert outcome.ended == STATES[killed]
    assert outcome.next_ended == "Completed"
    assert outcome.num_there + outcome.num_made == outcome.num_shards
    assert outcome.is_equal
    if killed == "server":
        assert outcome.num_made == 0, "the run went on without its server"
    else:
        assert 0 < outcome.num_there < outcome.num_shards
        assert outcome.freed_after < 120
    if killed == "cancel":
        assert outcome.stopped_after < 30, "it was killed in the end"
        assert outcome.half_files == ()
