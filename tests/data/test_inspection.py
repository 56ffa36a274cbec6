"""Statistics against exact fractions, colours against planted ones, drawings pixel by pixel."""

import hashlib
import statistics
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    DeiTImageProcessorPil,
    DetrImageProcessorPil,
    SiglipImageProcessorPil,
    ViTConfig,
    ViTImageProcessorPil,
)

from mmcot_data.encoders import EncoderConfig, load_encoder
from mmcot_data.encoders.huggingface import ProcessorPreprocessing
from mmcot_data.errors import DataError, ImageError, ShardError
from mmcot_data.inspection import (
    PictureFeatures,
    covered_box,
    draw_feature_maps,
    feature_statistics,
    principal_components_rgb,
)
from mmcot_data.inspection import statistics as statistics_module
from mmcot_data.inspection.contact_sheet import Card, draw_contact_sheet
from mmcot_data.shards import FeatureSpec

SIZES = [(449, 323), (750, 429), (120, 300), (64, 64), (500, 60)]


def make_spec(num_patches, feature_dim, **changes):
    return FeatureSpec(
        **{
            "encoder": "fake",
            "model_id": "org/fake",
            "revision": None,
            "weights_sha256": "00" * 32,
            "random_weights": 3,
            "layer": "last",
            "preprocessing": [
                {"step": "decode"},
                {"step": "resize", "rule": "square", "size": 20},
                {"step": "normalize"},
            ],
            "precision": "fp32",
            "precision_error": None,
            "backend": "torch",
            "num_patches": num_patches,
            "feature_dim": feature_dim,
            "grid": None,
            "versions": {},
            "dtype": "float32",
            "data_licence": "unknown",
        }
        | changes
    )


def shapes(first):
    return st.tuples(first, st.integers(1, 4), st.integers(1, 3))


@settings(deadline=None)
@given(data=st.data())
def test_statistics_are_those_of_exact_arithmetic(data):
    """A mean beside which the spread is small would show a sum of squares that cancels."""
    width = data.draw(st.sampled_from([16, 32]))
    values_NPD = data.draw(
        arrays(
            f"float{width}",
            shapes(st.integers(1, 8)),
            elements=st.floats(-8, 8, width=width) | st.sampled_from([0.0, -0.0]),
        )
    )
    if width == 32:
        values_NPD = values_NPD + np.float32(data.draw(st.sampled_from([0, 1000, -60000])))
    N, _, D = values_NPD.shape
    cuts = sorted(data.draw(st.lists(st.integers(1, N - 1) if N > 1 else st.nothing())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics_module, "_PIECE_SIZE", data.draw(st.integers(1, 40)))
        done = []
        found = feature_statistics(np.split(values_NPD, cuts), done.append)
    assert done[-1] == found.num_rows == N
    assert found.num_patches == values_NPD.size // D
    assert (found.num_not_finite, found.not_finite_rows) == (0, ())
    rounding = {"rel": 1e-11, "abs": 1e-15 * max(1, float(np.abs(values_NPD).max()))}
    columns = [values_NPD[..., dimension].ravel().tolist() for dimension in range(D)]
    for which, values in [*enumerate(columns), (None, values_NPD.ravel().tolist())]:
        of = found.overall if which is None else found.dimensions
        mean, std, zero_share, minimum, maximum = (
            value if which is None else value[which]
            for value in (of.mean, of.std, of.zero_share, of.minimum, of.maximum)
        )
        assert mean == pytest.approx(statistics.fmean(values), **rounding)
        assert std == pytest.approx(statistics.pstdev(values), **rounding)
        assert zero_share == pytest.approx(values.count(0) / len(values))
        assert (minimum, maximum) == (min(values), max(values))
    assert found.num_constant == sum(len(set(values)) == 1 for values in columns)


def test_values_that_are_not_finite_are_counted_and_found(monkeypatch):
    """Would catch a row that is listed twice because it lies in two pieces."""
    monkeypatch.setattr(statistics_module, "_PIECE_SIZE", 6)
    blocks = [np.ones((4, 5, 2), np.float16) for _ in range(3)]
    blocks[0][3, 0, 0] = blocks[0][3, 4, 1] = np.nan
    blocks[2][0, 2, 1] = np.inf
    found = feature_statistics(blocks)
    assert found.num_not_finite == 3
    assert found.not_finite_rows == ((0, 3), (2, 0))
    assert not np.isfinite([found.overall.mean, found.overall.std]).any()
    blocks[1][:] = -np.inf
    found = feature_statistics(blocks)
    assert found.num_not_finite == 43
    assert found.not_finite_rows == ((0, 3), (1, 0), (1, 1), (1, 2), (1, 3))


def test_statistics_need_little_memory():
    block_NPD = np.zeros((100, 145, 1024), np.float16)
    tracemalloc.start()
    feature_statistics([block_NPD])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6


@pytest.mark.parametrize("blocks", [[], [np.zeros((0, 2, 3), np.float16)]])
def test_nothing_has_no_statistics(blocks):
    with pytest.raises(ShardError, match="at least one row"):
        feature_statistics(blocks)


def planted(num_images=3, num_patches=40, dim=30, seed=0):
    """Features that are three hidden colours, the first the strongest, seen from an angle."""
    rng = np.random.default_rng(seed)
    colours = rng.uniform(-1, 1, (num_images, num_patches, 3))
    directions, _ = np.linalg.qr(rng.standard_normal((dim, 3)))
    noise = 1e-3 * rng.standard_normal((num_images, num_patches, dim))
    return colours, (colours * (9, 5, 2)) @ directions.T + 50 + noise


def test_planted_colours_are_recovered():
    colours, features_NPD = planted()
    found = principal_components_rgb(features_NPD)
    assert found.rgb.shape == colours.shape
    assert found.rgb.dtype == np.uint8
    for channel in range(3):
        flat = found.rgb[..., channel].ravel()
        correlation = np.corrcoef(flat, colours[..., channel].ravel())[0, 1]
        assert abs(correlation) > 0.98
        assert 3 <= (flat == 0).sum() <= 5
        assert 3 <= (flat == 255).sum() <= 5
    variances = np.linalg.eigvalsh(np.cov(features_NPD.reshape(-1, 30).T))[::-1]
    np.testing.assert_allclose(found.explained, variances[:3] / variances.sum(), rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_colours_do_not_depend_on_the_order_of_the_pictures(seed):
    """Would catch signs that are left to the decomposition."""
    _, features_NPD = planted(seed=seed)
    rgb = principal_components_rgb(features_NPD).rgb
    turned = principal_components_rgb(features_NPD[::-1, ::-1]).rgb[::-1, ::-1]
    assert np.abs(rgb.astype(int) - turned).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 5), (2, 3, 1), (2, 3, 2), (7, 43, 6)])
