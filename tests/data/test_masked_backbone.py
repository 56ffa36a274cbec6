"""Padded batches of DETR against single pictures through transformers' own model."""

import huggingface_hub.constants
import pytest
import torch
from detr_models import detr_config, pad, random_pictures, relative_error, save_detr
from torch import nn
from transformers import DetrConfig, DetrModel

from mmcot_data.encoders import EncoderConfig, load_encoder
from mmcot_data.encoders.masked_backbone import find_mixing_layers, padding_mask, zero_padding
from mmcot_data.errors import EncoderError

SIZES = [(64, 64), (64, 95), (33, 101), (61, 150), (96, 70), (64, 300), (40, 360)]
RESNET = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 16, 32, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage4"],
}
MODELS = {
    "plain": lambda: detr_config("resnet18"),
    "dc5": lambda: detr_config("resnet26", dc5=True),
    "transformers": lambda: DetrConfig(**{**detr_config().to_dict(), "backbone_config": RESNET}),
}


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield save_detr(tmp_path_factory.mktemp("detr"), MODELS[request.param]())


def load(folder, **settings):
    return load_encoder(EncoderConfig(name="detr", model=str(folder), **settings))


def normalized(encoder, pixels):
    step = encoder.describe()["preprocessing"][-1]
    mean, std = (torch.tensor(step[key])[:, None, None] for key in ("mean", "std"))
    return (pixels / 255 - mean) / std


def test_a_padded_batch_gives_what_single_pictures_give_and_pixel_mask_alone_does_not(folder):
    """The oracle is transformers' model on single pictures, its norms not folded.

    A mask that is off by one cell, is missing at one layer or lets the normalised padding
    (-mean / std) in would show; that the task is hard enough to show it, the second half proves.
    """
    encoder, oracle = load(folder), DetrModel.from_pretrained(folder).eval()
    pictures = random_pictures(SIZES)
    with torch.inference_mode():
        singles = torch.cat(
            [oracle(normalized(encoder, p)[None]).last_hidden_state for p in pictures]
        )
        padded = pad([normalized(encoder, p) for p in pictures])
        sizes = torch.tensor(SIZES)
        pixel_mask = ~padding_mask(sizes, padded.shape[2:], padded.shape[2:])
        with_mask_only = oracle(padded, pixel_mask=pixel_mask).last_hidden_state
    assert encoder.pads
    found = encoder.encode(pad(pictures), SIZES)
    assert relative_error(singles[1:], singles[:-1]) > 0.1, "pictures make no difference"
    errors = [relative_error(*pair) for pair in zip(found, singles, strict=True)]
    assert max(errors) < 1e-5
    assert relative_error(with_mask_only, singles) > 1e-3


def test_pictures_that_fill_their_batch_are_not_masked(folder):
    encoder = load(folder)
    pixels_BCHW = torch.stack(random_pictures([(64, 96)] * 3))
    singles = torch.cat([encoder.encode(pixels_BCHW[i : i + 1]) for i in range(3)])
    exact = encoder.encode(pixels_BCHW)
    assert relative_error(exact, singles) < 5e-6, "more than other kernels for other batch sizes"
    assert torch.equal(encoder.encode(pixels_BCHW, [(64, 96)] * 3), exact)


def test_masks_do_not_stay_for_the_next_batch(folder):
    encoder = load(folder)
    pixels_BCHW = torch.stack(random_pictures([(64, 96)] * 2))
    before = encoder.encode(pixels_BCHW)
    encoder.encode(pad(random_pictures([(64, 96), (32, 40)])), [(64, 96), (32, 40)])
    assert torch.equal(encoder.encode(pixels_BCHW), before)


def test_bf16_pads_too(folder):
    encoder = load(folder, precision="bf16")
    pictures = random_pictures(SIZES)
    singles = torch.cat([encoder.encode(p[None]) for p in pictures])
    assert relative_error(encoder.encode(pad(pictures), SIZES), singles) < 2e-2


def test_infinite_padding_is_zeroed():
    """A product with the mask would make NaN of it."""
    layer = nn.Conv2d(1, 1, 3, padding=1)
    single = torch.rand(1, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    padded = torch.full((1, 1, 32, 32), torch.inf)
    padded[:, :, :20, :24] = single
    with torch.no_grad(), zero_padding([layer], torch.tensor([[20, 24]]), (32, 32)):
        found = layer(padded)
    with torch.no_grad():
        torch.testing.assert_close(found[:, :, :20, :24], layer(single))


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
def test_cells_of_a_picture_are_as_many_as_its_own_map_has(stride):
    """ceil(side / stride), which halving layers give; rounding down would cut the last cell off."""
    for side in range(1, 65):
        mask = padding_mask(torch.tensor([[side, 64]]), (64, 64), (64 // stride, 64 // stride))
        assert (~mask[0, :, 0]).sum() == -(-side // stride)


@pytest.mark.parametrize(
    "layer",
    [
        nn.AvgPool2d(2),
        nn.Conv2d(1, 1, 2),
        nn.Conv2d(1, 1, 3),
        nn.Conv2d(1, 1, 3, stride=3, padding=1),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.InstanceNorm2d(1),
        nn.GELU(),
    ],
)
def test_layers_whose_masking_is_not_known_to_be_exact_are_refused(layer):
    known = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    assert find_mixing_layers(known) == [known[0], known[2]]
    assert find_mixing_layers(nn.Sequential(known, layer)) is None


def test_a_backbone_that_averages_over_windows_does_not_pad(tmp_path):
    """timm's ResNet-D: its shortcuts average, which at an odd border depends on what is beyond."""
    encoder = load(save_detr(tmp_path, detr_config("resnet10t")))
    assert not encoder.pads
    with pytest.raises(EncoderError, match=r"takes no padded pictures.*of equal size"):
        encoder.encode(pad(random_pictures([(64, 64), (32, 32)])), [(64, 64), (32, 32)])


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((2, 3, 64, 64), [(64, 64)]),
        ((2, 3, 64, 64), [(64, 64), (65, 64)]),
        ((2, 3, 64, 64), [(64, 64), (0, 64)]),
        ((2, 3, 64, 70), [(64, 70), (64, 64)]),
    ],
)
def test_wrong_padding_is_refused(folder, shape, sizes):
    with pytest.raises(EncoderError, match="multiples of 32"):
        load(folder).encode(torch.zeros(shape, dtype=torch.uint8), sizes)
