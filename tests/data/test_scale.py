"""Ids by the hundred thousand and shards by the ten thousand: small sets made to be large ones."""

import ctypes
import errno
import itertools
import multiprocessing
import os
import pickle
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from feature_sets import P, make_feature_set, make_rows, make_spec, write_set
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcot_data.errors import ShardError
from mmcot_data.shards import open_features, question_ids
from mmcot_data.shards.planning import default_shard_size, shard_files
from mmcot_data.shards.question_ids import QuestionIds, index_ids
from mmcot_data.shards.schema import PlanKey

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@pytest.fixture(params=["dict", "packed"])
def kind(request, monkeypatch):
    """Both ways to keep ids; the packed one in parts of three ids."""
    if request.param == "packed":
        monkeypatch.setattr(question_ids, "_MAX_IN_DICT", 0)
        monkeypatch.setattr(question_ids, "_PART", 3)
    return request.param


def make_ids(names, kind) -> QuestionIds:
    made = index_ids(pl.Series(names, dtype=pl.String))
    is_packed = kind == "packed" and len(names) > 0
    assert type(made).__name__ == ("_ManyIds" if is_packed else "_FewIds")
    return made


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(TEXTS, unique=True, max_size=12),
    others=st.lists(TEXTS | st.just("\ud800"), max_size=6),
    num_hashes=st.sampled_from([None, 1, 2, 5]),
    data=st.data(),
)
@pytest.mark.parametrize("kind", ["dict", "packed"])
def test_ids_are_what_a_list_and_a_dict_of_them_are(kind, names, others, num_hashes, data):
    """Catches an id taken for another one with the same hash, text that is cut within a letter,
    NULs and empty ids that vanish, and an absent id that is found after the last hash."""
    with pytest.MonkeyPatch.context() as patch:
        if kind == "packed":
            patch.setattr(question_ids, "_MAX_IN_DICT", 0)
            patch.setattr(question_ids, "_PART", 3)
        if num_hashes is not None:
            patch.setattr(question_ids, "_hash", lambda text: hash(text) % num_hashes)
        ids = make_ids(names, kind)
        known = {name: position for position, name in enumerate(names)}
        wanted = data.draw(st.permutations(names + others)) + names
        assert ids.find(wanted).tolist() == [known.get(name, len(names)) for name in wanted]
        assert [ids.position(name) for name in wanted] == [known.get(name) for name in wanted]
        assert [name in ids for name in wanted] == [name in known for name in wanted]
        assert (len(ids), list(ids), list(reversed(ids))) == (len(names), names, names[::-1])
        assert ids == names
        assert names == ids
        assert ids != [*names, "x"]
        assert ids != [*names[:-1], 7]
        for item in (slice(1, None, 2), slice(None, None, -1), slice(-3, 100)):
            assert ids[item] == names[item]
        for item in range(-len(names), len(names)):
            assert ids[item] == names[item]
        with pytest.raises(IndexError):
            ids[len(names)]
        clone = pickle.loads(pickle.dumps(ids))
        assert type(clone) is type(ids)
        assert clone.find(wanted).tolist() == ids.find(wanted).tolist()


def test_what_is_no_id_is_refused(kind):
    """Catches a number that is looked for as text, or a text as a list of its letters."""
    ids = make_ids(["4", "2", "42"], kind)
    for wrong in ("42", [42], ["4", None], ["nobody", 7]):
        with pytest.raises(TypeError, match="expected a list of strings"):
            ids.find(wrong)
    assert ids.find(()).tolist() == []
    assert 42 not in ids
    assert None not in ids
    assert ids.find(["42", "42"]).tolist() == [2, 2]
    assert "3 question ids: '4', '2', '42'" in repr(ids)


