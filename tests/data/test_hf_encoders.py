"""``hf:`` against direct calls of models and image processors, made small here; no network."""

import json
import logging

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BeitImageProcessorPil,
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ConvNextConfig,
    ConvNextImageProcessorPil,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    GLPNImageProcessorPil,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SwinConfig,
    SwinModel,
    TimmWrapperImageProcessor,
    ViTImageProcessorPil,
)
from transformers.image_processing_utils import BaseImageProcessor

from mmcot_data.encoders import EncoderConfig, load_encoder
from mmcot_data.encoders.huggingface import ProcessorPreprocessing
from mmcot_data.errors import EncoderError, ImageError
from mmcot_data.images import describe_decoding

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
TOWER = {**SMALL, "intermediate_size": 64}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "eos_token_id": 2,
    "bos_token_id": 1,
}
SQUARE = {"height": 32, "width": 32}
# Name: patches, width, grid, what the layer is called, what prepares pictures.
EXPECTED = {
    "dinov2": (17, 32, [4, 4], "Dinov2Model", "BitImageProcessorPil"),
    "dinov2-registers": (21, 32, [4, 4], "Dinov2WithRegistersModel", "BitImageProcessorPil"),
    "siglip2": (16, 32, [4, 4], "SiglipVisionModel", "SiglipImageProcessorPil"),
    "clip": (17, 32, [4, 4], "CLIPVisionModel", "CLIPImageProcessorPil"),
    "convnext": (16, 16, [4, 4], "ConvNextModel", "ConvNextImageProcessorPil"),
    "swin": (16, 16, None, "SwinModel", "ViTImageProcessorPil"),
    "timm-vit": (18, 32, [4, 4], "timm's vit_tiny_patch16_224", "TimmWrapperImageProcessor"),
    "timm-resnet": (4, 64, [2, 2], "timm's resnet18", "TimmWrapperImageProcessor"),
    "timm-swin": (
        4,
        32,
        [2, 2],
        "timm's swin_tiny_patch4_window7_224",
        "TimmWrapperImageProcessor",
    ),
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders as on the hub: the whole model beside its own image processor."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    dinov2 = {**SMALL, "image_size": 48}  # positions for 6 x 6 patches, interpolated to 4 x 4
    crop = BitImageProcessorPil(size={"shortest_edge": 36}, crop_size=SQUARE)
    clip_crop = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SQUARE)
    siglip = SiglipConfig(text_config=TEXT, vision_config={**TOWER, "image_size": 32})
    naflex = Siglip2Config(text_config=TEXT, vision_config={**TOWER, "num_patches": 16})
    clip = CLIPConfig(text_config=TEXT, vision_config={**TOWER, "image_size": 32})
    swin = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "window_size": 4}
    stages = {"depths": [1, 1], "num_heads": [1, 1]}
    convnext = {"depths": [1, 1], "hidden_sizes": [8, 16], "num_stages": 2}
    for name, model, processor in (
        ("dinov2", Dinov2Model(Dinov2Config(**dinov2)), crop),
        (
            "dinov2-registers",
            Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**dinov2, num_register_tokens=4)),
            crop,
        ),
        # The models of a fixed resolution are SigLIP's in transformers; NaFlex alone is Siglip2.
        ("siglip2", SiglipModel(siglip), SiglipImageProcessorPil(size=SQUARE)),
        ("naflex", Siglip2Model(naflex), Siglip2ImageProcessorPil(max_num_patches=16)),
        ("clip", CLIPModel(clip), clip_crop),
        (
            "convnext",
            ConvNextModel(ConvNextConfig(**convnext)),
            ConvNextImageProcessorPil(size={"shortest_edge": 32}),
        ),
        ("swin", SwinModel(SwinConfig(**swin, **stages)), ViTImageProcessorPil(size=SQUARE)),
    ):
        model.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    vit = {"depth": 2, "embed_dim": 32, "num_heads": 2, "reg_tokens": 1, "img_size": 64}
    swin = {"depths": (1, 1, 1, 1), "embed_dim": 4, "num_heads": (1, 1, 1, 1), "img_size": 64}
    for name, architecture, options in (
        ("timm-vit", "vit_tiny_patch16_224", vit),
        ("timm-resnet", "resnet18", {"channels": (8, 16, 32, 64)}),
        ("timm-swin", "swin_tiny_patch4_window7_224", {**swin, "window_size": 2}),
    ):
        size = {"input_size": (3, 64, 64)}
        network = timm.create_model(architecture, pretrained_cfg_overlay=size, **options)
        save_for_hf(network, root / name, safe_serialization=True)
    return root


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def load(models, name, **settings):
    return load_encoder(EncoderConfig(name=f"hf:{models / name}", **settings))


