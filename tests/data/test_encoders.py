"""Encoders against direct calls of transformers, on small models made here; no network."""

import json
import shutil
import sys

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionModel,
    DetrConfig,
    DetrForObjectDetection,
    DetrModel,
    ResNetConfig,
    ResNetModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTModel,
)

from mmcot_data.encoders import ENCODERS, EncoderConfig, clip, detr, load_encoder, tiny, vit
from mmcot_data.encoders.weights import weights_sha256
from mmcot_data.errors import EncoderError

TINY_SHA256 = "fb417f2ad3c593aa53605c12ab2167988ad95878efddccd5e439a9836fc378c6"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
# As the configuration of facebook/detr-resnet-101-dc5 is written on the hub.
SMALL_DETR = {
    "backbone": "resnet10t",
    "use_timm_backbone": True,
    "use_pretrained_backbone": True,
    "backbone_config": None,
    "dilation": True,
    "num_queries": 7,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders as save_pretrained writes them: whole task models, as on the hub."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    DetrForObjectDetection(DetrConfig(**SMALL_DETR)).save_pretrained(root / "detr")
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "vocab_size": 20, "eos_token_id": 2, "bos_token_id": 1}
    whole_clip = CLIPModel(CLIPConfig(text_config=text, vision_config=SMALL))
    whole_clip.save_pretrained(root / "clip")
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**sizes).save_pretrained(root / "clip")
    ViTForImageClassification(ViTConfig(**SMALL)).save_pretrained(root / "vit")
    square = {"height": 32, "width": 32}
    ViTImageProcessorPil(size=square).save_pretrained(root / "vit")
    ResNetModel(
        ResNetConfig(depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8, layer_type="basic")
    ).save_pretrained(root / "resnet")
    ViTImageProcessorPil(size=square).save_pretrained(root / "resnet")
    SiglipVisionModel(SiglipVisionConfig(**SMALL)).save_pretrained(root / "siglip")
    ViTImageProcessorPil(size=square).save_pretrained(root / "siglip")
    return root


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def load(models, name, **settings):
    return load_encoder(EncoderConfig(name=name, model=str(models / name), **settings))


ORACLES = {"detr": DetrModel, "clip": CLIPVisionModel, "vit": ViTModel}
SHAPES = {"detr": (7, 32), "clip": (17, 32), "vit": (17, 32)}


@pytest.mark.parametrize("name", ORACLES)
def test_features_are_the_last_hidden_state_of_the_model_in_the_folder(models, name):
    """Another layer, unloaded weights, dropout or pixels normalised twice would show."""
    encoder = load(models, name)
    pixels_BCHW = torch.stack([encoder.prepare(noise(50, 40, seed)) for seed in range(3)])
    options = {"add_pooling_layer": False} if name == "vit" else {}
    oracle = ORACLES[name].from_pretrained(models / name, **options).eval()
    mean, std = (
        torch.tensor(encoder.describe()["preprocessing"][-1][key])[:, None, None]
        for key in ("mean", "std")
    )
    with torch.inference_mode():
        expected = oracle(pixel_values=(pixels_BCHW / 255 - mean) / std).last_hidden_state
    features_BPD = encoder.encode(pixels_BCHW)
    torch.testing.assert_close(features_BPD, expected, rtol=1e-4, atol=1e-5)
    assert (encoder.num_patches, encoder.feature_dim) == SHAPES[name]
    assert features_BPD.dtype == torch.float32


@pytest.mark.parametrize("name", [*ORACLES, "tiny"])
def test_a_batch_gives_what_single_pictures_give(models, name):
    model = None if name == "tiny" else str(models / name)
    encoder = load_encoder(EncoderConfig(name=name, model=model))
    pixels_BCHW = torch.stack([encoder.prepare(noise(90, 60, seed)) for seed in range(4)])
    singles = torch.cat([encoder.encode(pixels_BCHW[i : i + 1]) for i in range(4)])
    error = (encoder.encode(pixels_BCHW) - singles).norm() / singles.norm()
    assert error < 1e-4
    assert (singles[0] - singles[1]).norm() / singles[0].norm() > 1e-3, (
        "pictures make no difference"
    )


