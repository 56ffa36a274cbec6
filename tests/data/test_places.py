"""Which row a question is given: one image role or several, against the index read row by row."""

import numpy as np
import polars as pl
import pytest
from feature_sets import D, P, make_feature_set, make_rows, make_spec, write_set
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcot_data.shards import open_features
from mmcot_data.shards.places import sort_roles

ROLES = ["question", "question_2", "choice_0", "choice_1", "choice_10", "choice_2"]


def test_all_roles_stand_side_by_side(tmp_path):
    rows = make_feature_set(tmp_path)
    fs = open_features(tmp_path, roles="all", combine="all")
    assert fs.roles == ("question", "choice_0")
    assert fs.row_shape == (2 * P, D)
    assert fs.question_ids == ["q0", "q1", "q2", "q3", "q4", "q5"]
    features, mask = fs.gather(["q5", "q4", "q3", "nobody"])
    np.testing.assert_array_equal(features[0], np.concatenate([rows[5], rows[2]]))
    np.testing.assert_array_equal(features[1], np.concatenate([np.zeros((P, D)), rows[4]]))
    np.testing.assert_array_equal(features[2], np.concatenate([rows[3], np.zeros((P, D))]))
    assert not features[3].any()
    assert mask[0].all()
    assert mask[1].tolist() == [False] * P + [True] * P
    assert mask[2].tolist() == [True] * (P - 2) + [False] * (P + 2)
    assert not mask[3].any()
    expected = [[True, True], [False, True], [True, False], [False, False]]
    assert fs.role_mask(["q5", "q4", "q3", "nobody"]).tolist() == expected
    np.testing.assert_array_equal(fs["q5"], features[0])
    with pytest.raises(KeyError, match="nobody"):
        fs["nobody"]


def test_roles_have_a_natural_order():
    assert sort_roles(["choice_10", "question_2", "choice_2", "question", "choice_0"]) == [
        "question",
        "question_2",
        "choice_0",
        "choice_2",
        "choice_10",
    ]


@settings(max_examples=30, deadline=None)
@given(
    places=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(ROLES), st.integers(0, 6) | st.none()),
        unique_by=lambda place: place[:2],
        max_size=20,
    ),
    roles=st.lists(st.sampled_from(ROLES), min_size=1, unique=True),
    shard_rows=st.sampled_from([(7,), (3, 4), (1, 2, 4), (2, 1, 1, 3)]),
)
def test_any_index_is_read_as_a_search_through_it_would(
    tmp_path_factory, places, roles, shard_rows
):
    """Catches a join that reorders, a shard's offset, and gaps between shards."""
    folder = tmp_path_factory.mktemp("set")
    features, digests = make_rows(7)
    stops = np.cumsum(shard_rows)
    parts = [slice(stop - size, stop) for stop, size in zip(stops, shard_rows, strict=True)]
    index = [(str(question), role, row) for question, role, row in places]
    write_set(folder, make_spec(), [(features[p], digests[p]) for p in parts], index)
    found = {(question, role): row for question, role, row in index if row is not None}
    first = open_features(folder, roles=roles)
    together = open_features(folder, roles=roles, combine="all")
    questions = [str(question) for question in range(7)]
    assert set(first) == set(together) == {q for q in questions for r in roles if (q, r) in found}
    first_BPD, first_mask = first.gather(questions)
    all_BPD, all_mask = together.gather(questions)
    for item, question in enumerate(questions):
        rows = [found.get((question, role)) for role in roles]
        blocks = [np.zeros((P, D), np.float16) if row is None else features[row] for row in rows]
        np.testing.assert_array_equal(all_BPD[item], np.concatenate(blocks))
        expected = np.repeat([row is not None for row in rows], P)
        np.testing.assert_array_equal(all_mask[item], expected)
        present = [row for row in rows if row is not None]
        expected = features[present[0]] if present else np.zeros((P, D))
        np.testing.assert_array_equal(first_BPD[item], expected)
        assert first_mask[item].all() == bool(present)
    order = pl.read_parquet(folder / "index.parquet").filter(pl.col("row").is_not_null())
    order = order.filter(pl.col("role").is_in(roles))["question_id"].unique(maintain_order=True)
    assert set(first.question_ids) == set(order)
