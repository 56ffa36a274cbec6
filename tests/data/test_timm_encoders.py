"""clip-rn101 and resnet against torchvision and a plain ModifiedResNet; no network."""

import json
import shutil
import sys

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import get_pretrained_cfg, save_for_hf
from torch.nn import functional
from torchvision import transforms
from transformers import ViTConfig, ViTModel

from mmcot_data.encoders import ENCODERS, EncoderConfig, load_encoder
from mmcot_data.encoders.preprocessing import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from mmcot_data.encoders.pretrained import find_source
from mmcot_data.encoders.timm_models import load_network
from mmcot_data.errors import EncoderError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ["clip-rn101", "resnet"]
DEPTHS = (3, 4, 23, 3)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def draw_norms(network):
    """Norms as training leaves them; fresh ones would hide a norm that is left out."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1)
            torch.nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(1, 3)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders as timm's save_for_hf writes them: RN101 with thin layers, and two ResNets."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    clip = {"width_factor": 0.125, "stem_chs": (8, 8, 8)}
    resnet = {"channels": (8, 16, 32, 64), "pretrained_cfg": "tv_in1k"}
    for folder, name, options in (
        ("clip-rn101", "resnet101_clip", clip),
        ("clip-rn101-gap", "resnet101_clip_gap", clip),
        ("resnet", "resnet50", resnet),
        ("resnet-a1", "resnet50", {**resnet, "pretrained_cfg": "a1_in1k"}),
        ("resnet18", "resnet18", {"pretrained_cfg": "tv_in1k"}),
        ("convnext", "convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}),
    ):
        is_resnet = folder != "convnext"
        options |= {"zero_init_last": False} if is_resnet else {}
        network = timm.create_model(name, **options)
        draw_norms(network)
        save_for_hf(network, root / folder, safe_serialization=True)
    return root


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def load(models, folder, name=None, **settings):
    config = EncoderConfig(name=name or folder, model=str(models / folder), **settings)
    return load_encoder(config)


def encode(encoder, pixels_BCHW):
    return encoder.start(pixels_BCHW)()


def change(folder, **settings):
    """Change pretrained_cfg in a folder's config.json."""
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= settings
    (folder / "config.json").write_text(json.dumps(config))


def modified_resnet(weights, pixels_BCHW):
    """CLIP's ResNet up to its attention pooling, as the paper and OpenAI's code describe it.

    It has a stem of three convolutions, and averages where ResNet strides.
    """

    def conv_norm(x, name, **options):
        x = functional.conv2d(x, weights[f"{name}.conv.weight"], **options)
        norm = [weights[f"{name}.bn.{key}"] for key in ("running_mean", "running_var")]
        norm += [weights[f"{name}.bn.{key}"] for key in ("weight", "bias")]
        return functional.batch_norm(x, *norm)

    x = pixels_BCHW
    for number, stride in ((1, 2), (2, 1), (3, 1)):
        x = functional.relu(conv_norm(x, f"stem.conv{number}", stride=stride, padding=1))
    x = functional.avg_pool2d(x, 2)
    for stage, depth in enumerate(DEPTHS):
        for block in range(depth):
            name = f"stages.{stage}.{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            y = functional.relu(conv_norm(x, f"{name}.conv1_1x1"))
            y = functional.relu(conv_norm(y, f"{name}.conv2_kxk", padding=1))
            y = conv_norm(functional.avg_pool2d(y, stride), f"{name}.conv3_1x1")
            if block == 0:
                x = conv_norm(functional.avg_pool2d(x, stride), f"{name}.shortcut.conv")
            x = functional.relu(x + y)
    return x