def test_components_without_spread_are_grey(shape):
    """Nothing must be divided by zero; and one patch that differs must not be lost."""
    row_D = np.random.default_rng(0).standard_normal(shape[2]).astype(np.float32)
    features_NPD = np.tile(row_D, (*shape[:2], 1))
    found = principal_components_rgb(features_NPD)
    assert (found.rgb == 128).all()
    assert found.explained == (0, 0, 0)
    features_NPD[0, 0, 0] += 1
    if features_NPD.size > shape[2]:
        found = principal_components_rgb(features_NPD)
        assert found.explained == (pytest.approx(1), 0, 0)
        assert found.rgb[0, 0].tolist() == [255, 128, 128]
        assert (found.rgb.reshape(-1, 3)[1:] == [0, 128, 128]).all()


def test_rounding_is_not_stretched_into_colours():
    rng = np.random.default_rng(0)
    features_NPD = rng.standard_normal((3, 40, 1)) * rng.standard_normal(30) + 7
    found = principal_components_rgb(features_NPD)
    assert found.explained == (pytest.approx(1), 0, 0)
    assert np.ptp(found.rgb[..., 0]) == 255
    assert (found.rgb[..., 1:] == 128).all()


def test_features_that_are_not_finite_have_no_colours():
    with pytest.raises(ShardError, match="not finite"):
        principal_components_rgb(np.array([[[1.0, np.inf]]]))


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    """What each encoder does to a picture, and how its spec describes that."""
    root = tmp_path_factory.mktemp("models")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2, "image_size": 96, "patch_size": 32}
    CLIPVisionConfig(**small).save_pretrained(root / "clip")
    ViTConfig(**small).save_pretrained(root / "vit")

    def load(name, **changes):
        model = None if name == "tiny" else str(root / name)
        config = EncoderConfig(name=name, model=model, random_weights=0, **changes)
        encoder = load_encoder(config)
        return encoder.prepare, encoder.describe()["preprocessing"]

    def process(processor):
        preprocessing = ProcessorPreprocessing(processor)
        return preprocessing.prepare, preprocessing.describe()

    square, crop = {"height": 96, "width": 96}, {"height": 80, "width": 64}
    return {
        "clip": load("clip"),
        "vit": load("vit"),
        "vit native": load("vit", preprocessing="native"),
        "tiny": load("tiny"),
        "hf clip": process(CLIPImageProcessorPil(size={"shortest_edge": 96}, crop_size=crop)),
        "hf dinov2": process(BitImageProcessorPil(size={"shortest_edge": 96}, crop_size=crop)),
        "hf deit": process(DeiTImageProcessorPil(size=square, crop_size=crop)),
        "hf siglip": process(SiglipImageProcessorPil(size=square)),
        "hf vit": process(ViTImageProcessorPil(size=square)),
    }


