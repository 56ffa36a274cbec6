"""``mmcot-data extract``, killed with -9 at random moments: nothing is lost, doubled or moved."""

import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from mmcot_data.files import file_sha256
from mmcot_data.sample import draw_sample
from mmcot_data.shards import open_features

NUM_KILLS = 20


def command(data, out, batch_size):
    options = f"--encoder tiny --shard-size 24 --batch-size {batch_size} --dtype float32"
    run = "import sys; from mmcot_data.cli import main; sys.exit(main())"
    arguments = ["extract", str(data), "--out", str(out), *options.split()]
    return [sys.executable, "-c", run, *arguments]


def extract(data, out, batch_size):
    subprocess.run(command(data, out, batch_size), check=True, capture_output=True)


def extract_and_kill(data, out, draw, batch_sizes):
    """The same command again and again, each time killed after some shards at the latest."""
    for _ in range(NUM_KILLS):
        before = len(list(out.glob("tiny/*-of-*.json")))
        process = subprocess.Popen(
            command(data, out, draw.choice(batch_sizes)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None:
            claimed = any(out.glob("tiny/.0*.claim"))
            if claimed and len(list(out.glob("tiny/*-of-*.json"))) > before:
                break
            if claimed and draw.random() < 0.02:
                break
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.wait()
    extract(data, out, draw.choice(batch_sizes))


def digests(folder):
    return {path.name: file_sha256(path) for path in folder.glob("*.h5")}


@pytest.mark.slow
def test_a_command_killed_twenty_times_ends_with_the_same_features(tmp_path):
    """Catches rows lost, doubled or moved, and shards that depend on what was interrupted."""
    seed = int(os.environ.get("MMCOT_SEED", random.randrange(10**6)))
    draw = random.Random(seed)
    data = tmp_path / "data"
    draw_sample(data, num_questions=800, num_workers=2)
    extract(data, tmp_path / "quiet", 8)
    expected = digests(tmp_path / "quiet/tiny")
    extract_and_kill(data, tmp_path / "killed", draw, [8])
    assert digests(tmp_path / "killed/tiny") == expected, f"seed {seed}"

    extract_and_kill(data, tmp_path / "changing", draw, [1, 2, 3, 5, 8, 16])
    quiet = open_features(tmp_path / "quiet/tiny", roles="all", combine="all")
    found = open_features(tmp_path / "changing/tiny", roles="all", combine="all")
    assert found.question_ids == quiet.question_ids
    ids = quiet.question_ids
    (features, mask), (expected_features, expected_mask) = found.gather(ids), quiet.gather(ids)
    np.testing.assert_array_equal(mask, expected_mask)
    difference = np.abs(features - expected_features).max() / np.abs(expected_features).max()
    print(
        f"seed {seed}: {len(expected)} shards, {2 * NUM_KILLS} kills; largest difference with "
        f"changing batch sizes {difference:.1e} of the largest feature"
    )
    assert difference < 1e-5
    assert open_features(tmp_path / "changing/tiny").spec == quiet.spec