def test_ids_equal_ids_only(kind):
    ids = make_ids(["a", "b"], kind)
    assert ids == make_ids(["a", "b"], kind)
    assert ids != make_ids(["b", "a"], kind)
    assert ids != "ab"
    assert ids != {"a", "b"}
    with pytest.raises(TypeError, match="unhashable"):
        hash(ids)


def test_a_set_with_packed_ids_reads_as_one_with_a_dict(tmp_path, monkeypatch):
    """Catches positions that are right for one way to keep ids only, for all roles."""
    make_feature_set(tmp_path)
    wanted = ["q5", "nobody", "q4", "q0", "q5"]
    ways = ({}, {"roles": "all"}, {"roles": "all", "combine": "all"}, {"roles": ("choice_0",)})
    expected = [open_features(tmp_path, **way) for way in ways]
    monkeypatch.setattr(question_ids, "_MAX_IN_DICT", 0)
    for few, way in zip(expected, ways, strict=True):
        many = open_features(tmp_path, **way)
        assert type(many.question_ids) is not type(few.question_ids)
        assert many.question_ids == few.question_ids
        for found, known in zip(many.gather(wanted), few.gather(wanted), strict=True):
            np.testing.assert_array_equal(found, known)
        assert many["q5"].tobytes() == few["q5"].tobytes()
        with pytest.raises(KeyError, match="nobody"):
            many["nobody"]
        clone = pickle.loads(pickle.dumps(many))
        np.testing.assert_array_equal(clone.gather(wanted)[0], few.gather(wanted)[0])


def _gather(features, wanted, queue):
    queue.put(features.gather(wanted)[0].tobytes())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_packed_ids_are_found_after_a_fork(tmp_path, monkeypatch):
    """Catches threads of a library that a fork leaves behind."""
    rows = make_feature_set(tmp_path)
    monkeypatch.setattr(question_ids, "_MAX_IN_DICT", 0)
    features = open_features(tmp_path)
    features.gather(["q0"])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_gather, args=(features, ["q3", "x", "q0"], queue))
    process.start()
    found = queue.get(timeout=60)
    process.join()
    assert found == rows[3].tobytes() + bytes(rows[0].nbytes) + rows[0].tobytes()


def test_packed_ids_are_found_where_strings_have_other_hashes(tmp_path, monkeypatch):
    """Catches hashes of one process that a spawned one looks through."""
    rows = make_feature_set(tmp_path / "set")
    monkeypatch.setattr(question_ids, "_MAX_IN_DICT", 0)
    (tmp_path / "pickle").write_bytes(pickle.dumps(open_features(tmp_path / "set")))
    code = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    features = pickle.load(file)
sys.stdout.buffer.write(features.gather(["q3", "x", "q0"])[0].tobytes())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pickle")],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == rows[3].tobytes() + bytes(rows[0].nbytes) + rows[0].tobytes()


def test_random_batches_of_a_set_are_those_of_a_list(tmp_path, kind):
    """Catches an order that depends on how ids are kept, and ids that are copied."""
    torch_batches = pytest.importorskip("mmcot_data.shards.torch").RandomBatches
    make_feature_set(tmp_path)
    ids = open_features(tmp_path).question_ids
    batches = torch_batches(ids, 2, seed=7)
    assert batches.question_ids is ids
    listed = torch_batches(list(ids), 2, seed=7)
    for _ in range(3):
        epoch = list(batches)
        assert epoch == list(listed)
        assert sorted(itertools.chain.from_iterable(epoch)) == sorted(ids)


def test_many_ids_take_tens_of_bytes(tmp_path, monkeypatch):
    """Catches an object for each id: of 20,000 questions, a pickle has 23 bytes each."""
    num_rows, num_questions = 4, 20_000
    monkeypatch.setattr(question_ids, "_MAX_IN_DICT", num_questions - 1)
    features, digests = make_rows(num_rows)
    index = [(f"{n:07d}", "question", n % num_rows) for n in range(num_questions)]
    write_set(tmp_path, make_spec(), [(features, digests)], index)
    fs = open_features(tmp_path)
    assert len(pickle.dumps(fs)) < 24 * num_questions
    assert fs.question_ids[12_345] == "0012345"
    wanted = [f"{n:07d}" for n in range(0, num_questions + 50, 997)]
    found, mask = fs.gather(wanted)
    for row, name, valid in zip(found, wanted, mask, strict=True):
        known = int(name) < num_questions
        assert valid.all() == valid.any() == known
        assert row.tobytes() == (features[int(name) % num_rows].tobytes() if known else bytes(70))


