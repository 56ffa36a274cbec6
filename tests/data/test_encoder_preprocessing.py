"""Preprocessing against torchvision's transforms and transformers' Pillow processors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode, v2
from transformers import CLIPImageProcessorPil, DetrImageProcessorPil, ViTImageProcessorPil

from mmcot_data.encoders.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    CenterCrop,
    Normalize,
    PicturePreprocessing,
    Resize,
)
from mmcot_data.errors import ImageError
from mmcot_data.images import describe_decoding

SIZES = [(449, 323), (750, 429), (322, 233), (53, 472), (64, 64), (31, 300), (224, 500)]
IMAGENET = Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD)

DETR = PicturePreprocessing(
    resize=Resize(rule="shorter_side", size=224, interpolation="bilinear"), normalization=IMAGENET
)
DETR_NATIVE = PicturePreprocessing(
    resize=Resize(rule="shorter_side", size=80, max_longer_side=133, interpolation="bilinear"),
    normalization=IMAGENET,
)
CLIP = PicturePreprocessing(
    resize=Resize(rule="shorter_side", size=224, interpolation="bicubic"),
    crop=CenterCrop(size=224, margin_rounding="down"),
    normalization=Normalize(mean=CLIP_MEAN, std=CLIP_STD),
)
VIT = PicturePreprocessing(
    resize=Resize(rule="shorter_side", size=96, interpolation="bicubic"),
    crop=CenterCrop(size=96, margin_rounding="half_even"),
    normalization=Normalize(mean=HALF, std=HALF),
)
VIT_NATIVE = PicturePreprocessing(
    resize=Resize(rule="square", size=96, interpolation="bilinear"),
    normalization=Normalize(mean=HALF, std=HALF),
)


def noise(width, height):
    rng = np.random.default_rng(width * 10_000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def drawing(width, height):
    """Smooth and with sharp edges, as diagrams are; resizers agree better on it than on noise."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x // 9 + y // 7) % 2 * 200], -1)
    return Image.fromarray(pixels.astype(np.uint8))


def ours(preprocessing, image):
    return preprocessing.normalize(preprocessing.prepare(image)[None])[0]


def with_torchvision(preprocessing):
    return replace(preprocessing, resizer="torchvision")


