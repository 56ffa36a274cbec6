"""Whatever byte changes, it is found: by the reader before it gives a row, and by verification."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from feature_sets import D, P, make_rows, make_spec, write_set
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcot_data.errors import ShardError, SpecMismatchError
from mmcot_data.shards import open_features
from mmcot_data.shards.location import LocalFolder
from mmcot_data.shards.manifest import parse_manifest, read_manifest
from mmcot_data.shards.mapped import MappedRows
from mmcot_data.shards.verification import verify_features

ROW_NBYTES = P * D * 2
QUESTIONS = {0: ("a", "b"), 1: ("c",), 2: ("d",), 3: ("e",), 4: ("f", "g"), 5: ("h",)}
"""The questions of each row, of two shards of three rows; h has a choice image only."""


def make_even_set(folder, container, seed=0, **changes):
    features, digests = make_rows(6, seed=seed)
    index = [
        (question_id, "choice_0" if question_id == "h" else "question", row)
        for row, question_ids in QUESTIONS.items()
        for question_id in question_ids
    ]
    patches = np.array([5, 5, 4, 5, 3, 5], np.int32)
    shards = [(features[:3], digests[:3]), (features[3:], digests[3:])]
    write_set(folder, make_spec(**changes), shards, index, container, [patches[:3], patches[3:]])
    return features


def gather_all(folder):
    """All rows of all questions, as bytes."""
    features = open_features(folder, roles="all", combine="all")
    ids = sorted(features.question_ids)
    found, mask = features.gather(ids)
    return ids, found.tobytes(), mask.tobytes()


@dataclass(frozen=True)
class Original:
    """A feature set in which one file at a time is damaged and then made whole again."""

    folder: Path
    content: dict[str, bytes]
    gathered: tuple

    def check(self, name, damaged):
        """Write other bytes into a file; both verification and the reader must see it."""
        (self.folder / name).write_bytes(damaged)
        try:
            report = verify_features(self.folder)
            assert name in {problem.file for problem in report.problems}
            if name.endswith((".h5.json", ".arrow.json")):
                assert gather_all(self.folder) == self.gathered
            else:
                with pytest.raises(ShardError):
                    gather_all(self.folder)
            return report
        finally:
            (self.folder / name).write_bytes(self.content[name])


@pytest.fixture(scope="module", params=["hdf5", "arrow"])
def original(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_even_set(folder, request.param)
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(content) == 6
    assert verify_features(folder).problems == ()
    return Original(folder, content, gather_all(folder))


def flips(original):
    def flip(name):
        content = original.content[name]
        masks = st.integers(1, 255)
        return st.tuples(st.just(name), st.integers(0, len(content) - 1), masks)

    return st.sampled_from(sorted(original.content)).flatmap(flip)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_flipped_byte_of_any_file_is_found(original, data):
    name, position, mask = data.draw(flips(original))
    damaged = bytearray(original.content[name])
    damaged[position] ^= mask
    original.check(name, damaged)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_flip_in_the_features_is_told_by_row_and_question(original, data):
    """Catches rows that are counted from another place, and questions of other rows."""
    number = data.draw(st.integers(0, 1))
    record = read_manifest(original.folder).shards[number]
    offset = data.draw(st.integers(0, record.data_nbytes - 1))
    damaged = bytearray(original.content[record.file])
    damaged[record.data_offset + offset] ^= data.draw(st.integers(1, 255))
    (problem,) = original.check(record.file, damaged).problems
    row = offset // ROW_NBYTES
    assert problem.rows == (row,)
    assert problem.question_ids == QUESTIONS[3 * number + row]
    assert "1 of 3 rows differ from their checksums" in problem.message


def test_every_byte_of_a_shard_matters(original):
    """No byte is left out: not the padding, not the names of columns, not the last one."""
    manifest = read_manifest(original.folder)
    record = manifest.shards[0]
    location, rows = LocalFolder(original.folder, original.folder), np.arange(record.rows)
    masks = np.random.default_rng(0).integers(1, 256, record.file_nbytes).tolist()
    content = original.content[record.file]
    with (original.folder / record.file).open("r+b") as file:
        for position, mask in enumerate(masks):
            byte = content[position]
            os.pwrite(file.fileno(), bytes([byte ^ mask]), position)
            with pytest.raises(ShardError):
                MappedRows(location, [record], manifest.spec).prepare(rows)
            os.pwrite(file.fileno(), bytes([byte]), position)
    assert gather_all(original.folder) == original.gathered


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_file_of_another_length_is_found(original, data):
    name = data.draw(st.sampled_from(sorted(original.content)))
    content = original.content[name]
    length = data.draw(st.integers(0, len(content) - 1) | st.integers(1, 9).map(lambda n: -n))
    damaged = content[:length] if length >= 0 else content + b"\0" * -length
    original.check(name, damaged)


def test_every_byte_of_the_manifest_matters(original):
    """Catches a checksum that can be changed without harm, in its own digits too."""
    content = original.content["manifest.json"]
    masks = np.random.default_rng(0).integers(1, 256, len(content)).tolist()
    for position, mask in enumerate(masks):
        damaged = bytearray(content)
        damaged[position] ^= mask
        with pytest.raises(ShardError):
            parse_manifest(bytes(damaged), "manifest.json")


@pytest.fixture(params=["hdf5", "arrow"])
def make_set(request, tmp_path):
    """Makes feature sets that differ from the same original."""

    def make(name, **changes):
        make_even_set(tmp_path / name, request.param, **changes)
        return tmp_path / name

    return make


def shard_names(folder):
    return [record.file for record in read_manifest(folder).shards]


def problems_of(folder):
    return {problem.file: problem for problem in verify_features(folder).problems}


def test_two_swapped_shards_of_one_set_are_found(make_set):
    """Catches a check of each file by itself: both are whole."""
    folder = make_set("a")
    first, second = (folder / name for name in shard_names(folder))
    contents = second.read_bytes(), first.read_bytes()
    assert len(contents[0]) == len(contents[1])
    first.write_bytes(contents[0])
    second.write_bytes(contents[1])
    problems = problems_of(folder)
    assert problems.keys() == {first.name, second.name}
    assert f"it is the shard {second.name} under this name" in problems[first.name].message
    assert problems[first.name].rows == (0, 1, 2)
    assert problems[first.name].question_ids == ("a", "b", "c", "d")
    assert problems[second.name].question_ids == ("e", "f", "g", "h")
    with pytest.raises(ShardError, match=f"{first.name} is damaged, or a shard of another"):
        open_features(folder)["a"]


def test_swapped_commit_records_go_with_the_manifest(make_set):
    """Swapped with their shards, only the manifest tells."""
    folder = make_set("a")
    first, second = shard_names(folder)
    for suffix in ("", ".json"):
        left, right = folder / (first + suffix), folder / (second + suffix)
        contents = right.read_bytes(), left.read_bytes()
        left.write_bytes(contents[0])
        right.write_bytes(contents[1])
    assert problems_of(folder).keys() == {first, second, f"{first}.json", f"{second}.json"}


def test_a_shard_of_other_pictures_is_found(make_set):
    folder, other = make_set("a"), make_set("b", seed=1)
    name = shard_names(folder)[1]
    (folder / name).write_bytes((other / name).read_bytes())
    (problem,) = verify_features(folder).problems
    assert problem.file == name
    assert "its header is not the one that manifest.json describes" in problem.message
    with pytest.raises(ShardError, match="its header is not the one"):
        gather_all(folder)


SAME_LENGTH = {
    "encoder": "kafe",
    "weights_sha256": "cd" * 32,
    "preprocessing": [{"step": "resize", "size": 384}, {"step": "normalize", "mean": [0.5]}],
}


def test_a_shard_of_another_encoder_says_what_differs(make_set):
    folder, other = make_set("a"), make_set("b", **SAME_LENGTH)
    name = shard_names(folder)[0]
    assert (folder / name).stat().st_size == (other / name).stat().st_size
    (folder / name).write_bytes((other / name).read_bytes())
    with pytest.raises(SpecMismatchError) as refused:
        gather_all(folder)
    (problem,) = verify_features(folder).problems
    for message in (str(refused.value), problem.message):
        assert [line.strip() for line in message.splitlines()[1:]] == [
            "encoder: expected 'fake', found 'kafe'",
            f"weights_sha256: expected '{'ab' * 32}', found '{'cd' * 32}'",
            "preprocessing.0.size: expected 224, found 384",
        ]


def test_a_shard_of_another_revision_says_so_whatever_its_size(make_set):
    """A spec of another length moves the bytes; the file's size alone explains nothing."""
    folder = make_set("a")
    other = make_set("b", revision="v2" * 500, model_id="org/longer" * 500)
    name = shard_names(folder)[0]
    assert (folder / name).stat().st_size != (other / name).stat().st_size
    (folder / name).write_bytes((other / name).read_bytes())
    with pytest.raises(ShardError, match="bytes, manifest"):
        gather_all(folder)
    (problem,) = verify_features(folder).problems
    assert f"revision: expected None, found '{'v2' * 500}'" in problem.message
    assert problem.question_ids == ("a", "b", "c", "d")


