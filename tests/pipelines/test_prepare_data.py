"""The flow prepare-data, run in this process against a temporary server."""

import shlex

import pytest
from prefect.artifacts import Artifact
from prefect.utilities.schema_tools import validate

from mmcot_data.questions import read_questions
from mmcot_data.rationales import read_rationales
from mmcot_data.shards import open_features
from mmcot_model.cli.train import build_parser, config_from
from pipelines.prepare_data import prepare_data

# Prefect's synchronous client does not close its connections.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


def run(folder, **parameters):
    return prepare_data(
        dataset="sample",
        data=folder / "sample",
        out=str(folder / "shards"),
        num_questions=100,
        shard_size=50,
        return_state=True,
        **parameters,
    )


def outcomes(state):
    return {step.name: step.outcome for step in state.result()}


def page(what):
    return Artifact.get(f"prepare-sample-shards-{what}").data


def written(folder):
    files = (path for path in (folder / "shards").rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in files if "lock" not in path.name}


@pytest.fixture(scope="module")
def prepared(prefect_server, tmp_path_factory):
    """A folder in which one encoder could not be loaded, and how that run ended."""
    folder = tmp_path_factory.mktemp("prepared")
    state = run(folder, encoders=("hf:/no/such/model", "tiny"), captioner="tiny")
    return folder, state, page("summary")


@pytest.mark.slow
def test_a_failed_encoder_does_not_lose_the_others(prepared):
    """Would catch a night that ends at its first step, and a list that does not say what to do."""
    folder, state, summary = prepared
    assert state.is_failed()
    assert "1 of 6 steps are not done" in state.message
    assert "extract-features, hf:/no/such/model: " in state.message
    assert "run prepare-data again" in state.message
    assert len(open_features(folder / "shards" / "tiny")) > 20
    questions = read_questions(folder / "shards")
    path = folder / "shards" / "rationales" / "gold.parquet"
    assert len(read_rationales(path, questions)) == len(questions) == 100
    assert (folder / "shards" / "captions" / "tiny.parquet").is_file()
    assert summary.count("made now") == 5
    assert summary.count("| failed |") == 1
    assert "cannot be loaded" in summary or "hf:/no/such/model: " in summary


@pytest.mark.slow
def test_what_is_there_is_skipped_and_the_page_says_so(prepared):
    """Would catch a second run that downloads, extracts or writes anything again."""
    folder, _, _ = prepared
    before = written(folder)
    state = run(folder, encoders=("tiny",), captioner="tiny")
    assert state.is_completed(), state.message
    assert set(outcomes(state).values()) == {"was there already"}
    assert "all 5 steps are done, 5 of them were before" in state.message
    after = written(folder)
    assert {path: after[path] for path in before} == before
    assert page("summary").count("was there already") >= 5
    assert float(page("progress")) == 100


@pytest.mark.slow
def test_commands_of_the_page_are_commands(prepared, tmp_path, monkeypatch):
    """Would catch an option of mmcot-train that has another name, or a path that is not there."""
    block = prepared[2].split("```")[1].strip().splitlines()
    assert len(block) == 3
    monkeypatch.chdir(tmp_path)
    configs = []
    for line in block:
        program, *arguments = shlex.split(line)
        assert program == "mmcot-train"
        configs.append(config_from(build_parser().parse_args(arguments)))
    assert configs[1].captions == "tiny"
    assert configs[2].rationales == "gold"
    assert len({config.output for config in configs}) == 3, "a run folder is never overwritten"


@pytest.mark.slow
def test_steps_that_need_a_failed_one_are_not_tried(prefect_server, tmp_path):
    """Would catch six errors where one is the cause."""
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "mine.txt").touch()
    state = run(tmp_path, encoders=("tiny",))
    assert state.is_failed()
    assert "  sample: " in state.message
    assert state.message.count("it needs: ") == 3
    assert not (tmp_path / "shards").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "explanation"),
    [
        ({"out": "s3://bucket/shards"}, "rationales: captions and rationales are written into a"),
        ({"encoders": ("tiny", "tiny")}, "expected each only once"),
    ],
)
def test_contradictions_are_explained(prefect_server, tmp_path, parameters, explanation):
    """Would catch a URL that becomes a folder called s3:, after hours of extraction."""
    state = prepare_data(
        **({"dataset": "sample", "data": tmp_path} | parameters), return_state=True
    )
    assert state.is_failed()
    assert explanation in state.message


@pytest.mark.parametrize(
    "parameters",
    [
        {"dataset": "coco"},
        {"encoders": []},
        {"encoders": ["vgg"]},
        {"captioner": "gpt"},
        {"num_questions": 3},
        {"runner": "spark"},
        {"num_workers": 0},
        {"max_failures": "some"},
    ],
)
def test_parameters_are_checked_when_a_run_is_submitted(parameters):
    schema = prepare_data.parameters.model_dump_for_openapi()
    assert validate(parameters, schema)
