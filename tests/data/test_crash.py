"""What a writer leaves that is killed, shut out by another one, or out of space."""

import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from feature_sets import make_feature_set

from mmcot_data.errors import FolderLockedError
from mmcot_data.shards.lock import lock_folder

HERE = Path(__file__).parent


def run_python(code, *args, **options):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=HERE,
        check=False,
        timeout=120,
        **options,
    )


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
def test_every_file_is_whole_after_kill_9(tmp_path, container):
    """50 kills for both containers. Catches a write to a final path, and a wrong order of files."""
    command = [sys.executable, "crash_writer.py", tmp_path / "set", container, "25", "0"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=HERE, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("25 ")


HOLD = """
import sys, time
from pathlib import Path
from mmcot_data.shards.lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(100)
"""


def test_a_second_writer_is_told_who_writes_and_a_killed_one_holds_nothing(tmp_path):
    """Catches a lock that is a file's existence, which a killed process would leave."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "locked\n"
        with (
            pytest.raises(FolderLockedError, match=rf"written by process {holder.pid} on .* since"),
            lock_folder(tmp_path),
        ):
            pass
        holder.kill()
    with lock_folder(tmp_path):
        pass


def test_two_runs_in_one_process_exclude_each_other(tmp_path):
    with (
        lock_folder(tmp_path),
        pytest.raises(FolderLockedError, match=f"process {os.getpid()}"),
        lock_folder(tmp_path),
    ):
        pass
    with lock_folder(tmp_path):
        pass


def test_extraction_waits_for_a_folder_that_is_being_written(tmp_path):
    """Catches a worker that gives up because another one finishes, and one that waits silently."""
    from fake_encoder import FakeEncoder

    from mmcot_data.encoders.base import EncoderConfig
    from mmcot_data.extraction import ExtractionConfig, Reports, extract_feature_sets
    from mmcot_data.sample import draw_sample

    draw_sample(tmp_path / "data", num_questions=100)
    config = ExtractionConfig(
        data=tmp_path / "data", out=tmp_path / "out", encoder=EncoderConfig(name="fake")
    )
    told = []
    with ExitStack() as stack:
        stack.enter_context(lock_folder(tmp_path / "out" / "fake"))

        def end_the_other(busy):
            told.extend(busy)
            assert [path.name for path in (tmp_path / "out" / "fake").iterdir()] == [".lock"]
            stack.close()

        (summary,) = extract_feature_sets(
            [config], Reports(waiting=end_the_other), encoders=[FakeEncoder()]
        )
    assert summary.num_distinct > 0
    assert "is being written by process" in told[0]


WRITE = """
import sys
import numpy as np
from pathlib import Path
from feature_sets import make_rows, make_spec
from mmcot_data.errors import DiskFullError
from mmcot_data.files import write_parquet
from mmcot_data.shards.writer import write_shard
import polars as pl
table = pl.DataFrame({{"noise": np.random.default_rng(0).random(300_000)}})
features, digests = make_rows(200, shape=(50, 192))
spec = make_spec(num_patches=50, feature_dim=192)
folder = Path(sys.argv[1])
{limit}
for suffix in (".h5", ".arrow"):
    (folder / f"old{{suffix}}").write_bytes(b"old")
    for name in ("old", "new"):
        try:
            write_shard(folder / f"{{name}}{{suffix}}", features, digests, spec)
        except DiskFullError as error:
            print(error)
try:
    write_parquet(folder / "new.parquet", table)
except DiskFullError as error:
    print(error)
for path in sorted(folder.iterdir()):
    assert path.read_bytes() == b"old", path
    print(path.name)
"""


def assert_explained(done, reason):
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-2:] == ["old.arrow", "old.h5"]
    assert len(lines) == 7
    for line in lines[:5]:
        assert re.search(rf"(old|new)\.(h5|arrow|parquet) could not be written: {reason} \(", line)


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    """A real one: a file system of 1 MB in memory. 4 MB of features are to be written."""
    mounted = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && shift && exec "$@"'
    try:
        probe = subprocess.run(
            [*mounted, script, "sh", tmp_path, "true"], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if probe.returncode:
        pytest.skip("mounting in a user namespace is not permitted")
    code = WRITE.format(limit="")
    done = subprocess.run(
        [*mounted, script, "sh", tmp_path, sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        cwd=HERE,
        check=False,
    )
    assert_explained(done, "No space left on device")


def test_a_limit_on_file_sizes_leaves_nothing_half_written(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))"
    assert_explained(run_python(WRITE.format(limit=limit), tmp_path), "File too large")


def test_temporary_files_of_a_dead_writer_are_removed_by_the_next(tmp_path):
    from mmcot_data.shards.folder import write_folder
    from mmcot_data.shards.manifest import read_manifest

    make_feature_set(tmp_path)
    manifest = read_manifest(tmp_path)
    (tmp_path / ".00000-of-00002.h5.1.tmp").write_bytes(b"half")
    with write_folder(tmp_path, manifest.spec, manifest.plan):
        assert not list(tmp_path.glob(".*.tmp"))
    assert time.time() - (tmp_path / ".lock").stat().st_mtime < 60