@pytest.mark.parametrize("name", ["manifest.json", "index.parquet"])
def test_a_file_of_another_set_is_found(make_set, name):
    folder, other = make_set("a"), make_set("b", seed=1)
    (folder / name).write_bytes((other / name).read_bytes())
    assert verify_features(folder).problems
    with pytest.raises(ShardError):
        gather_all(folder)


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
@pytest.mark.parametrize("rows", [(0, 1), (0, 2), (1, 2)])
def test_two_swapped_rows_of_a_shard_are_found(tmp_path, container, rows):
    """The digest of the features would be another, a sum of them would not."""
    make_even_set(tmp_path, container)
    record = read_manifest(tmp_path).shards[1]
    content = bytearray((tmp_path / record.file).read_bytes())
    left, right = (
        slice(start := record.data_offset + row * ROW_NBYTES, start + ROW_NBYTES) for row in rows
    )
    content[left], content[right] = content[right], content[left]
    (tmp_path / record.file).write_bytes(content)
    (problem,) = verify_features(tmp_path).problems
    assert (problem.file, problem.rows) == (record.file, rows)
    assert problem.question_ids == tuple(q for row in rows for q in QUESTIONS[3 + row])
    with pytest.raises(ShardError, match=f"the checksum of row {rows[0]} is wrong"):
        gather_all(tmp_path)


def test_features_made_in_another_way_are_refused(tmp_path):
    make_even_set(tmp_path, "hdf5", revision="1b3e7c2")
    steps = [{"step": "resize", "size": 384}, *make_spec().preprocessing[1:]]
    expect = {"encoder": "detr", "revision": "main", "preprocessing": steps}
    with pytest.raises(SpecMismatchError) as refused:
        open_features(tmp_path, expect=expect)
    assert [line.strip() for line in str(refused.value).splitlines()[1:]] == [
        "encoder: expected 'detr', found 'fake'",
        "revision: expected 'main', found '1b3e7c2'",
        "preprocessing.0.size: expected 384, found 224",
    ]
    with pytest.raises(SpecMismatchError, match="revision: expected None, found '1b3e7c2'"):
        open_features(tmp_path, expect=make_spec())
    with pytest.raises(ShardError, match="no field colour"):
        open_features(tmp_path, expect={"colour": "red"})
    assert open_features(tmp_path, expect=make_spec(revision="1b3e7c2"))["a"].shape == (P, D)
    assert open_features(tmp_path, expect={"encoder": "fake"})["a"].shape == (P, D)
