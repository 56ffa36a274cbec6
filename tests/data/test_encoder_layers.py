"""Each encoder gives the layer that it says, and no other.

Every block of an independently loaded model is hooked, so that a wrong one is named: another tool
saved its first block's features as the last one's for years.
"""

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf
from transformers import (
    BitImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    DetrConfig,
    DetrModel,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)

from mmcot_data.encoders import EncoderConfig, load_encoder
from mmcot_data.encoders.tiny import TinyViT

NUM_BLOCKS = 3
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": NUM_BLOCKS,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
DETR = {
    "backbone": "resnet10t",
    "use_timm_backbone": True,
    "use_pretrained_backbone": False,
    "backbone_config": None,
    "num_queries": 7,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": NUM_BLOCKS,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
THIN = {"width_factor": 0.125, "stem_chs": (8, 8, 8), "zero_init_last": False}
# Name: the modules that are hooked, by the end of their names, and the one that is right.
LAYERS = {
    "clip": (("layers.0", "layers.1", "layers.2", "post_layernorm"), "layers.2"),
    "vit": (("layers.0", "layers.1", "layers.2", "layernorm"), "layernorm"),
    "detr": (
        ("decoder.layers.0", "decoder.layers.1", "decoder.layers.2", "decoder.layernorm"),
        "decoder.layernorm",
    ),
    "tiny": (("layers.0", "layers.1", "norm"), "norm"),
    "clip-rn101": (("stages.2.22", "stages.3.0", "stages.3.1", "stages.3.2"), "stages.3.2"),
    "resnet": (("layer3.5", "layer4.0", "layer4.1", "layer4.2"), "layer4.2"),
    "hf:dinov2": (("layer.0", "layer.1", "layer.2", "layernorm"), "layernorm"),
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Small models, whose layer norms differ as trained ones do."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, model in (
        ("clip", CLIPVisionModel(CLIPVisionConfig(**SMALL, intermediate_size=64))),
        ("vit", ViTModel(ViTConfig(**SMALL, intermediate_size=64), add_pooling_layer=False)),
        ("detr", DetrModel(DetrConfig(**DETR))),
        ("dinov2", Dinov2Model(Dinov2Config(**SMALL))),
    ):
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                torch.nn.init.uniform_(module.weight, 0.5, 2)
        model.save_pretrained(root / name)
    crop = {"height": 32, "width": 32}
    BitImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop).save_pretrained(
        root / "dinov2"
    )
    for name, network in (
        ("clip-rn101", timm.create_model("resnet101_clip", **THIN)),
        ("resnet", timm.create_model("resnet50", channels=(8, 16, 32, 64), zero_init_last=False)),
    ):
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(2)
        save_for_hf(network, root / name, safe_serialization=True)
    return root


def load(models, name):
    if name.startswith("hf:"):
        return load_encoder(EncoderConfig(name=f"hf:{models / 'dinov2'}"))
    settings = {} if name == "tiny" else {"model": str(models / name)}
    if name == "resnet":
        settings["preprocessing"] = "native"
    return load_encoder(EncoderConfig(name=name, **settings))


def load_oracle(models, name):
    folder = models / name.removeprefix("hf:")
    if name == "tiny":
        return TinyViT()
    if name in ("clip-rn101", "resnet"):
        return timm.create_model(f"local-dir:{folder}", pretrained=True)
    classes = {"clip": CLIPVisionModel, "vit": ViTModel, "detr": DetrModel}
    options = {"add_pooling_layer": False} if name == "vit" else {}
    return classes.get(name, Dinov2Model).from_pretrained(folder, **options)


def hooked_outputs(model, endings, pixels_BCHW):
    """What each of the named modules gives, by its ending."""
    outputs, found = {}, []
    for name, module in model.named_modules():
        for ending in endings:
            if name == ending or name.endswith(f".{ending}"):
                found.append(ending)

                def keep(module, inputs, output, ending=ending):
                    outputs[ending] = output[0] if isinstance(output, tuple) else output

                module.register_forward_hook(keep)
    assert sorted(found) == sorted(endings)
    with torch.inference_mode():
        model.eval()(pixels_BCHW)
    return outputs


def as_features(output, name):
    if output.ndim == 4 and name == "resnet":
        return output.mean((2, 3))[:, None]
    return output.flatten(2).transpose(1, 2) if output.ndim == 4 else output


def pixels_for(encoder, image):
    """Prepared, and normalised here from what the description says."""
    prepared_BCHW = encoder.prepare(image)[None]
    last = encoder.describe()["preprocessing"][-1]
    if last["step"] == "processor":
        return prepared_BCHW, prepared_BCHW
    mean, std = (torch.tensor(last[key])[:, None, None] for key in ("mean", "std"))
    return prepared_BCHW, (prepared_BCHW / 255 - mean) / std


def matching_layers(features_BPD, outputs, name):
    """The hooked modules whose output the features are, to 1e-4."""
    names = []
    for layer, output in outputs.items():
        candidate = as_features(output, name)
        if candidate.shape == features_BPD.shape:
            error = (features_BPD - candidate).norm() / candidate.norm()
            names += [layer] if error < 1e-4 else []
    return names


@pytest.mark.parametrize("name", LAYERS)
def test_features_are_those_of_the_right_layer(models, name):
    """The assertion shows the name of the block whose output the features are instead."""
    encoder, oracle = load(models, name), load_oracle(models, name)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8))
    prepared_BCHW, pixels_BCHW = pixels_for(encoder, image)
    endings, right = LAYERS[name]
    outputs = hooked_outputs(oracle, endings, pixels_BCHW)
    features_BPD = encoder.start(prepared_BCHW)()
    assert matching_layers(features_BPD, outputs, name) == [right]


@pytest.mark.parametrize("name", LAYERS)
def test_a_wrong_layer_would_be_named(models, name):
    """Blocks must differ, or the test above proves nothing."""
    oracle = load_oracle(models, name)
    size = {"tiny": 112, "clip-rn101": 224, "resnet": 96, "detr": 96}.get(name, 32)
    pixels_BCHW = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    endings, _ = LAYERS[name]
    outputs = hooked_outputs(oracle, endings, pixels_BCHW)
    for layer in endings:
        if outputs[layer].ndim > 2:  # CLIP's last norm sees the class token alone
            assert matching_layers(as_features(outputs[layer], name), outputs, name) == [layer]
