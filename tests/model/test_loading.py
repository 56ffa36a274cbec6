"""new_model and load_model: what a model records, and what is refused."""

import json

import pytest
import torch
from reference_checkpoints import TEXTS, draw_batch, write_checkpoint
from safetensors.torch import load_file, save_file
from transformers import MT5Config, T5Config, T5ForConditionalGeneration

from mmcot_data.errors import TrainingError
from mmcot_model.checkpoints.state_dicts import FUSION_TENSORS
from mmcot_model.feature_layout import FeatureLayout
from mmcot_model.fusion import FusionT5
from mmcot_model.loading import load_model, new_model
from mmcot_model.tokenizer import train_tokenizer

LAYOUT = FeatureLayout(encoders=("detr", "vit"), num_patches=9, patch_dim=12)
SIZES = {"vocab_size": 164, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}


def make(layout=LAYOUT, **changes):
    return new_model("tiny", TEXTS, vocab_size=200, layout=layout, seed=3, **changes)


def save(model, tokenizer, folder, **options):
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_plain(folder, **changes):
    """A T5 as transformers writes it."""
    torch.manual_seed(0)
    train_tokenizer(TEXTS, 160).save_pretrained(folder)
    plain = T5ForConditionalGeneration(T5Config(**SIZES, decoder_start_token_id=0, **changes))
    if changes.get("tie_word_embeddings") is False:
        plain.lm_head.weight = torch.nn.Parameter(torch.randn(164, 32))
    plain.save_pretrained(folder)
    return plain.eval()