NAMES = ("clip", "vit", "vit native", "tiny")
NAMES += ("hf clip", "hf dinov2", "hf deit", "hf siglip", "hf vit")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_a_marked_spot_is_where_the_covered_box_says(prepare, name, size):
    """Would catch a map that is drawn beside what it shows."""
    function, steps = prepare[name]
    left, top, right, bottom = covered_box(*size, steps)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    black = np.asarray(function(Image.new("RGB", size))).astype(float).sum(axis=0)
    height, width = black.shape
    for share_x, share_y in [(0.25, 0.3), (0.8, 0.6)]:
        x, y = left + share_x * (right - left), top + share_y * (bottom - top)
        spot = Image.new("RGB", size)
        box = [round(value) for value in (x - 3, y - 3, x + 3, y + 3)]
        spot.paste("white", tuple(box))
        weights = np.asarray(function(spot)).astype(float).sum(axis=0) - black
        found_x = (weights.sum(axis=0) * (np.arange(width) + 0.5)).sum() / weights.sum()
        found_y = (weights.sum(axis=1) * (np.arange(height) + 0.5)).sum() / weights.sum()
        middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        assert found_x == pytest.approx((middle_x - left) / (right - left) * width, abs=1)
        assert found_y == pytest.approx((middle_y - top) / (bottom - top) * height, abs=1)


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [{"step": "decode"}],
        [{"step": "resize", "size": 16}],
        [{"step": "resize", "rule": "square", "size": 16}, {"step": "pad", "size": 20}],
        [{"step": "resize", "rule": "square", "size": 16}, {"step": "center_crop", "size": 20}],
        ProcessorPreprocessing(DetrImageProcessorPil()).describe(),
        ["resized"],
    ],
)
def test_where_the_grid_lies_is_not_guessed(steps):
    assert covered_box(30, 20, steps) is None


def place_of(image, colour):
    """Left, top, width and height of the pixels of a colour, which must fill their box."""
    rows, columns = np.nonzero((np.asarray(image) == colour).all(axis=2))
    assert len(rows), f"there is no pixel of colour {colour}"
    width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert len(rows) == width * height, f"{colour} is in several places"
    return int(columns.min()), int(rows.min()), int(width), int(height)