def test_detr_takes_pictures_of_any_size_and_says_which(models):
    encoder = load(models, "detr")
    assert encoder.input_size(300, 100) == (224, 672)
    assert encoder.prepare(noise(300, 100)).shape == (3, 224, 672)
    native = load(models, "detr", preprocessing="native")
    assert native.input_size(300, 100) == (444, 1333)
    assert native.describe()["preprocessing"] != encoder.describe()["preprocessing"]


def test_the_description_tells_weights_apart_but_not_places(models, tmp_path):
    """A path in the description would make moved models count as other ones."""
    first = load(models, "vit").describe()
    shutil.copytree(models / "vit", tmp_path / "elsewhere" / "vit")
    assert load(tmp_path / "elsewhere", "vit").describe() == first
    assert json.loads(json.dumps(first)) == first
    weights = load_file(models / "vit" / "model.safetensors")
    weights["vit.layernorm.bias"][0] += 1e-6
    save_file(weights, tmp_path / "elsewhere/vit/model.safetensors", metadata={"format": "pt"})
    other = load(tmp_path / "elsewhere", "vit").describe()
    changed = {key for key in first if first[key] != other[key]}
    assert changed == {"weights_sha256"}


def test_loading_is_silent(models, caplog, capfd):
    """transformers reports the weights of the heads that are not used as a warning."""
    load(models, "detr")
    assert [record.getMessage() for record in caplog.records] == []
    assert capfd.readouterr().err == ""


def test_weights_sha256_sees_names_shapes_dtypes_and_values():
    def digest(**tensors):
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights_sha256(module)

    zeros = torch.zeros(2, 3)
    digests = {
        digest(a=zeros),
        digest(b=zeros),
        digest(a=zeros.T),
        digest(a=zeros.half()),
        digest(a=zeros + 1),
        digest(a=torch.tensor(0)),
        digest(a=zeros, b=zeros),
    }
    assert len(digests) == 7
    assert digest(a=zeros, b=zeros + 1) == digest(b=zeros + 1, a=zeros)


def test_a_folder_that_lacks_a_weight_is_refused(models, tmp_path):
    """transformers would draw the missing weight at random and only log it."""
    shutil.copytree(models / "vit", tmp_path / "vit")
    weights = load_file(models / "vit" / "model.safetensors")
    del weights["vit.layernorm.bias"]
    save_file(weights, tmp_path / "vit" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"lacks 1 weights of ViTModel, layernorm\.bias"):
        load(tmp_path, "vit")


@pytest.mark.parametrize("hidden_size", [16, 64])
def test_weights_of_another_shape_are_refused(models, tmp_path, hidden_size):
    shutil.copytree(models / "vit", tmp_path / "vit")
    path = tmp_path / "vit" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": hidden_size}))
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load(tmp_path, "vit")


def test_a_damaged_weights_file_is_refused(models, tmp_path):
    shutil.copytree(models / "vit", tmp_path / "vit")
    path = tmp_path / "vit" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        EncoderError, match=r"looked for its weights in the folder.*save_pretrained"
    ):
        load(tmp_path, "vit")


def test_a_model_of_another_architecture_is_refused(models):
    settings = EncoderConfig(name="detr", model=str(models / "clip"))
    with pytest.raises(EncoderError, match="type 'clip', expected detr"):
        load_encoder(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "blip"}, f"no encoder 'blip'; expected {', '.join(ENCODERS)} or hf:"),
        ({"name": "hf:"}, "no encoder 'hf:'"),
        ({"name": "clip", "model": "/nowhere/clip"}, "folder /nowhere/clip does not exist"),
        ({"name": "clip", "model": "./nowhere"}, r"folder \./nowhere does not exist"),
        ({"name": "clip"}, "openai/clip-vit-base-patch32 cannot be loaded.*--random-weights SEED"),
        ({"name": "hf:nobody/nothing"}, "nobody/nothing cannot be loaded: looked for config.json"),
        ({"name": "tiny", "model": "x"}, "draws its weights"),
        ({"name": "tiny", "device": "warp"}, "the device 'warp' cannot be used"),
    ],
)
def test_what_cannot_be_loaded_is_explained(settings, message):
    with pytest.raises(EncoderError, match=message):
        load_encoder(EncoderConfig(**settings))