def encode(encoder, pixels_BCHW):
    return encoder.start(pixels_BCHW)()


def oracle(models, name):
    """The model's own last_hidden_state, as patches, of its own processor's pixels."""
    if name.startswith("timm-"):
        model = timm.create_model(f"local-dir:{models / name}", pretrained=True).eval()
        data = timm.data.resolve_data_config({}, model=model)
        transform = timm.data.create_transform(**data)

        def features(image):
            output = model.forward_features(transform(image)[None])
            if name == "timm-swin":  # (1, rows, columns, width)
                return output.reshape(1, -1, output.shape[-1])
            return output if output.ndim == 3 else output.flatten(2).transpose(1, 2)
    else:
        processor = AutoImageProcessor.from_pretrained(models / name, backend="pil")
        model = AutoModel.from_pretrained(models / name).eval()
        tower = getattr(model, "vision_model", model)

        def features(image):
            pixels = processor(images=image, return_tensors="pt")["pixel_values"]
            output = tower(pixel_values=pixels).last_hidden_state
            return output if output.ndim == 3 else output.flatten(2).transpose(1, 2)

    return torch.inference_mode()(features)


@pytest.mark.parametrize("name", EXPECTED)
def test_features_are_what_the_model_gives_for_its_own_processors_pixels(models, name):
    """Another layer, other pixels, or a map (batch, rows, columns, width) read as if its first
    axis were the width would show."""
    encoder = load(models, name)
    num_patches, feature_dim, grid, layer, processor = EXPECTED[name]
    expected = oracle(models, name)
    for size in ((50, 40), (31, 90)):
        image = noise(*size)
        features_BPD = encode(encoder, encoder.prepare(image)[None])
        assert features_BPD.shape == (1, num_patches, feature_dim)
        torch.testing.assert_close(features_BPD, expected(image), rtol=1e-4, atol=1e-5)
    described = encoder.describe()
    assert (described["num_patches"], described["feature_dim"]) == (num_patches, feature_dim)
    assert described["grid"] == grid
    assert described["layer"] == f"last_hidden_state of {layer}"
    assert described["encoder"] == f"hf:{name}"
    assert described["preprocessing"][1]["class"] == processor
    assert described["preprocessing"][1]["implementation"] == "pil"
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize("name", EXPECTED)
def test_a_batch_gives_what_single_pictures_give(models, name):
    encoder = load(models, name)
    pixels_BCHW = torch.stack([encoder.prepare(noise(90, 60, seed)) for seed in range(4)])
    singles = torch.cat([encode(encoder, pixels_BCHW[i : i + 1]) for i in range(4)])
    error = (encode(encoder, pixels_BCHW) - singles).norm() / singles.norm()
    assert error < 1e-4
    assert (singles[0] - singles[1]).norm() / singles[0].norm() > 1e-3


@pytest.mark.parametrize("name", ["dinov2-registers", "siglip2", "timm-vit", "timm-swin"])
def test_random_weights_are_drawn_from_the_folders_config(models, name):
    encoder = load(models, name, random_weights=3)
    assert (encoder.num_patches, encoder.feature_dim) == EXPECTED[name][:2]
    assert encode(encoder, encoder.prepare(noise(9, 9))[None]).isfinite().all()
    assert encoder.describe()["random_weights"] == 3


