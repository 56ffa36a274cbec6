"""Shards made one by one, by processes that know nothing but their task."""

import pickle
import threading
from dataclasses import replace

import pytest
from fake_encoder import FakeEncoder, make_data

from mmcot_data.encoders import load_encoder
from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.errors import SpecMismatchError
from mmcot_data.extraction import (
    ExtractionConfig,
    begin_extraction,
    extract_shard,
    load_planned_encoder,
    making,
    open_pictures,
    prepare_extraction,
    scan_source,
    wait_for_others,
)
from mmcot_data.shards.folder_content import read_folder
from mmcot_data.shards.lock import claim_shard


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "data").mkdir()
    data = make_data(tmp_path / "data", num_questions=12)
    config = ExtractionConfig(
        data=data, out=tmp_path / "out", encoder=EncoderConfig(name="fake"), shard_size=4
    )
    return prepare_extraction(config, FakeEncoder(), scan_source(open_pictures(config)))[0]


def test_a_task_is_small_and_does_not_grow_with_the_data_set(tmp_path):
    """Catches a plan that travels to every worker with each of its shards."""
    (tmp_path / "data").mkdir()
    data = make_data(tmp_path / "data", num_questions=360)
    config = ExtractionConfig(
        data=data, out=tmp_path / "out", encoder=EncoderConfig(name="fake"), shard_size=64
    )
    plan, _ = prepare_extraction(config, FakeEncoder(), scan_source(open_pictures(config)))
    assert plan.num_images > 5 * 64
    sizes = [len(pickle.dumps(plan.shard_task(number))) for number in range(5)]
    assert max(sizes) < 300 * 64 + 10_000
    assert pickle.loads(pickle.dumps(plan.shard_task(3))) == plan.shard_task(3)


def test_a_shard_that_another_process_makes_is_left_to_it(plan):
    """Catches two workers that follow each other through the same shards."""
    task = plan.shard_task(1)
    with begin_extraction(plan, FakeEncoder()):
        claim = claim_shard(plan.folder, task.shard.file)
        assert extract_shard(task, FakeEncoder(), wait=False) is None
        claim.release()
        assert extract_shard(task, FakeEncoder(), wait=False).shard.rows == 4


def test_waiting_ends_when_the_others_are_done(plan):
    """Catches a run that ends, or waits for ever, while another makes its last shard."""
    seen = []
    with begin_extraction(plan, FakeEncoder()) as pending:
        claim = claim_shard(plan.folder, plan.shards[2].file)
        for number in (0, 1):
            extract_shard(plan.shard_task(number), FakeEncoder())

        def finish():
            claim.release()
            extract_shard(plan.shard_task(2), FakeEncoder())

        timer = threading.Timer(0.3, finish)

        def on_waiting(lines):
            if not seen:
                timer.start()
            seen.append(lines)

        left = wait_for_others(plan, pending, on_waiting)
        timer.join()
    assert left in ([], [2]), "made meanwhile, or given up at the moment of looking"
    assert seen[0] == [f"{plan.folder}/{plan.shards[2].file}: {seen[0][0].partition(': ')[2]}"]
    assert "process" in seen[0][0]


def test_a_shard_that_was_given_up_is_returned(plan):
    """Catches a run that takes the shard of a killed process for made."""
    with begin_extraction(plan, FakeEncoder()):
        extract_shard(plan.shard_task(0), FakeEncoder())
        assert wait_for_others(plan, [0, 1, 2]) == [1, 2]
        for number in (1, 2):
            extract_shard(plan.shard_task(number), FakeEncoder())
        assert wait_for_others(plan, [0, 1, 2]) == []


def test_a_record_stays_whose_shard_came_during_the_listing(plan, monkeypatch):
    """Catches a second process that deletes what the first one has just made."""
    with begin_extraction(plan, FakeEncoder()):
        extract_shard(plan.shard_task(1), FakeEncoder())

        def list_early(place):
            content = read_folder(place)
            files = {n: file for n, file in content.files.items() if n != plan.shards[1].file}
            return replace(content, files=files)

        monkeypatch.setattr(making, "read_folder", list_early)
        with begin_extraction(plan, FakeEncoder()) as pending:
            assert pending == [0, 1, 2]
            assert wait_for_others(plan, [1]) == []


def test_a_worker_with_another_encoder_is_refused(tmp_path):
    """Catches shards of one set made by two versions of a library or two models."""
    (tmp_path / "data").mkdir()
    config = ExtractionConfig(
        data=make_data(tmp_path / "data", num_questions=10),
        out=tmp_path / "out",
        encoder=EncoderConfig(name="tiny", precision="auto"),
    )
    encoder = load_encoder(config.encoder)
    plan, settled = prepare_extraction(config, encoder, scan_source(open_pictures(config)))
    task = pickle.loads(pickle.dumps(plan.shard_task(0)))
    assert load_planned_encoder(task).describe() == settled.describe()
    versions = dict(plan.spec.versions) | {"torch": "1.0"}
    with pytest.raises(SpecMismatchError, match=r"torch.*1\.0"):
        load_planned_encoder(replace(task, spec=replace(plan.spec, versions=versions)))
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        load_planned_encoder(replace(task, spec=replace(plan.spec, weights_sha256="ab" * 32)))