@pytest.mark.parametrize("size", SIZES)
def test_detr_is_bit_equal_to_the_transform_of_multimodal_cot(size):
    oracle = transforms.Compose(
        [
            transforms.Resize(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    assert torch.equal(ours(DETR, noise(*size)), oracle(noise(*size)))


@pytest.mark.parametrize("size", SIZES)
def test_vit_is_bit_equal_to_torchvision_also_where_the_crop_margin_is_odd(size):
    oracle = transforms.Compose(
        [
            transforms.Resize(96, interpolation=InterpolationMode.BICUBIC),
            transforms.CenterCrop(96),
            transforms.ToTensor(),
            transforms.Normalize(HALF, HALF),
        ]
    )
    assert torch.equal(ours(VIT, noise(*size)), oracle(noise(*size)))


@pytest.mark.parametrize(
    ("preprocessing", "processor"),
    [
        (CLIP, CLIPImageProcessorPil()),
        (VIT_NATIVE, ViTImageProcessorPil(size={"height": 96, "width": 96})),
        (DETR_NATIVE, DetrImageProcessorPil(size={"shortest_edge": 80, "longest_edge": 133})),
    ],
    ids=["clip", "vit native", "detr native"],
)
@pytest.mark.parametrize("size", SIZES)
def test_equal_to_the_processor_of_transformers(preprocessing, processor, size):
    image = noise(*size)
    raw = processor(images=image, do_rescale=False, do_normalize=False, return_tensors="pt")
    assert torch.equal(preprocessing.prepare(image), raw["pixel_values"][0].to(torch.uint8))
    normalized = processor(images=image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(ours(preprocessing, image), normalized, rtol=0, atol=1e-6)


def test_margin_rounding_is_told_apart_where_it_matters():
    """449 x 323 becomes 311 x 224: half of 87 is 43 for transformers and 44 for torchvision."""
    assert CLIP.crop is not None
    assert CLIP.crop.box(311, 224) == (43, 0, 267, 224)
    assert CenterCrop(size=224, margin_rounding="half_even").box(311, 224)[0] == 44


@settings(deadline=None, max_examples=60)
@given(width=st.integers(1, 400), height=st.integers(1, 400))
def test_output_size_is_the_size_of_what_is_prepared(width, height):
    """A wrong forecast would put pictures of unequal size in one batch."""
    for preprocessing in (DETR_NATIVE, VIT, VIT_NATIVE):
        prepared = preprocessing.prepare(Image.new("RGB", (width, height)))
        assert prepared.shape[1:] == preprocessing.output_size(width, height)
        assert prepared.dtype == torch.uint8


def test_a_picture_that_would_become_huge_is_refused_before_it_is_resized():
    with pytest.raises(ImageError, match="1 x 5000 becomes 224 x 1120000") as caught:
        DETR.prepare(Image.new("RGB", (1, 5000)))
    assert caught.value.reason == "too_large"


def test_the_description_names_every_step_and_what_decides_its_pixels():
    steps = json.loads(json.dumps(CLIP.describe()))
    assert [(step["step"], step["implementation"]) for step in steps] == [
        ("decode", "pil"),
        ("resize", "pil"),
        ("center_crop", "pil"),
        ("normalize", "torch"),
    ]
    assert steps[1]["interpolation"] == "bicubic"
    assert steps[1]["antialias"] is True
    assert steps[2]["margin_rounding"] == "down"
    assert steps[3]["mean"] == list(CLIP_MEAN)
    assert CLIP.describe() != VIT.describe()


@pytest.mark.parametrize(
    "preprocessing", [DETR, DETR_NATIVE, CLIP, VIT, VIT_NATIVE], ids=lambda p: p.resize.rule
)
@pytest.mark.parametrize("size", SIZES)
def test_torchvision_makes_the_same_picture_but_for_rounding(preprocessing, size):
    """Without antialiasing, or with the crop one pixel aside, tens of levels would differ."""
    image = drawing(*size)
    expected = preprocessing.prepare(image)
    pixels_CHW = with_torchvision(preprocessing).prepare(image)
    assert (pixels_CHW.shape, pixels_CHW.dtype) == (expected.shape, torch.uint8)
    assert pixels_CHW.shape[1:] == with_torchvision(preprocessing).output_size(*size)
    difference = (pixels_CHW.int() - expected.int()).abs()
    assert difference.max() <= 12
    assert difference.float().mean() < 0.5


def test_the_tolerance_for_torchvision_would_show_a_slip():
    """A shift of one pixel, or no antialiasing, is far outside of what rounding does."""
    image = drawing(449, 323)
    expected = CLIP.prepare(image).int()
    shifted = replace(CLIP, crop=CenterCrop(size=224, margin_rounding="half_even"))
    resize = transforms.Resize(224, InterpolationMode.BICUBIC, antialias=False)
    tensor_CHW = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    aliased = resize(tensor_CHW)[:, :, 43:267]
    for wrong in (with_torchvision(shifted).prepare(image), aliased):
        difference = (wrong.int() - expected).abs()
        assert difference.max() > 50
        assert difference.float().mean() > 2


@pytest.mark.parametrize("size", SIZES)
def test_torchvision_is_what_its_own_transforms_give(size):
    oracle = v2.Compose([v2.Resize(96, InterpolationMode.BICUBIC), v2.CenterCrop(96)])
    image = noise(*size)
    expected = oracle(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    assert torch.equal(with_torchvision(VIT).prepare(image), expected)


def test_torchvision_is_recorded():
    """Else features of other pixels would count as the same."""
    steps, ours = with_torchvision(CLIP).describe(), CLIP.describe()
    assert [step["implementation"] for step in steps] == ["pil", "torchvision", "torch", "torch"]
    assert steps[1] == {**ours[1], "implementation": "torchvision"}
    assert with_torchvision(CLIP).libraries == ("pillow", "torchvision")
    assert CLIP.libraries == ("pillow",)


def test_a_huge_picture_is_refused_by_torchvision_as_well():
    with pytest.raises(ImageError, match="1 x 5000 becomes 224 x 1120000"):
        with_torchvision(DETR).prepare(Image.new("RGB", (1, 5000)))


@pytest.mark.parametrize("alpha", ["white", "drop"])
def test_the_description_says_what_became_of_alpha(alpha):
    first, *others = replace(CLIP, alpha=alpha).describe()
    assert first == describe_decoding(alpha)
    assert others == CLIP.describe()[1:]
    assert (replace(CLIP, alpha=alpha).describe() == CLIP.describe()) == (alpha == "white")


@pytest.mark.parametrize("preprocessing", [DETR, CLIP, with_torchvision(VIT)])
def test_pixels_keep_their_channels_side_by_side(preprocessing):
    """A batch of them is then channels_last memory by copying rows, not single bytes."""
    pixels_CHW = preprocessing.prepare(drawing(449, 323))
    assert pixels_CHW.stride()[::2] == (1, 3)
    batch_BCHW = torch.stack([pixels_CHW.permute(1, 2, 0)] * 2).permute(0, 3, 1, 2)
    assert batch_BCHW.is_contiguous(memory_format=torch.channels_last)
    normalized_BCHW = preprocessing.normalize(batch_BCHW)
    assert normalized_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalized_BCHW, preprocessing.normalize(batch_BCHW.contiguous()))


def test_normalising_leaves_the_prepared_pixels_as_they_are():
    """It computes in place; several encoders may share the pixels."""
    pixels_BCHW = CLIP.prepare(noise(50, 40))[None]
    for pixels in (pixels_BCHW, pixels_BCHW.float()):
        before = pixels.clone()
        first = CLIP.normalize(pixels)
        assert torch.equal(pixels, before)
        assert torch.equal(CLIP.normalize(pixels), first)
