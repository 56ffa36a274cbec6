"""Small feature sets made without an encoder."""

import numpy as np
import polars as pl

from mmcot_data.shards import FeatureSpec
from mmcot_data.shards.containers import SUFFIXES
from mmcot_data.shards.folder import finish_folder
from mmcot_data.shards.index import INDEX_SCHEMA
from mmcot_data.shards.manifest import ShardCommit, write_commit
from mmcot_data.shards.schema import PlanKey
from mmcot_data.shards.writer import write_shard

P, D = 5, 7


def make_spec(dtype="float16", num_patches=P, feature_dim=D, **changes) -> FeatureSpec:
    fields = {
        "encoder": "fake",
        "model_id": "org/fake",
        "revision": None,
        "weights_sha256": "ab" * 32,
        "random_weights": None,
        "layer": "last",
        "preprocessing": [{"step": "resize", "size": 224}, {"step": "normalize", "mean": [0.5]}],
        "precision": "fp32",
        "precision_error": None,
        "backend": "torch",
        "num_patches": num_patches,
        "feature_dim": feature_dim,
        "grid": None,
        "versions": {"torch": "2.15.0"},
        "dtype": dtype,
        "data_licence": "CC0-1.0",
    }
    return FeatureSpec(**fields | changes)


def make_rows(num_rows, dtype="float16", seed=0, shape=(P, D)):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_rows, *shape)).astype(dtype)
    digests = rng.integers(0, 256, size=(num_rows, 32), dtype=np.uint8)
    return features, digests


def write_set(folder, spec, shards, index, container="hdf5", num_patches=None):
    """A finished feature set.

    ``shards``: (features, digests) of each; ``index``: (question id, role, global row or None).
    """
    plan = PlanKey(
        format=container,
        num_images=sum(len(features) for features, _ in shards),
        request_sha256="",
        shard_size=len(shards[0][0]),
    )
    commits, places = [], []
    for number, (features, digests) in enumerate(shards):
        path = folder / f"{number:05d}-of-{len(shards):05d}{SUFFIXES[container]}"
        patches = None if num_patches is None else num_patches[number]
        record = write_shard(path, features, digests, spec, num_patches_N=patches)
        commit = ShardCommit(
            spec=spec,
            plan=plan,
            shard=record,
            image_sha256=tuple(digest.tobytes().hex() for digest in digests),
            pixel_sha256=("",) * record.rows,
            failed=(),
            made_by={},
        )
        write_commit(folder, commit)
        commits.append(commit)
        for row, digest in enumerate(digests):
            valid = spec.num_patches if patches is None else int(patches[row])
            places.append((record.file, row, valid, digest.tobytes().hex()))
    rows = [
        {
            "question_id": question_id,
            "role": role,
            "shard": None if row is None else places[row][0],
            "row": None if row is None else places[row][1],
            "num_patches": None if row is None else places[row][2],
            "image_sha256": None if row is None else places[row][3],
            "width": 64,
            "height": 48,
            "status": "missing" if row is None else "ok",
            "file": f"images/{question_id}/{role}.png",
        }
        for question_id, role, row in index
    ]
    return finish_folder(
        folder,
        spec=spec,
        plan=plan,
        request_sha256="",
        commits=commits,
        index=pl.DataFrame(rows, schema=INDEX_SCHEMA),
    )


def make_feature_set(folder, container="hdf5", dtype="float16", seed=0, **changes):
    """Six rows in two shards: q0..q3 have a question image, q4 a choice image only, q5 both."""
    features, digests = make_rows(6, dtype, seed)
    patches = np.full(6, P, np.int32)
    patches[3] = P - 2
    index = [
        ("q0", "question", 0),
        ("q1", "question", 1),
        ("q2", "question", 1),
        ("q3", "question", 3),
        ("q4", "choice_0", 4),
        ("q5", "choice_0", 2),
        ("q5", "question", 5),
        ("q6", "question", None),
    ]
    shards = [(features[:4], digests[:4]), (features[4:], digests[4:])]
    spec = make_spec(dtype, **changes)
    write_set(folder, spec, shards, index, container, [patches[:4], patches[4:]])
    return features