@pytest.mark.parametrize("folder", ["clip-rn101", "clip-rn101-gap"])
def test_clip_rn101_gives_the_map_before_the_attention_pooling(models, folder):
    """Another stage, a map read column by column, a pooled one or other pixels would show."""
    encoder = load(models, folder, "clip-rn101")
    image = noise(449, 323)  # the crop's margin is odd: torchvision and transformers differ
    transform = transforms.Compose(
        [
            transforms.Resize(224, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )
    with torch.inference_mode():
        weights = load_file(models / folder / "model.safetensors")
        map_BDhw = modified_resnet(weights, transform(image)[None])
    features_BPD = encode(encoder, encoder.prepare(image)[None])
    assert features_BPD.shape == (1, 49, 256)
    expected = map_BDhw.permute(0, 2, 3, 1).reshape(1, 49, 256)
    torch.testing.assert_close(features_BPD, expected, rtol=1e-4, atol=1e-4)
    assert encoder.describe()["grid"] == [7, 7]
    assert encoder.describe()["layer"] == ENCODERS["clip-rn101"].layer


def test_resnet_gives_what_torchvision_pools(models):
    """The same weights in torchvision's network, behind torchvision's own transform."""
    encoder = load(models, "resnet18", "resnet")
    oracle = torchvision.models.resnet18().eval()
    oracle.load_state_dict(load_file(models / "resnet18" / "model.safetensors"))
    oracle.fc = torch.nn.Identity()
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    for size in ((300, 250), (449, 323)):
        image = noise(*size)
        with torch.inference_mode():
            expected = oracle(transform(image)[None])[:, None]
        features_BPD = encode(encoder, encoder.prepare(image)[None])
        assert features_BPD.shape == (1, 1, 512)
        torch.testing.assert_close(features_BPD, expected, rtol=1e-4, atol=1e-5)
    assert encoder.describe()["grid"] == [1, 1]
    assert encoder.describe()["layer"] == ENCODERS["resnet"].layer


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_single_pictures_give(models, name):
    encoder = load(models, name)
    pixels_BCHW = torch.stack([encoder.prepare(noise(240, 230, seed)) for seed in range(4)])
    singles = torch.cat([encode(encoder, pixels_BCHW[i : i + 1]) for i in range(4)])
    error = (encode(encoder, pixels_BCHW) - singles).norm() / singles.norm()
    assert error < 1e-4


@pytest.mark.parametrize("size", [(300, 250), (449, 323), (100, 400)])
def test_native_preprocessing_of_resnet_is_timms(models, size):
    """timm rounds the shorter side down and the crop's margin to even."""
    encoder = load(models, "resnet-a1", "resnet", preprocessing="native")
    cfg = json.loads((models / "resnet-a1" / "config.json").read_text())["pretrained_cfg"]
    assert cfg["crop_pct"] == 0.95, "the model's own: not torchvision's 0.875"
    data = timm.data.resolve_data_config({}, pretrained_cfg=cfg)
    transform = timm.data.create_transform(**data)
    image = noise(*size)
    with torch.inference_mode():
        oracle = timm.create_model(f"local-dir:{models / 'resnet-a1'}", pretrained=True).eval()
        expected = oracle.forward_features(transform(image)[None]).mean((2, 3))[:, None]
    features_BPD = encode(encoder, encoder.prepare(image)[None])
    torch.testing.assert_close(features_BPD, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("clip-rn101", {"mean": [0.5, 0.5, 0.5]}, "mean is .*`--encoder hf:"),
        (
            "clip-rn101",
            {"interpolation": "bilinear"},
            "interpolation is bilinear, expected bicubic",
        ),
        ("clip-rn101", {"input_size": [3, 288, 288]}, "input_size is"),
        ("resnet", {"std": [1, 1, 1]}, "std is .*`--preprocessing native`"),
        ("resnet", {"crop_pct": 0.95}, r"crop_pct is 0\.95, expected 0\.875"),
        ("resnet", {"crop_mode": "squash"}, "crop_mode is squash, expected center"),
    ],
)
def test_a_network_trained_with_another_preprocessing_is_refused(
    models, tmp_path, name, changes, message
):
    shutil.copytree(models / name, tmp_path / name)
    change(tmp_path / name, **changes)
    with pytest.raises(EncoderError, match=message):
        load(tmp_path, name)


@pytest.mark.parametrize(
    "changes",
    [{"crop_mode": "squash"}, {"input_size": [3, 224, 288]}, {"interpolation": "lanczos"}],
)
def test_native_preprocessing_that_resnet_lacks_is_explained(models, tmp_path, changes):
    """Taken for a centre crop of a square, it would give features of other pixels."""
    shutil.copytree(models / "resnet", tmp_path / "resnet")
    change(tmp_path / "resnet", **changes)
    with pytest.raises(EncoderError, match="expected a square input_size of 3 channels"):
        load(tmp_path, "resnet", preprocessing="native")


@pytest.mark.parametrize(
    ("name", "tag", "mean", "std"),
    [
        ("clip-rn101", "resnet101_clip.openai", CLIP_MEAN, CLIP_STD),
        ("resnet", "resnet50.tv_in1k", IMAGENET_MEAN, IMAGENET_STD),
    ],
)
def test_the_default_model_is_one_that_timm_publishes(models, tmp_path, name, tag, mean, std):
    """Its published settings pass the check; a wrong tag or recipe would be refused only online."""
    published = get_pretrained_cfg(tag)
    assert published.hf_hub_id == ENCODERS[name].model_id
    assert (published.mean, published.std) == (mean, std)
    shutil.copytree(models / name, tmp_path / name)
    keys = ("mean", "std", "input_size", "interpolation", "crop_pct", "crop_mode")
    change(tmp_path / name, **{key: getattr(published, key) for key in keys})
    load(tmp_path, name)


def test_settings_without_a_level_of_their_own_are_read(models, tmp_path):
    """As older repositories of timm have them."""
    shutil.copytree(models / "resnet", tmp_path / "resnet")
    path = tmp_path / "resnet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config.pop("pretrained_cfg"), **config, "crop_pct": 0.5}))
    with pytest.raises(EncoderError, match=r"crop_pct is 0\.5"):
        load(tmp_path, "resnet")


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_that_count_are_those_of_the_features(models, tmp_path, name):
    """Another head is the same encoder; another convolution is not."""
    first = load(models, name).describe()
    assert json.loads(json.dumps(first)) == first
    folder = tmp_path / "elsewhere" / name
    shutil.copytree(models / name, folder)
    weights = load_file(folder / "model.safetensors")
    head = next(key for key in weights if key.startswith(("head.", "fc.")))
    weights[head] += 1
    save_file(weights, folder / "model.safetensors")
    assert load(folder.parent, name).describe() == first
    last = next(key for key in reversed(weights) if key.startswith(("stages.3", "layer4")))
    weights[last] += 1
    save_file(weights, folder / "model.safetensors")
    other = load(folder.parent, name).describe()
    assert {key for key in first if first[key] != other[key]} == {"weights_sha256"}


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_do_not_fit_are_refused(models, tmp_path, name):
    """A missing one would stay as it was drawn."""
    shutil.copytree(models / name, tmp_path / name)
    path = tmp_path / name / "model.safetensors"
    weights = load_file(path)
    last = next(key for key in reversed(weights) if key.startswith(("stages.3", "layer4")))
    tensor = weights.pop(last)
    save_file(weights, path)
    with pytest.raises(EncoderError, match=rf"its weights in the folder.*{last}.*save_for_hf"):
        load(tmp_path, name)
    save_file({**weights, last: torch.zeros(*tensor.shape, 2)}, path)
    with pytest.raises(EncoderError, match="size mismatch"):
        load(tmp_path, name)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="looked for its weights in the folder"):
        load(tmp_path, name)
    path.unlink()
    with pytest.raises(EncoderError, match="looked for its weights in the folder"):
        load(tmp_path, name)


