"""Fork writers of one feature set and kill them: run by test_crash.py in a process of its own.

A fork costs milliseconds where a new interpreter costs a second, so that many kills are affordable.
This process must not start threads before it forks: it computes nothing itself.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from feature_sets import make_rows, make_spec

from mmcot_data.errors import ShardError
from mmcot_data.files import file_sha256
from mmcot_data.shards.containers import SUFFIXES
from mmcot_data.shards.folder import finish_folder, read_complete, write_folder
from mmcot_data.shards.manifest import ShardCommit, read_commit, read_manifest, write_commit
from mmcot_data.shards.schema import PlanKey
from mmcot_data.shards.writer import write_shard

SHAPE = (40, 64)
NUM_SHARDS, ROWS = 3, 200


def write_all(folder: Path, container: str) -> None:
    """Continue the feature set where the last writer was killed."""
    import polars as pl

    from mmcot_data.shards.index import INDEX_SCHEMA

    spec = make_spec(num_patches=SHAPE[0], feature_dim=SHAPE[1])
    plan = PlanKey(
        format=container,
        num_images=NUM_SHARDS * ROWS,
        request_sha256="",
        shard_size=ROWS,
    )
    commits = []
    with write_folder(folder, spec, plan):
        for number in range(NUM_SHARDS):
            file = f"{number:05d}-of-{NUM_SHARDS:05d}{SUFFIXES[container]}"
            commit = read_complete(folder, file, spec, plan)
            if commit is None:
                features, digests = make_rows(ROWS, seed=number, shape=SHAPE)
                record = write_shard(folder / file, features, digests, spec)
                commit = ShardCommit(
                    spec=spec,
                    plan=plan,
                    shard=record,
                    image_sha256=tuple(digest.tobytes().hex() for digest in digests),
                    pixel_sha256=("",) * ROWS,
                    failed=(),
                    made_by={},
                )
                write_commit(folder, commit)
            commits.append(commit)
        index = pl.DataFrame({"question_id": ["q"]}, schema={"question_id": pl.String})
        index = index.select(
            pl.lit(None, dtype).alias(name) if name != "question_id" else name
            for name, dtype in INDEX_SCHEMA.items()
        )
        finish_folder(folder, spec=spec, plan=plan, request_sha256="", commits=commits, index=index)


def check_complete(folder: Path) -> int:
    """Every file at a final path is whole; returns the number of shards with commit record."""
    records = sorted(folder.glob("*-of-*.json"))
    for path in records:
        shard = read_commit(path).shard
        assert file_sha256(folder / shard.file) == shard.sha256, path
    for path in folder.glob("[0-9]*-of-*"):
        if path.suffix != ".json":
            expected, _ = make_rows(ROWS, seed=int(path.name[:5]), shape=SHAPE)
            data = path.read_bytes()
            assert expected.tobytes() in data, path
    if (folder / "manifest.json").exists():
        manifest = read_manifest(folder)
        assert len(manifest.shards) == len(records) == NUM_SHARDS
        assert file_sha256(folder / "index.parquet") == manifest.index_sha256
    return len(records)


def main() -> None:
    """Kill ``num_kills`` writers at random moments, checking after each."""
    folder, container, num_kills = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    random = np.random.default_rng(int(sys.argv[4]))
    killed = finished = 0
    while killed < num_kills:
        child = os.fork()
        if child == 0:
            write_all(folder, container)
            os._exit(0)
        time.sleep(random.uniform(0, 0.12))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
        if folder.exists():
            try:
                check_complete(folder)
            except ShardError as error:
                raise AssertionError(f"after {killed} kills: {error}") from error
        if (folder / "manifest.json").exists():
            finished += 1
            folder = folder.with_name(f"{folder.name}-again")
    child = os.fork()
    if child == 0:
        write_all(folder, container)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert check_complete(folder) == NUM_SHARDS
    assert not list(folder.glob(".*.tmp"))
    sys.stdout.write(f"{killed} killed, {finished} finished before\n")


if __name__ == "__main__":
    main()
