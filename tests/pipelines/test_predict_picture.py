"""The figure of mmcot-predict: what is drawn where."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from feature_sets import make_spec
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmcot_data.images import describe_decoding
from mmcot_data.questions import Question
from mmcot_model.settings.config import TrainConfig
from mmcot_model.trained.asking import Reply, StageOutput
from mmcot_model.trained.choice_scores import ChoiceScore
from mmcot_model.trained.explanation import Explanation
from mmcot_model.trained.run import TrainedRun
from pipelines.asked_question import AskedQuestion, OpenedPicture
from pipelines.attention_panel import draw_attention, draw_picture, panel_height, picture_title
from pipelines.prediction_picture import draw_prediction
from pipelines.prediction_text import parts_by_encoder, render_reply

SQUARE = [{"step": "resize", "rule": "square", "size": 64}]
CROP = [
    {"step": "resize", "rule": "shorter_side", "size": 64},
    {"step": "center_crop", "size": 64},
]
ROWS, COLUMNS = 2, 3
DPI = 100


def grid_spec(preprocessing=SQUARE, num_others=1, **changes):
    return make_spec(
        num_patches=ROWS * COLUMNS + num_others,
        grid=(ROWS, COLUMNS),
        preprocessing=preprocessing,
        **changes,
    )


def draw(panel, width, height):
    """Pixels (H, W, 3) of a panel that fills the figure."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    panel(axes, (0, 0, width, height))
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return np.array(Image.open(buffer).convert("RGB")).astype(int)


def redness(pixels):
    return pixels[..., 0] - pixels[..., 1:].mean(-1)


@pytest.mark.parametrize("patch", [0, 2, 4])
def test_a_patch_is_drawn_in_its_place(patch):
    """Would catch a map that is turned or mirrored, or in which the class token takes a place."""
    attention = np.full(ROWS * COLUMNS + 1, 1e-3, np.float32)
    attention[1 + patch] = 1
    image = Image.new("RGB", (60, 40), "white")
    spec = grid_spec()
    pixels = draw(lambda axes, box: draw_attention(axes, box, image, spec, attention), 3, 2)
    cells = redness(pixels).reshape(ROWS, DPI, COLUMNS, DPI).mean((1, 3))
    assert divmod(int(cells.argmax()), COLUMNS) == divmod(patch, COLUMNS)
    assert cells.max() > 10 * np.sort(cells.ravel())[-2]


def test_the_picture_is_the_part_that_the_encoder_saw():
    """Would catch a map over the whole picture though its sides were cropped."""
    image = Image.new("RGB", (80, 40), "white")
    image.paste("blue", (0, 0, 20, 40))
    image.paste("red", (60, 0, 80, 40))
    spec = grid_spec(CROP)
    assert panel_height(image, spec, 2.0) == pytest.approx(2.0)
    assert panel_height(image, grid_spec(SQUARE), 2.0) == pytest.approx(1.0)
    pixels = draw(lambda axes, box: draw_picture(axes, box, image, spec), 2, 2)
    assert (pixels == 255).all()
    whole = draw(lambda axes, box: draw_picture(axes, box, image, grid_spec(SQUARE)), 2, 1)
    assert tuple(whole[50, 20]) == (0, 0, 255)
    assert tuple(whole[50, 180]) == (255, 0, 0)


def test_a_high_picture_keeps_its_shape():
    image = Image.new("RGB", (20, 80), "blue")
    assert panel_height(image, grid_spec(), 2.0) < 4
    pixels = draw(lambda axes, box: draw_picture(axes, box, image, grid_spec()), 2, 2)
    is_blue = (pixels == (0, 0, 255)).all(-1)
    np.testing.assert_allclose((is_blue.any(1).sum(), is_blue.any(0).sum()), (200, 50), atol=2)