@pytest.mark.parametrize(
    ("name", "folder", "message"),
    [
        ("clip-rn101", "resnet", "timm's resnet50, expected timm's resnet101_clip or"),
        ("resnet", "clip-rn101", "timm's resnet101_clip, expected timm's resnet18 or"),
        ("resnet", "convnext", "timm's convnext_atto, expected .*`--encoder hf:"),
    ],
)
def test_a_network_of_another_architecture_is_refused(models, name, folder, message):
    with pytest.raises(EncoderError, match=message):
        load(models, folder, name)


def test_a_model_of_transformers_is_refused(tmp_path):
    small = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=32)
    ViTModel(small).save_pretrained(tmp_path / "vit")
    with pytest.raises(EncoderError, match="is a 'vit', expected timm's resnet18"):
        load(tmp_path, "vit", "resnet")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"timm/resnet\S+ cannot be loaded: looked for config.json in the hub.*--random-we"),
        ({"model": "someone/nothing"}, "someone/nothing cannot be loaded"),
        ({"model": "someone/nothing", "random_weights": 0}, "someone/nothing cannot be loaded"),
        ({"model": "/nowhere/resnet"}, "folder /nowhere/resnet does not exist"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_loaded_is_explained(name, settings, message):
    with pytest.raises(EncoderError, match=message):
        load_encoder(EncoderConfig(name=name, **settings))


def test_an_empty_folder_is_explained(tmp_path):
    with pytest.raises(EncoderError, match=r"config\.json in the folder.*timm's save_for_hf"):
        load(tmp_path.parent, tmp_path.name, "resnet")


def test_a_missing_package_is_named(monkeypatch):
    for name in ("mmcot_data.encoders.clip_rn101", "mmcot_data.encoders.timm_models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EncoderError, match=r"clip-rn101 needs the package timm: pip install"):
        load_encoder(EncoderConfig(name="clip-rn101"))


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_hub_id_loads_from_the_local_cache_and_its_commit_is_recorded(models, tmp_path, revision):
    cached = tmp_path / "hub" / "models--someone--thin-resnet"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    shutil.copytree(models / "resnet", cached / "snapshots" / COMMIT)
    config = EncoderConfig(name="resnet", model="someone/thin-resnet", revision=revision)
    described, of_folder = load_encoder(config).describe(), load(models, "resnet").describe()
    assert (described["model_id"], described["revision"]) == ("someone/thin-resnet", COMMIT)
    assert described["weights_sha256"] == of_folder["weights_sha256"]
    assert (of_folder["model_id"], of_folder["revision"]) == ("resnet", None)


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_follow_from_their_seed_alone(models, name):
    def drawn(seed):
        return load(models, name, random_weights=seed).describe()

    torch.manual_seed(1)
    first, state = drawn(5), torch.get_rng_state()
    torch.rand(3)
    assert drawn(5) == first
    assert drawn(6)["weights_sha256"] != first["weights_sha256"]
    assert first["random_weights"] == 5
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "the process's generator was used"


@pytest.mark.parametrize("name", NAMES)
def test_random_features_depend_on_the_picture(name):
    """timm's own initialisation gives CLIP's ResNet features above 1e4, of untouched shortcuts."""
    encoder = load_encoder(EncoderConfig(name=name, random_weights=0))
    facts = ENCODERS[name]
    flat = np.full((250, 300, 3), 255, np.uint8)
    flat[50:120, 80:200] = (200, 30, 30)
    twice = flat.copy()
    twice[150:200, 150:250] = (0, 0, 220)
    images = [noise(300, 250), Image.fromarray(flat), Image.fromarray(twice)]
    features_BPD = encode(encoder, torch.stack([encoder.prepare(image) for image in images]))
    assert features_BPD.shape == (3, facts.num_patches, facts.feature_dim)
    assert features_BPD.isfinite().all()
    assert 0.1 < features_BPD.std() < 100
    for first, second in ((0, 1), (1, 2)):
        difference = (features_BPD[first] - features_BPD[second]).norm()
        assert difference / features_BPD[second].norm() > 0.01
    described = encoder.describe()
    assert described["model_id"] == facts.model_id
    assert described["random_weights"] == 0


def test_no_drawn_block_is_idle():
    """timm starts the last norm of each block at zero: then most random weights do nothing."""
    config = EncoderConfig(name="resnet", random_weights=0)
    network = load_network(config, find_source(config, "any"), "resnet18", lambda net: net).module
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == 20
    for norm in norms:
        assert norm.weight.all()
        exponents = norm.running_var.log2()
        assert torch.equal(exponents, exponents.round()), "rounding could change it"


def test_alpha_and_resizer_reach_the_preprocessing(models):
    for name in NAMES:
        described = load(models, name, resize="torchvision", alpha="drop").describe()
        decode, resize = described["preprocessing"][:2]
        assert "dropped" in decode["alpha"]
        assert resize["implementation"] == "torchvision"