def test_rows_that_only_share_a_hash_are_not_twice_in_the_index(tmp_path, monkeypatch):
    """Catches an index that is refused for equal hashes, and one whose repeats have others'."""
    features, digests = make_rows(2)
    pairs = [("a", "question"), ("b", "question"), ("a", "choice_0"), ("b", "choice_0")]
    constant = pl.Expr.is_null
    monkeypatch.setattr(pl.Expr, "hash", lambda self: constant(self).cast(pl.UInt64))
    write_set(tmp_path / "fine", make_spec(), [(features, digests)], [(*p, 0) for p in pairs])
    assert open_features(tmp_path / "fine").question_ids == ["a", "b"]
    twice = [(*pair, 0) for pair in (*pairs, pairs[2])]
    write_set(tmp_path / "twice", make_spec(), [(features, digests)], twice)
    with pytest.raises(ShardError, match=r"2 rows share question and image role.*question 'a'"):
        open_features(tmp_path / "twice")


def test_an_index_without_an_id_or_a_role_is_refused(tmp_path):
    """Catches a row without id that moves the ids after it, as empty text would."""
    features, digests = make_rows(2)
    for number, row in enumerate(((None, "question", 0), ("a", None, 0))):
        write_set(tmp_path / str(number), make_spec(), [(features, digests)], [row])
        with pytest.raises(ShardError, match="has no question id or no image role"):
            open_features(tmp_path / str(number))


@pytest.mark.parametrize(
    ("shape", "num_images", "size"),
    [
        ((100, 256), 0, 1024),
        ((100, 256), 1_000_000, 1024),
        ((100, 256), 16_384 * 1024, 1024),
        ((100, 256), 16_384 * 1024 + 1, 2048),
        ((100, 256), 100_000_000, 8192),
        ((145, 1024), 1_000_000, 512),
        ((145, 1024), 100_000_000, 8192),
        ((5000, 50_000), 1, 1),
    ],
)
def test_shards_stay_so_few_that_three_sets_can_be_mapped(shape, num_images, size):
    """65,530 maps are what Linux grants a process; sizes below 16.8 million pictures stay."""
    found = default_shard_size(make_spec("float16", *shape), num_images)
    assert found == size
    assert 3 * -(-num_images // found) < 65_530


def test_names_of_shards_are_in_order_beyond_a_hundred_thousand():
    """Catches 100000-of-… before 99999-of-…."""
    for num_images, first in ((12, "00000-of-00012.h5"), (100_001, "000000-of-100001.h5")):
        plan = PlanKey(format="hdf5", num_images=num_images, request_sha256="", shard_size=1)
        files = shard_files(plan)
        assert (files[0], len(set(files))) == (first, num_images)
        assert files == sorted(files)


def test_running_out_of_memory_maps_is_explained(tmp_path, monkeypatch):
    """Catches "Cannot allocate memory" from a machine that has plenty of it."""
    make_feature_set(tmp_path)
    fs = open_features(tmp_path)

    class Full:
        def __init__(self, *_, **__):
            self.mmap = self

        def __call__(self, *_):
            ctypes.set_errno(errno.ENOMEM)
            return -1

    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", Full)
        with pytest.raises(ShardError, match=r"no more memory maps.*has 2 shards.*max_map_count"):
            fs.gather(["q0"])
    assert fs.gather(["q0"])[1].sum() == P