def test_no_map_over_a_picture_whose_place_is_not_known():
    """A guess would show attention beside what it was to."""
    image = Image.new("RGB", (60, 40), "blue")
    spec = grid_spec([{"step": "warp"}])
    attention = np.full(ROWS * COLUMNS + 1, 1e-3, np.float32)
    attention[-1] = 1
    pixels = draw(lambda axes, box: draw_attention(axes, box, image, spec, attention), 3, 2)
    assert (pixels[10:90, 10:90] > 240).all(), "white paper, not the picture"


def test_patches_without_a_place_are_bars_of_their_shares():
    """Would catch bars in another order or of other heights."""
    shares = np.array([0.1, 0.4, 0.2, 0.3], np.float32)
    spec = make_spec(num_patches=4, grid=None)
    pixels = draw(lambda axes, box: draw_attention(axes, box, None, spec, shares), 4, 2)
    middles = np.arange(4) * DPI + 40
    heights = (redness(pixels)[:, middles] > 100).sum(0)
    np.testing.assert_allclose(heights, 2 * DPI * shares / shares.max(), atol=4)


def make_reply(explanation, **changes):
    stages = {
        name: StageOutput(
            source="Question: Why? Answer:",
            text=text,
            finish_reason="stop",
            explanation=explanation,
        )
        for name, text in (("rationale", "Solution: It is."), ("answer", "The answer is (B)."))
    }
    values = {
        "rationale": "It costs $5, not $6.",
        "answer": 1,
        "scores": [ChoiceScore(-2.0, 0.3), ChoiceScore(-1.0, 0.7)],
        "stages": stages,
    }
    return Reply(**values | changes)


def make_asked(image, answer=None):
    question = Question(
        dataset="",
        question_id="",
        split="test",
        position=0,
        question="Is it $5 or $6? 日",
        choices=("$5", "six " * 60),
        answer=answer,
    )
    picture = None
    if image is not None:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        picture = OpenedPicture(name="x.png", content=buffer.getvalue())
    return AskedQuestion(question=question, caption=None, picture=picture, has_stored_picture=False)


def make_run(*specs):
    config = TrainConfig(artifacts=Path("shards"), output=Path("run"))
    return TrainedRun(
        folder=Path("run"), config=config, artifacts=Path("shards"), features=(), specs=specs
    )


