"""Which pictures share a batch: each once, of one size, bounded, in the order of all encoders."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcot_data.encoders.preprocessing import Resize
from mmcot_data.extraction.batches import plan_batches, visit_order

DETR = Resize(rule="shorter_side", size=224, interpolation="bilinear").output_size
NATIVE = Resize(
    rule="shorter_side", size=800, max_longer_side=1333, interpolation="bilinear"
).output_size
SQUARE = Resize(rule="square", size=224, interpolation="bicubic").output_size

sizes_of_pictures = st.lists(
    st.none() | st.tuples(st.integers(1, 2000), st.integers(1, 2000)), max_size=60
)


@given(sizes_of_pictures, st.integers(1, 9), st.sampled_from([1, 32, 64]))
def test_every_usable_picture_is_in_one_batch(sizes, batch_size, pad_to):
    """Catches pictures lost or doubled at the borders of groups, and batches that are too full."""
    for input_size in (DETR, NATIVE, SQUARE):
        batches = plan_batches(sizes, input_size, batch_size=batch_size, pad_to=pad_to)
        positions = [position for batch in batches for position in batch.positions]
        assert sorted(positions) == [p for p, size in enumerate(sizes) if size is not None]
        for batch in batches:
            assert 1 <= len(batch.positions) <= batch_size
            for position in batch.positions:
                height, width = input_size(*sizes[position])
                assert batch.height - pad_to < height <= batch.height
                assert batch.width - pad_to < width <= batch.width
            assert pad_to == 1 or (batch.height % pad_to, batch.width % pad_to) == (0, 0)


@given(sizes_of_pictures, st.integers(1, 9))
def test_the_order_completes_one_batch_after_the_other(sizes, batch_size):
    """Catches a decoding that must hold a whole shard, and an order that depends on the encoder."""
    order = visit_order(sizes)
    for input_size in (DETR, NATIVE, SQUARE):
        ends = [
            max(order.index(position) for position in batch.positions)
            for batch in plan_batches(sizes, input_size, batch_size=batch_size)
        ]
        assert ends == sorted(ends)


def test_few_prepared_pictures_wait_for_their_batch():
    """The figure behind the bounded memory: open groups, for 1,000 shapes as ScienceQA has them."""
    sizes = [(width, 224) for width in range(224, 1224)] * 2
    order = visit_order(sizes)
    waiting, held = 0, 0
    batches = iter(plan_batches(sizes, DETR, batch_size=8))
    batch = next(batches)
    seen = set()
    for position in order:
        seen.add(position)
        held += 1
        while batch is not None and seen.issuperset(batch.positions):
            held -= len(batch.positions)
            batch = next(batches, None)
        waiting = max(waiting, held)
    assert held == 0
    assert waiting <= 8


@pytest.mark.parametrize(
    ("width", "expected"), [(448, 8), (449, 7), (896, 4), (3584, 1), (9000, 1)]
)
def test_elongated_pictures_make_smaller_batches(width, expected):
    """Catches a batch of panoramas that needs many times the memory of the others."""
    batches = plan_batches([(width, 224)] * 20, DETR, batch_size=8)
    assert max(len(batch.positions) for batch in batches) == expected


def test_padding_to_multiples_wastes_little_on_real_shapes():
    """At most 1.05 times the pixels, where shapes are spread as widely as ScienceQA's."""
    sizes = [(224 + 3 * n, 224) for n in range(300)] + [(224, 224 + 3 * n) for n in range(100)]
    batches = plan_batches(sizes, DETR, batch_size=32, pad_to=32)
    padded = sum(len(batch.positions) * batch.height * batch.width for batch in batches)
    assert padded / sum(width * height for width, height in sizes) < 1.05
    exact = plan_batches(sizes, DETR, batch_size=32)
    assert len(batches) < len(exact) / 5
