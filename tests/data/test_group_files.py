"""HDF5 with a group for each picture, as VL-T5 reads and writes it."""

import json

import h5py
import numpy as np
import pytest
from feature_files import ROLES, write_name_map
from feature_sets import D, P, make_feature_set, make_spec

from mmcot_data.errors import DataError, ShardError
from mmcot_data.interchange import (
    Claims,
    export_group_file,
    import_features,
    open_group_file,
)
from mmcot_data.interchange.boxes import patch_boxes
from mmcot_data.shards import open_features
from mmcot_data.shards.store import open_store


def vl_t5_features(path, name, shape):
    """As VL-T5 reads them (vqa_data.py)."""
    with h5py.File(path, "r") as file:
        buffer = np.zeros(shape, np.float32)
        file[f"{name}/features"].read_direct(buffer)
        img_h, img_w = file[f"{name}/img_h"][()], file[f"{name}/img_w"][()]
        boxes = file[f"{name}/boxes"][()]
    boxes[:, (0, 2)] /= img_w
    boxes[:, (1, 3)] /= img_h
    np.testing.assert_array_less(boxes, 1 + 1e-5)
    np.testing.assert_array_less(-boxes, 1e-5)
    return buffer


def test_vl_t5_reads_what_is_exported(tmp_path):
    make_feature_set(tmp_path / "set")
    ours = open_features(tmp_path / "set", roles=ROLES)
    store = open_store(tmp_path / "set")
    done = export_group_file(store, tmp_path / "fake.h5")
    assert (done.num_questions, done.num_pictures, done.num_unsized) == (6, 5, 0)
    for key in ours.question_ids:
        found = vl_t5_features(tmp_path / "fake.h5", key, (P, D))
        np.testing.assert_array_equal(found, ours[key].astype(np.float32))
    with h5py.File(tmp_path / "fake.h5") as file:
        addresses = {key: h5py.h5o.get_info(file[key].id).addr for key in file}
        assert json.loads(file.attrs["spec"]) == json.loads(json.dumps(store.spec.to_json()))
        assert (file["q0/img_w"][()], file["q0/img_h"][()]) == (64, 48)
    assert addresses["q1"] == addresses["q2"]
    assert len(set(addresses.values())) == len(addresses) - 1


def test_boxes_of_a_cropped_grid():
    """The grid covers the middle square of a wide picture; the class token sees all of it."""
    steps = [
        {"step": "resize", "rule": "shorter_side", "size": 224},
        {"step": "center_crop", "size": 224},
    ]
    spec = make_spec(num_patches=5, grid=(2, 2), preprocessing=steps)
    boxes = patch_boxes(spec, 400, 200)
    expected = [[0, 0, 400, 200], [100, 0, 200, 100], [200, 0, 300, 100]]
    expected += [[100, 100, 200, 200], [200, 100, 300, 200]]
    np.testing.assert_allclose(boxes, expected)
    queries = patch_boxes(make_spec(num_patches=5, preprocessing=steps), 400, 200)
    np.testing.assert_array_equal(queries, [[0, 0, 400, 200]] * 5)


def test_features_of_other_boxes_and_names(tmp_path):
    """A file as VL-T5's: pictures of several questions, with different numbers of boxes."""
    rng = np.random.default_rng(0)
    numbers = {"COCO_1": 3, "COCO_2": 36, "COCO_3": 1}
    features = {name: rng.normal(size=(n, 8)).astype(np.float32) for name, n in numbers.items()}
    with h5py.File(tmp_path / "obj36.h5", "w") as file:
        for name, values in features.items():
            file.create_dataset(f"{name}/features", data=values, compression="gzip")
            file[name].attrs["num_patches"] = 1
    pictures = {"q1": "COCO_2", "q2": "COCO_1", "q3": "COCO_2"}
    question_map = write_name_map(tmp_path / "map.json", pictures)
    file = open_group_file(tmp_path / "obj36.h5", question_map)
    summary = import_features(file, tmp_path / "out", Claims(encoder="frcnn"))
    assert (summary.num_rows, summary.num_unused) == (3, 1)
    stored = open_features(summary.folder)
    rows, mask = stored.gather(list(pictures))
    for row, valid, name in zip(rows, mask, pictures.values(), strict=True):
        assert row[: numbers[name]].tobytes() == features[name].tobytes()
        assert not row[numbers[name] :].any()
        assert valid.sum() == numbers[name]
        assert valid[: numbers[name]].all()


def group_with(file, **members):
    for name, member in members.items():
        file[f"picture/{name}"] = member


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: file.attrs.update(empty=1), "has no groups"),
        (lambda file: group_with(file, boxes=np.ones(3)), "/picture/features is not a dataset"),
        (lambda file: group_with(file, features=np.ones((2, 3))), "float64, expected float16"),
        (lambda file: group_with(file, features=np.ones(3, "f4")), "shape"),
        (lambda file: group_with(file, features=h5py.SoftLink("/other")), "no links to other"),
        (
            lambda file: group_with(file, features=h5py.ExternalLink("other.h5", "/features")),
            "no links to other files",
        ),
        (
            lambda file: file.create_group("p").create_virtual_dataset(
                "features", h5py.VirtualLayout((2, 3), "f4")
            ),
            "is not a dataset in the file itself",
        ),
        (
            lambda file: file.create_dataset(
                "p/features", (2, 3), "f4", external=[("/etc/hostname", 0, 24)]
            ),
            "is not a dataset in the file itself",
        ),
    ],
)
def test_other_hdf5_files_are_refused(tmp_path, write, message):
    """Catches a virtual dataset whose source is absent, which reads as zeros."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write(file)
    with pytest.raises(ShardError, match=message):
        open_group_file(tmp_path / "x.h5")


def test_other_files_and_maps_are_refused(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"no HDF5")
    with pytest.raises(ShardError, match="can't be read as an HDF5 file"):
        open_group_file(tmp_path / "x.h5")
    make_feature_set(tmp_path / "set")
    export_group_file(open_store(tmp_path / "set"), tmp_path / "fake.h5")
    question_map = write_name_map(tmp_path / "map.json", {"a": "q0", "b": "q9", "c": 1})
    with pytest.raises(DataError, match=r"question 'b' has picture 'q9'\n.*'c' has picture 1"):
        open_group_file(tmp_path / "fake.h5", question_map)