def test_a_folder_has_no_revision(models):
    with pytest.raises(EncoderError, match="revision 'main' has no meaning"):
        load(models, "vit", revision="main")


def test_a_missing_package_is_named(monkeypatch):
    for name in ("mmcot_data.encoders.vit", "mmcot_data.encoders.pretrained"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(EncoderError, match=r"package safetensors: pip install 'mmcot\[extract\]'"):
        load_encoder(EncoderConfig(name="vit"))


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_hub_id_loads_from_the_local_cache_and_its_commit_is_recorded(models, tmp_path, revision):
    cached = tmp_path / "hub" / "models--someone--small-vit"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    shutil.copytree(models / "vit", cached / "snapshots" / COMMIT)
    config = EncoderConfig(name="vit", model="someone/small-vit", revision=revision)
    encoder = load_encoder(config)
    described, of_folder = encoder.describe(), load(models, "vit").describe()
    assert (described["model_id"], described["revision"]) == ("someone/small-vit", COMMIT)
    assert described["weights_sha256"] == of_folder["weights_sha256"]
    assert of_folder["revision"] is None


@pytest.mark.parametrize("name", ["detr", "clip", "vit", "tiny"])
def test_random_weights_follow_from_their_seed_alone(models, name):
    """A draw from the process's generator would change with whatever ran before."""
    model = None if name == "tiny" else str(models / name)

    def drawn(seed):
        config = EncoderConfig(name=name, model=model, random_weights=seed)
        return load_encoder(config).describe()

    torch.manual_seed(1)
    first, state = drawn(5), torch.get_rng_state()
    torch.rand(3)
    assert drawn(5) == first
    assert drawn(6)["weights_sha256"] != first["weights_sha256"]
    assert first["random_weights"] == 5
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "the process's generator was used"


def test_random_detr_tells_pictures_and_queries_apart():
    """With transformers' own initialisation all queries give the same feature."""
    encoder = load_encoder(EncoderConfig(name="detr", random_weights=0))
    assert (encoder.num_patches, encoder.feature_dim) == (100, 256)
    flat = np.full((96, 96, 3), 255, np.uint8)
    flat[20:50, 30:80] = (200, 30, 30)
    pixels_BCHW = torch.stack(
        [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in (noise(96, 96), flat)]
    )
    features_BPD = encoder.encode(pixels_BCHW)
    assert features_BPD.shape == (2, 100, 256)
    assert features_BPD.isfinite().all()
    assert features_BPD.std(0).mean() > 0.05
    assert features_BPD.std(1).mean() > 0.05
    assert encoder.describe()["model_id"] == ENCODERS["detr"].model_id


@pytest.mark.parametrize(
    ("name", "build", "millions"),
    [
        ("detr", lambda: DetrModel(detr.architecture()), 60.3),
        ("clip", lambda: CLIPVisionModel(clip.architecture()), 87.5),
        ("vit", lambda: ViTModel(vit.architecture(), add_pooling_layer=False), 305.6),
    ],
    ids=["detr", "clip", "vit"],
)
def test_architectures_are_those_of_the_table(name, build, millions):
    """Numbers of parameters as published; shapes by a run without data, which DETR can't do."""
    with torch.device("meta"):
        model = build().eval()
        if name != "detr":
            size = model.config.image_size
            shape = model(pixel_values=torch.empty(2, 3, size, size)).last_hidden_state.shape
            assert shape == (2, ENCODERS[name].num_patches, ENCODERS[name].feature_dim)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(
    ("name", "settings", "changes", "message"),
    [
        ("clip", {}, {"resample": 2}, "resample is 2, expected 3"),
        ("clip", {}, {"crop_size": 48}, "crop_size is"),
        ("vit", {}, {"image_mean": [0.485, 0.456, 0.406]}, "image_mean is"),
        ("vit", {"preprocessing": "native"}, {"size": 48}, "size is"),
    ],
)
def test_a_model_trained_with_another_preprocessing_is_refused(
    models, tmp_path, name, settings, changes, message
):
    shutil.copytree(models / name, tmp_path / name)
    path = tmp_path / name / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(EncoderError, match=message):
        load(tmp_path, name, **settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("clip", {"size": 32, "crop_size": 32, "resample": 3, "do_center_crop": True}),
        ("vit", {"size": 32, "image_mean": [0.5, 0.5, 0.5]}),
        ("detr", {"size": 800, "max_size": 1333, "image_std": [0.229, 0.224, 0.225]}),
    ],
)
def test_settings_in_their_old_short_form_agree(models, tmp_path, name, settings):
    shutil.copytree(models / name, tmp_path / name)
    (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(settings))
    load(tmp_path, name, preprocessing="native")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_near_and_is_recorded(models, precision):
    encoder, exact = load(models, "vit", precision=precision), load(models, "vit")
    pixels_BCHW = torch.stack([encoder.prepare(noise(50, 40))])
    features, expected = encoder.encode(pixels_BCHW), exact.encode(pixels_BCHW)
    assert features.dtype == torch.float32
    assert 0 < (features - expected).norm() / expected.norm() < 2e-2
    assert encoder.describe()["precision"] == precision