def test_loading_is_silent(models, caplog, capfd):
    """transformers reports the heads of timm's networks, which are not used, as a warning."""
    for name in ("siglip2", "timm-vit"):
        load(models, name)
    assert [record.getMessage() for record in caplog.records] == []
    assert capfd.readouterr().err == ""


def test_a_variable_number_of_patches_is_refused(models):
    """NaFlex's processor gives padded lists of patches, whose mask and shapes would be lost."""
    with pytest.raises(
        EncoderError, match=r"Siglip2ImageProcessorPil.*NaFlex.*siglip2-base-patch16-224"
    ):
        load(models, "naflex")


def test_another_resizer_than_the_processors_is_refused(models):
    """It would be ignored, and the features would claim pixels that they were not made of."""
    with pytest.raises(EncoderError, match="resize=torchvision has no meaning"):
        load(models, "dinov2", resize="torchvision")


def test_a_map_of_unknown_layout_is_refused(models, monkeypatch):
    """Two readings of its shape are possible, and the wrong one gives wrong patches."""
    forward = ConvNextModel.forward

    def crooked(self, pixel_values):
        output = forward(self, pixel_values)
        output.last_hidden_state = output.last_hidden_state[:, :, :3]
        return output

    monkeypatch.setattr(ConvNextModel, "forward", crooked)
    with pytest.raises(EncoderError, match=r"found \(1, 16, 3, 4\)"):
        load(models, "convnext")


@pytest.mark.parametrize("alpha", ["white", "drop"])
def test_the_description_says_what_became_of_alpha(models, alpha):
    steps = load(models, "dinov2", alpha=alpha).describe()["preprocessing"]
    assert steps[0] == describe_decoding(alpha)


def test_a_processor_without_pillow_is_recorded_and_named(models, monkeypatch, caplog):
    """Its pixels depend on torchvision and its version."""
    torchvision_backed = BitImageProcessorPil.from_pretrained(models / "dinov2")
    monkeypatch.setattr(type(torchvision_backed), "backend", "torchvision", raising=False)
    with caplog.at_level(logging.WARNING):
        encoder = load(models, "dinov2")
    assert "torchvision resizes its pictures" in caplog.text
    assert encoder.describe()["preprocessing"][1]["implementation"] == "torchvision"
    assert "torchvision" in encoder.describe()["versions"]


# The size of the input


def timm_processor(size, **settings):
    cfg = {"input_size": [3, *size], "interpolation": "bicubic", "crop_pct": 0.9, **settings}
    return TimmWrapperImageProcessor({**cfg, "mean": [0.5] * 3, "std": [0.5] * 3})


KNOWN = {
    "dinov2": lambda: BitImageProcessorPil(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}
    ),
    "siglip": lambda: SiglipImageProcessorPil(size={"height": 48, "width": 32}),
    "clip": CLIPImageProcessorPil,
    "clip of odd sides": lambda: CLIPImageProcessorPil(
        size={"shortest_edge": 31}, crop_size={"height": 47, "width": 33}
    ),
    "clip without crop": lambda: CLIPImageProcessorPil(
        size={"shortest_edge": 37}, do_center_crop=False
    ),
    "clip without resizing": lambda: CLIPImageProcessorPil(do_resize=False),
    "neither": lambda: CLIPImageProcessorPil(do_resize=False, do_center_crop=False),
    "convnext": lambda: ConvNextImageProcessorPil(size={"shortest_edge": 224}),
    "convnext 384": lambda: ConvNextImageProcessorPil(size={"shortest_edge": 384}),
    "convnext with crop": lambda: ConvNextImageProcessorPil(
        size={"shortest_edge": 50}, do_center_crop=True, crop_size={"height": 30, "width": 20}
    ),
    "vit": ViTImageProcessorPil,
    "longest edge": lambda: ViTImageProcessorPil(size={"shortest_edge": 40, "longest_edge": 66}),
    "max height": lambda: ViTImageProcessorPil(size={"max_height": 80, "max_width": 66}),
    "timm center": lambda: timm_processor((64, 64), crop_mode="center"),
    "timm squash": lambda: timm_processor((64, 48), crop_mode="squash"),
}
# Their own code decides.
UNKNOWN = {
    "beit": BeitImageProcessorPil,
    "timm border": lambda: timm_processor((64, 64), crop_mode="border"),
    "timm oblong": lambda: timm_processor((64, 48), crop_mode="center"),
    "padded": lambda: ViTImageProcessorPil(
        size={"shortest_edge": 20, "longest_edge": 30},
        do_pad=True,
        pad_size={"height": 32, "width": 40},
    ),
}
SIZES = [(w, h) for w in (9, 17, 64, 99, 224, 333) for h in (8, 16, 50, 100, 225, 400)]


