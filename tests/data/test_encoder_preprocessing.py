"""Preprocessing against torchvision's transforms and transformers' Pillow processors."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode
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


def ours(preprocessing, image):
    return preprocessing.normalize(preprocessing.prepare(image)[None])[0]


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