def test_strict_precision_is_set_only_while_encoding(models):
    """TF32 is torch's default in convolutions; it must be off inside and untouched outside."""
    encoder = load(models, "vit")
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, convolution.fp32_precision
    seen = []
    encoder._model.module.register_forward_pre_hook(
        lambda *_: seen.append((matmul.fp32_precision, convolution.fp32_precision))
    )
    try:
        matmul.fp32_precision = "tf32"
        encoder.encode(encoder.prepare(noise(32, 32))[None])
        assert seen == [("ieee", "ieee")]
        assert (matmul.fp32_precision, convolution.fp32_precision) == ("tf32", before[1])
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


def test_hf_takes_the_vision_tower_with_the_models_own_processor(models):
    encoder = load_encoder(EncoderConfig(name=f"hf:{models / 'clip'}"))
    image = noise(50, 40)
    processor = CLIPImageProcessorPil.from_pretrained(models / "clip")
    pixels = processor(images=image, return_tensors="pt")["pixel_values"]
    oracle = CLIPVisionModel.from_pretrained(models / "clip").eval()
    with torch.inference_mode():
        expected = oracle(pixel_values=pixels).last_hidden_state
    assert encoder.input_size(50, 40) == (32, 32)
    torch.testing.assert_close(encoder.encode(encoder.prepare(image)[None]), expected)
    described = encoder.describe()
    assert described["encoder"] == "hf:clip", "a path would make moved models count as other ones"
    assert described["preprocessing"][1]["class"] == "CLIPImageProcessorPil"
    assert described["preprocessing"][1]["implementation"] == "pil"
    assert described["weights_sha256"] == load(models, "clip").describe()["weights_sha256"]
    assert json.loads(json.dumps(described)) == described


def test_hf_flattens_maps_row_by_row(models):
    encoder = load_encoder(EncoderConfig(name=f"hf:{models / 'resnet'}"))
    pixels = encoder.prepare(noise(32, 32))[None]
    with torch.inference_mode():
        grid = ResNetModel.from_pretrained(models / "resnet").eval()(pixels).last_hidden_state
    rows, columns = grid.shape[2:]
    assert (encoder.num_patches, encoder.feature_dim) == (rows * columns, 16)
    assert encoder.describe()["grid"] == [rows, columns]
    features_BPD = encoder.encode(pixels)
    torch.testing.assert_close(features_BPD[0, columns + 2], grid[0, :, 1, 2])


def test_hf_draws_random_weights_from_a_folders_config(models):
    encoder = load_encoder(EncoderConfig(name=f"hf:{models / 'siglip'}", random_weights=2))
    assert (encoder.num_patches, encoder.feature_dim) == (16, 32)
    assert encoder.describe()["grid"] == [4, 4]
    assert encoder.encode(encoder.prepare(noise(9, 9))[None]).isfinite().all()