def explain(specs, num_tokens=5):
    shape = (num_tokens, sum(spec.num_patches for spec in specs))
    rng = np.random.default_rng(0)
    attention = rng.random(shape).astype(np.float32)
    return Explanation(
        tokens=tuple(["▁Is", "▁it", "▁$5", "?", "</s>"] * (num_tokens // 5)),
        attention_SP=attention / attention.sum(1, keepdims=True),
        gate_S=rng.random(num_tokens).astype(np.float32),
    )


QUERIES = make_spec(num_patches=100, grid=None, encoder="detr")


@pytest.mark.parametrize(
    ("specs", "with_picture", "num_tokens"),
    [
        ((grid_spec(),), True, 5),
        ((grid_spec(),), False, 5),
        ((QUERIES,), True, 5),
        ((grid_spec(CROP, encoder="vit"), QUERIES), True, 300),
    ],
)
@pytest.mark.parametrize("answer", [None, 0])
def test_every_kind_of_reply_can_be_drawn(specs, with_picture, num_tokens, answer):
    """Dollar signs that begin no formula, letters that the font lacks, 300 tokens, two encoders."""
    image = Image.new("RGB", (90, 60), "red") if with_picture else None
    run, reply = make_run(*specs), make_reply(explain(specs, num_tokens))
    with Image.open(io.BytesIO(draw_prediction(run, make_asked(image, answer), reply))) as figure:
        figure.load()
        pixels = np.array(figure.convert("RGB"))
    assert figure.width == 1210
    assert (pixels[-20:] == 255).all(), "nothing is cut off below"
    assert (pixels[:, -25:] == 255).all(), "nothing is cut off at the right"
    assert (pixels == (255, 0, 0)).all(-1).any() == with_picture


@pytest.mark.parametrize("lacking", [0, 1])
def test_an_encoder_that_has_no_features_of_the_picture_gets_no_panel(lacking, monkeypatch):
    """Would catch a division by its share, which is 0, and a panel of nothing."""
    specs = (grid_spec(encoder="vit"), QUERIES)
    explanation = explain(specs)
    shares = np.split(explanation.attention_SP, [specs[0].num_patches], axis=1)
    shares[lacking][:] = 0
    shares[1 - lacking] /= shares[1 - lacking].sum(1, keepdims=True)
    explanation = replace(explanation, attention_SP=np.concatenate(shares, axis=1))
    texts = []
    write = Axes.text
    monkeypatch.setattr(
        Axes, "text", lambda *args, **style: texts.append(args[3]) or write(*args, **style)
    )
    image = Image.new("RGB", (90, 60), "red")
    draw_prediction(make_run(*specs), make_asked(image), make_reply(explanation))
    assert texts.count("no features of this picture") == 2, "one for each stage"
    assert sum(text.startswith(("darkest:", "highest:")) for text in texts) == 2
    spec, shares = specs[lacking], np.zeros(specs[lacking].num_patches, np.float32)
    pixels = draw(lambda axes, box: draw_attention(axes, box, image, spec, shares), 3, 2)
    assert (pixels[:190] == 255).all()


def test_shut_gates_can_be_drawn():
    """Would catch a division by the largest gate, and attention that never reached the model."""
    specs = (grid_spec(),)
    explanation = replace(explain(specs), gate_S=np.zeros(5, np.float32))
    image = Image.new("RGB", (90, 60), "red")
    png = draw_prediction(make_run(*specs), make_asked(image), make_reply(explanation))
    pixels = np.array(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    assert redness(pixels[:200]).max() < 20, "no map"


@pytest.mark.parametrize(("alpha", "color"), [("white", (255, 255, 255)), ("drop", (0, 0, 255))])
def test_transparent_pixels_are_drawn_as_the_encoder_saw_them(alpha, color):
    """Would catch a picture on white of an encoder that saw what stands behind."""
    image = Image.new("RGBA", (90, 60), (0, 0, 255, 0))
    spec = grid_spec([describe_decoding(alpha), *SQUARE])
    png = draw_prediction(make_run(spec), make_asked(image), make_reply(explain((spec,))))
    pixels = np.array(Image.open(io.BytesIO(png)).convert("RGB"))
    panel = pixels[150:200, 100:300]
    assert (panel == color).all()


def test_the_title_claims_no_more_than_is_known():
    image = Image.new("RGB", (60, 40))
    assert picture_title(image, grid_spec(CROP)) == "what the encoder saw"
    assert picture_title(image, grid_spec([{"step": "warp"}])) == "the picture"


def test_a_reply_without_picture_and_answer_can_be_drawn():
    reply = make_reply(None, answer=None, scores=[])
    del reply.stages["answer"]
    assert draw_prediction(make_run(), make_asked(None), reply).startswith(b"\x89PNG")


def test_attention_is_divided_among_the_encoders():
    """Would catch patches of one encoder that are drawn as another's."""
    specs = (grid_spec(), QUERIES)
    explanation = explain(specs)
    parts = [attention_P for _, attention_P in parts_by_encoder(explanation, specs)]
    assert [len(part) for part in parts] == [7, 100]
    np.testing.assert_array_equal(np.concatenate(parts), explanation.by_patch())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (1, "(B) six"),
        (0, "(A) $5 (written), but (B) six"),
        (None, "none: the model wrote 'The answer is (B).', which names no choice"),
    ],
)
def test_the_text_says_whether_scores_and_writing_agree(answer, expected):
    run, asked = make_run(grid_spec()), make_asked(None)
    text = render_reply(run, asked, make_reply(None, answer=answer))
    assert expected in " ".join(text.split())