def test_panels_of_a_sheet_stand_below_each_other():
    rng = np.random.default_rng(0)
    colours = rng.permutation(200)[: 5 * 2, None] * (1, -1, 0) + (0, 200, 255)
    sizes = [(200, 100), (240, 60), (100, 240), (30, 30), (240, 240)]
    panels = [Image.new("RGB", sizes[i // 2], tuple(colours[i].tolist())) for i in range(10)]
    cards = [
        Card(title=f"{i}" * 300 * (i % 2), note="note", panels=panels[2 * i : 2 * i + 2])
        for i in range(5)
    ]
    sheet = draw_contact_sheet("title", ["one", "two"], cards)
    places = [place_of(sheet, colour) for colour in colours]
    assert [place[2:] for place in places] == [sizes[i // 2] for i in range(10)]
    tops = [place[1] for place in places]
    lefts = [place[0] for place in places]
    assert len(set(tops[:6])) == 1
    assert len(set(tops[6:])) == 1
    assert tops[6] > tops[0] + 300
    assert sheet.height > tops[6] + 240
    assert lefts[:4] == lefts[6:]
    assert np.diff(lefts[:6]).min() > 240
    assert sheet.width <= 1600


@pytest.fixture
def data(tmp_path):
    """Two pictures: red, green from 95 to 205, and blue; and one that is all grey."""
    folder = tmp_path / "data"
    folder.mkdir()
    stripes = Image.new("RGB", (300, 100))
    for left, colour in [(0, (255, 0, 0)), (95, (0, 255, 0)), (205, (0, 0, 255))]:
        stripes.paste(colour, (left, 0, 300, 100))
    stripes.save(folder / "stripes.png")
    Image.new("RGB", (60, 120), (100, 100, 100)).save(folder / "grey.png")
    return folder


def make_pictures(folder, spec):
    rng = np.random.default_rng(0)
    pictures = []
    for name, (width, height) in [("stripes.png", (300, 100)), ("grey.png", (60, 120))]:
        content = (folder / name).read_bytes()
        pictures.append(
            PictureFeatures(
                features=rng.standard_normal(spec.row_shape).astype(np.float16),
                question_id=name,
                role="question",
                width=width,
                height=height,
                image_sha256=hashlib.sha256(content).hexdigest(),
                file=name,
            )
        )
    return pictures


CROPPED = [
    {"step": "resize", "rule": "shorter_side", "size": 32},
    {"step": "center_crop", "size": 32},
]


def test_a_map_lies_beside_and_over_the_part_that_was_cropped(data, tmp_path):
    """Would catch a map of class tokens, of columns as rows, or over the whole picture."""
    spec = make_spec(8, 5, grid=(2, 3), preprocessing=CROPPED)
    pictures = make_pictures(data, spec)
    draw_feature_maps(tmp_path / "maps.png", spec, pictures, data)
    sheet = Image.open(tmp_path / "maps.png")
    cells = principal_components_rgb(np.stack([p.features[2:] for p in pictures])).rgb
    left, top, width, height = place_of(sheet, (0, 255, 0))
    assert (width, height) == (240, 240)
    grey_left, _, *grey_size = place_of(sheet, (100, 100, 100))
    assert grey_size == [240, 240]
    for number, start, grey in [(0, left, 150), (1, grey_left, 100)]:
        for patch, colour in enumerate(cells[number]):
            row, column = divmod(patch, 3)
            x, y, *size = place_of(sheet, colour)
            assert (x - start - 248, y - top) == (column * 80, row * 120)
            assert size == [80, 120]
            blended = np.asarray(sheet)[y + 60, x + 40 + 248].astype(int)
            assert np.abs(blended - (colour.astype(int) + grey) / 2).max() <= 1
    draw_feature_maps(tmp_path / "again.png", spec, pictures, data)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "maps.png").read_bytes()


def test_without_the_data_folder_the_maps_have_the_shape_of_the_pictures(data, tmp_path):
    spec = make_spec(4, 3, grid=(2, 2))
    pictures = make_pictures(data, spec)
    (data / "grey.png").unlink()
    draw_feature_maps(tmp_path / "maps.png", spec, pictures)
    sheet = Image.open(tmp_path / "maps.png")
    cells = principal_components_rgb(np.stack([p.features for p in pictures])).rgb
    assert [place_of(sheet, colour)[2:] for colour in cells[0]] == [(120, 40)] * 4
    assert [place_of(sheet, colour)[2:] for colour in cells[1]] == [(60, 120)] * 4


def test_where_the_place_of_the_grid_is_not_known_nothing_is_laid_over_the_picture(data, tmp_path):
    sheets = []
    for grid, steps in [((2, 2), None), ((2, 2), [{"step": "pad"}])]:
        spec = make_spec(4, 3, grid=grid)
        spec = spec if steps is None else make_spec(4, 3, grid=grid, preprocessing=steps)
        draw_feature_maps(tmp_path / "maps.png", spec, make_pictures(data, spec), data)
        sheets.append(Image.open(tmp_path / "maps.png").copy())
        for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255)]:
            assert place_of(sheets[-1], colour)[3] == 80
    assert sheets[0].width - sheets[1].width == 2 * 248


def test_object_queries_are_tiles_in_their_order(data, tmp_path):
    spec = make_spec(7, 5)
    pictures = make_pictures(data, spec)
    draw_feature_maps(tmp_path / "maps.png", spec, pictures, data)
    sheet = Image.open(tmp_path / "maps.png")
    cells = principal_components_rgb(np.stack([p.features for p in pictures])).rgb
    for row in cells:
        places = [place_of(sheet, colour) for colour in row]
        assert [place[2:] for place in places] == [(70, 70)] * 7
        x, y = places[0][:2]
        assert [(left - x, top - y) for left, top, *_ in places] == [
            (80 * (number % 3), 80 * (number // 3)) for number in range(7)
        ]


def test_a_picture_that_changed_or_is_absent_is_refused(data, tmp_path):
    spec = make_spec(4, 3, grid=(2, 2))
    pictures = make_pictures(data, spec)
    Image.new("RGB", (60, 120), (101, 100, 100)).save(data / "grey.png")
    with pytest.raises(DataError, match=r"grey.png is not the picture .* expected"):
        draw_feature_maps(tmp_path / "maps.png", spec, pictures, data)
    (data / "grey.png").unlink()
    with pytest.raises(ImageError, match=r"grey.png does not exist"):
        draw_feature_maps(tmp_path / "maps.png", spec, pictures, data)
    with pytest.raises(ValueError, match="at least one picture"):
        draw_feature_maps(tmp_path / "maps.png", spec, [])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_statistics_need_neither_torch_nor_pillow():
    script = (
        "import sys, mmcot_data.inspection\n"
        "sys.exit(', '.join({'torch', 'PIL', 'transformers'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