def test_hf_refuses_a_number_of_patches_that_depends_on_the_picture(models):
    encoder = load_encoder(EncoderConfig(name=f"hf:{models / 'resnet'}"))
    with pytest.raises(EncoderError, match="must not depend on the picture's size"):
        encoder.encode(torch.zeros(1, 3, 64, 64))


def test_hf_needs_an_image_processor(models):
    with pytest.raises(EncoderError, match=r"looked for preprocessor_config\.json"):
        load_encoder(EncoderConfig(name=f"hf:{models / 'detr'}"))


def test_tiny_is_the_same_on_every_machine():
    encoder = load_encoder(EncoderConfig(name="tiny"))
    assert encoder.describe()["weights_sha256"] == TINY_SHA256
    assert encoder.input_size(500, 20) == (112, 112)
    assert (encoder.num_patches, encoder.feature_dim) == (50, 192)


def test_tiny_computes_what_transformers_vit_computes():
    """Same weights in ViTModel: a slip in heads, norms or residuals would show."""
    ours = tiny.TinyViT().eval()
    config = ViTConfig(
        hidden_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=112,
        patch_size=16,
        layer_norm_eps=1e-5,
    )
    oracle = ViTModel(config, add_pooling_layer=False).eval()
    state = {name: torch.zeros_like(value) for name, value in oracle.state_dict().items()}
    source = ours.state_dict()
    state["embeddings.cls_token"] = source["class_token"]
    state["embeddings.position_embeddings"] = source["positions"]
    state["embeddings.patch_embeddings.projection.weight"] = source["embed.weight"]
    state["layernorm.weight"] = source["norm.weight"]
    for i in range(2):
        here, there = f"layers.{i}.", f"layers.{i}."
        query, key, value = source[f"{here}query_key_value.weight"].chunk(3)
        state[f"{there}attention.q_proj.weight"] = query
        state[f"{there}attention.k_proj.weight"] = key
        state[f"{there}attention.v_proj.weight"] = value
        state[f"{there}attention.o_proj.weight"] = source[f"{here}mix.weight"]
        state[f"{there}layernorm_before.weight"] = source[f"{here}norm_1.weight"]
        state[f"{there}layernorm_after.weight"] = source[f"{here}norm_2.weight"]
        state[f"{there}mlp.fc1.weight"] = source[f"{here}widen.weight"]
        state[f"{there}mlp.fc2.weight"] = source[f"{here}narrow.weight"]
    oracle.load_state_dict(state)
    pixels = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = oracle(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(ours(pixels).last_hidden_state, expected, rtol=1e-4, atol=1e-5)


def test_tiny_features_tell_colour_and_place():
    """A linear map from single patches finds both; else the demo's model could not learn."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (200, 7, 7, 3), dtype=np.uint8)
    pictures = np.repeat(np.repeat(colours, 16, 1), 16, 2)
    encoder = load_encoder(EncoderConfig(name="tiny"))
    pixels_BCHW = torch.stack([encoder.prepare(Image.fromarray(image)) for image in pictures])
    features_BPD = encoder.encode(pixels_BCHW)[:, 1:].half().double().numpy()
    place = np.broadcast_to(np.stack(np.mgrid[:7, :7], -1), (200, 7, 7, 2))
    for target in (colours.astype(float), place.astype(float)):
        inputs = np.concatenate([features_BPD, np.ones((200, 49, 1))], -1)
        outputs = target.reshape(200, 49, -1)
        outputs = outputs - outputs.mean((0, 1))
        weights, *_ = np.linalg.lstsq(
            inputs[:150].reshape(150 * 49, -1), outputs[:150].reshape(150 * 49, -1), rcond=1e-6
        )
        unexplained = ((inputs[150:] @ weights - outputs[150:]) ** 2).sum()
        assert 1 - unexplained / (outputs[150:] ** 2).sum() > 0.9