@pytest.fixture
def calls(monkeypatch):
    """The image processors that were called, in order."""
    called = []
    inner = BaseImageProcessor.__call__

    def call(self, *args, **kwargs):
        called.append(self)
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(BaseImageProcessor, "__call__", call)
    return called


@pytest.mark.parametrize("name", [*KNOWN, *UNKNOWN])
def test_input_sizes_are_the_processors(name, calls):
    """Settings read in another way than the processor's code reads them would show; and calls for
    sizes that the settings tell: 200 ms for each picture of a camera."""
    processor = (KNOWN | UNKNOWN)[name]()
    expected = {
        size: tuple(
            processor(images=Image.new("RGB", size), return_tensors="pt")["pixel_values"].shape[2:]
        )
        for size in SIZES
    }
    calls.clear()
    preprocessing = ProcessorPreprocessing(processor)
    for _ in range(2):
        assert {size: preprocessing.output_size(*size) for size in SIZES} == expected
    # An unknown one measures a square, and each size once.
    assert len(calls) == (0 if name in KNOWN else 1 + len(SIZES))
    for size in SIZES[::7]:
        assert preprocessing.prepare(noise(*size)).shape[1:] == expected[size]


@pytest.mark.parametrize(
    ("make", "becomes"),
    [
        (CLIPImageProcessorPil, "becomes 13440000 x 224"),
        (KNOWN["dinov2"], "becomes 15360000 x 256"),
        (KNOWN["convnext"], "becomes 15360000 x 256"),
        (KNOWN["timm center"], "becomes 4260000 x 71"),
        (BeitImageProcessorPil, "may become 13440000 x 224"),
    ],
)
def test_a_narrow_picture_is_refused_before_it_is_resized(make, becomes, calls):
    """60,000 x 1 pixels would take gigabytes, in planning already."""
    preprocessing = ProcessorPreprocessing(make())
    height, width = preprocessing.output_size(60_000, 1)
    assert 1 <= height * width <= 60_000
    with pytest.raises(ImageError, match=f"60000 x 1 {becomes} for the model") as caught:
        preprocessing.prepare(Image.new("RGB", (60_000, 1)))
    assert caught.value.reason == "too_large"
    assert len(calls) <= 1  # a square, to know an unknown processor by


@pytest.mark.parametrize("name", ["longest edge", "glpn"])
def test_a_picture_that_the_processor_refuses_is_explained(name):
    """Pillow's ValueError would end the extraction, and a side of 0 its planning."""
    # rounding leaves nothing of a side; GLPN's own code rounds down to multiples of 32
    processor = GLPNImageProcessorPil() if name == "glpn" else KNOWN[name]()
    preprocessing = ProcessorPreprocessing(processor)
    assert min(preprocessing.output_size(500, 1)) >= 1
    with pytest.raises(ImageError, match="can't prepare a picture of 500 x 1 pixels") as caught:
        preprocessing.prepare(Image.new("RGB", (500, 1)))
    assert caught.value.reason == "unsupported"


def test_a_photograph_that_is_only_cropped_is_not_refused():
    """Catches the limit of what is resized applied to what is not: 25 million pixels are fine."""
    preprocessing = ProcessorPreprocessing(CLIPImageProcessorPil(do_resize=False))
    pixels_CHW = preprocessing.prepare(Image.new("RGB", (5000, 5000)))
    assert pixels_CHW.shape[1:] == preprocessing.output_size(5000, 5000) == (224, 224)