def change_weights(folder, change):
    """Rewrite model.safetensors; transformers would not save such a thing."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def batch(patch_dim=12):
    return draw_batch(patch_dim, num_patches=9)


def test_a_new_model_records_its_features(tmp_path):
    model, tokenizer = make(absent_image="zeros")
    loaded, _ = load_model(save(model, tokenizer, tmp_path), layout=LAYOUT)
    config = loaded.config
    assert (config.encoders, config.num_patches, config.patch_dim) == (["detr", "vit"], 9, 12)
    assert config.absent_image == "zeros"
    assert loaded.encoder.image_dense.in_features == 12


@pytest.mark.parametrize(
    ("found", "different"),
    [
        ({"patch_dim": 13}, "width"),
        ({"num_patches": 8}, "number of patches"),
        ({"encoders": ("vit", "detr")}, "encoder"),
        ({"encoders": ("vit",), "patch_dim": 1}, "encoder and width"),
    ],
)
def test_other_features_are_refused(tmp_path, found, different):
    """Would catch features of another encoder that happen to be as wide."""
    name = save(*make(), tmp_path)
    fields = {"encoders": LAYOUT.encoders, "num_patches": 9, "patch_dim": 12} | found
    with pytest.raises(TrainingError) as caught:
        load_model(name, layout=FeatureLayout(**fields))
    assert f"reads the features detr + vit, (9, 12), found {FeatureLayout(**fields)}" in str(
        caught.value
    )
    assert f"another {different}." in str(caught.value)


def test_what_a_model_does_not_say_is_not_compared(tmp_path):
    """Models of before did not record their encoder."""
    name = save(*make(), tmp_path)
    change_config(tmp_path, encoders=None, num_patches=None)
    other = FeatureLayout(encoders=("clip",), num_patches=50, patch_dim=12)
    model, _ = load_model(name, layout=other)
    assert model.config.encoders is None
    with pytest.raises(TrainingError, match=r"unknown, \(\?, 12\), found clip, \(50, 13\)"):
        load_model(name, layout=FeatureLayout(encoders=("clip",), num_patches=50, patch_dim=13))


@pytest.mark.parametrize("plain", [False, True])
def test_a_model_of_text_alone(tmp_path, plain):
    """Would catch features that are read through layers that were never trained."""
    if plain:
        write_plain(tmp_path / "plain")
        model, tokenizer = load_model(str(tmp_path / "plain"))
    else:
        model, tokenizer = make(layout=None)
    assert model.config.patch_dim == 1
    name = save(model, tokenizer, tmp_path / "out")
    load_model(name)
    for layout in (LAYOUT, FeatureLayout(encoders=("one",), num_patches=1, patch_dim=1)):
        with pytest.raises(TrainingError, match="was trained on text alone"):
            load_model(name, layout=layout)


def test_a_model_of_pictures_can_be_given_none(tmp_path):
    name = save(*make(), tmp_path)
    model, _ = load_model(name)
    assert model.config.patch_dim == 12


def test_the_treatment_of_absent_pictures_is_the_models(tmp_path):
    """Would catch a converted checkpoint that is tested with another treatment than its own."""
    name = save(*make(absent_image="zeros"), tmp_path)
    assert load_model(name)[0].config.absent_image == "zeros"
    assert load_model(name, absent_image="zeros")[0].config.absent_image == "zeros"
    with pytest.raises(TrainingError, match="give --absent-image zeros"):
        load_model(name, absent_image="text")
    write_plain(tmp_path / "plain")
    plain, _ = load_model(str(tmp_path / "plain"), layout=LAYOUT, absent_image="zeros")
    assert plain.config.absent_image == "zeros"


@pytest.mark.parametrize("tied", [True, False])
def test_a_plain_t5_gets_new_fusion_layers(tmp_path, tied, caplog, capfd):
    """Would catch T5 weights or a head that are lost, and fusion layers without a seed."""
    plain = write_plain(tmp_path, tie_word_embeddings=tied)
    caplog.set_level("INFO", logger="mmcot_model")
    loaded, again, other = (
        load_model(str(tmp_path), layout=LAYOUT, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert "its fusion layers start from seed 2" in caplog.text
    assert "MISSING" not in capfd.readouterr().err
    text = {k: v for k, v in batch().items() if k != "image_features"}
    assert torch.equal(loaded(**text).logits, plain(**text).logits)
    with torch.no_grad():
        outputs = [model(**batch()).logits for model in (loaded, again, other)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert loaded.config.encoders == ["detr", "vit"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_size", ["50GB", "20KB"])
def test_round_trip(tmp_path, tied, shard_size):
    """Would catch a weight, the head, or the scale before it that is not restored."""
    write_plain(tmp_path / "plain", tie_word_embeddings=tied)
    model, tokenizer = load_model(str(tmp_path / "plain"), layout=LAYOUT)
    name = save(model, tokenizer, tmp_path / "out", max_shard_size=shard_size)
    is_sharded = len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    assert is_sharded == (shard_size == "20KB")
    for loaded in (load_model(name, layout=LAYOUT)[0], FusionT5.from_pretrained(name)):
        weights = model.state_dict()
        assert weights.keys() == loaded.state_dict().keys()
        assert all(torch.equal(weights[k], v) for k, v in loaded.state_dict().items())
        assert (loaded.lm_head.weight is loaded.shared.weight) == tied
        assert loaded.config.scale_decoder_outputs == tied
        with torch.no_grad():
            assert torch.equal(loaded(**batch()).logits, model(**batch()).logits)


@pytest.mark.parametrize("lost", [FUSION_TENSORS[0], FUSION_TENSORS[-1], "shared.weight"])
def test_a_missing_weight_is_an_error(tmp_path, lost):
    """Would catch weights of a trained model that are drawn anew."""
    name = save(*make(), tmp_path)
    change_weights(tmp_path, lambda tensors: tensors.pop(lost))
    with pytest.raises(TrainingError, match=f"lacks the weights .*{lost}"):
        load_model(name, layout=LAYOUT)


def test_a_missing_weight_of_a_plain_t5_is_an_error(tmp_path):
    write_plain(tmp_path)
    lost = "decoder.block.1.layer.2.DenseReluDense.wo.weight"
    change_weights(tmp_path, lambda tensors: tensors.pop(lost))
    with pytest.raises(TrainingError, match=f"lacks the weights {lost}; expected all of a T5"):
        load_model(str(tmp_path), layout=LAYOUT)


def test_weights_that_are_not_used_are_told(tmp_path, caplog):
    name = save(*make(), tmp_path)
    change_weights(tmp_path, lambda tensors: tensors.update(adapter=torch.zeros(2)))
    load_model(name, layout=LAYOUT)
    assert "has weights that are not used: adapter" in caplog.text


def test_a_weight_of_another_shape_is_an_error(tmp_path):
    name = save(*make(), tmp_path)
    change_weights(tmp_path, lambda t: t.update({FUSION_TENSORS[0]: torch.zeros(64, 5)}))
    with pytest.raises(TrainingError, match=f"another shape .*: {FUSION_TENSORS[0]}"):
        load_model(name, layout=LAYOUT)


def test_damaged_weights_are_an_error(tmp_path):
    name = save(*make(), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingError, match="cannot load the weights"):
        load_model(name, layout=LAYOUT)
    path.unlink()
    with pytest.raises(TrainingError, match="cannot load the weights"):
        load_model(name, layout=LAYOUT)


@pytest.mark.parametrize(
    "architecture", ["T5ForMultimodalGeneration", "T5ForConditionalGeneration"]
)
@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("width", [256, 12])
def test_an_unconverted_checkpoint_is_refused(tmp_path, architecture, generation, width):
    """Would catch fusion layers of the reference that are replaced by fresh ones."""
    layout = FeatureLayout(encoders=("detr",), num_patches=100, patch_dim=width)
    write_checkpoint(tmp_path / "in", generation, architectures=[architecture])
    with pytest.raises(TrainingError, match=r"mmcot-convert .*in OUT"):
        load_model(str(tmp_path / "in"), layout=layout)


def test_other_models_are_refused(tmp_path):
    MT5Config(vocab_size=99).save_pretrained(tmp_path)  # as a T5 it would scale its logits
    with pytest.raises(TrainingError, match="kind 'mt5', expected mmcot-fusion-t5 or t5"):
        load_model(str(tmp_path))
    with pytest.raises(TrainingError, match="expected a folder or a hub id"):
        load_model(str(tmp_path / "absent"))
    save(*make(), tmp_path / "damaged")
    change_config(tmp_path / "damaged", d_model="wide")
    with pytest.raises(TrainingError, match="is not that of a T5"):
        load_model(str(tmp_path / "damaged"))


def test_half_precision_on_disk_is_trained_in_float32(tmp_path):
    """Would catch weights and optimizer in bfloat16 because the base model was stored so."""
    write_plain(tmp_path).to(torch.bfloat16).save_pretrained(tmp_path)
    model, _ = load_model(str(tmp_path), layout=LAYOUT)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    stored = load_file(tmp_path / "model.safetensors")["shared.weight"]
    assert stored.dtype == torch.bfloat16
    assert torch.equal(model.shared.weight, stored.float())


def test_a_plain_t5_is_no_trained_stage(tmp_path):
    """Would catch answers from fusion layers that were never trained."""
    write_plain(tmp_path)
    with pytest.raises(TrainingError, match="has never seen a feature"):
        load_model(str(tmp_path), layout=LAYOUT, trained=True)
    load_model(str(tmp_path), trained=True)
