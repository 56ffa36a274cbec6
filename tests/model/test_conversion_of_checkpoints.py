"""mmcot-convert: what it makes is the reference's model, whatever files the weights came in."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from feature_sets import make_rows, make_spec, write_set
from reference_checkpoints import cross_entropy, draw_batch, forward, write_checkpoint
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from mmcot_model import FusionT5, FusionT5Config
from mmcot_model.checkpoints.conversion import convert_checkpoint
from mmcot_model.checkpoints.state_dicts import FUSION_TENSORS, canonical_name, stored_shapes
from mmcot_model.cli.convert import main
from mmcot_model.feature_layout import FeatureLayout
from mmcot_model.loading import load_model

SHAPES = Path(__file__).parents[3] / "shared" / "reference" / "mm-cot-state-dicts.json"
DETR = FeatureLayout(encoders=("detr",), num_patches=100, patch_dim=256)


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(params=[1, 2], ids=["gen1", "gen2"])
def converted(request, tmp_path):
    """Generation, its tensors, its config.json, and the folder that the command made."""
    state, config = write_checkpoint(tmp_path / "in", request.param)
    assert run(tmp_path / "in", tmp_path / "out") == 0
    return request.param, state, config, tmp_path / "out"


def test_logits_are_those_of_the_reference(converted):
    """Would catch a fusion read from the wrong place, a head tied or scaled wrongly, and a mask
    where the reference has none: the last row has no picture."""
    _, state, config, out = converted
    batch = draw_batch()
    expected, fused = forward(state, config, batch)
    model = FusionT5.from_pretrained(out)
    found = model(**batch)
    torch.testing.assert_close(found.logits.double(), expected, rtol=1e-5, atol=1e-5)
    masked = model(**batch, image_mask=torch.tensor([True, True, False])).logits
    assert torch.equal(masked, found.logits)
    state_after = found.encoder_last_hidden_state.double()
    torch.testing.assert_close(state_after, fused, rtol=1e-5, atol=1e-5)


def test_loss_counts_what_the_labels_say(converted):
    """Would catch pads that are ignored, where the reference counts them."""
    _, state, config, out = converted
    batch = draw_batch()
    model = FusionT5.from_pretrained(out)
    for padding in (0, -100):
        batch["labels"][0, 3:] = padding
        shifted = batch | {"labels": batch["labels"].clamp(min=0)}
        logits, _ = forward(state, config, shifted)
        expected = cross_entropy(logits, batch["labels"])
        torch.testing.assert_close(model(**batch).loss.double(), expected, rtol=1e-6, atol=1e-6)


def test_greedy_text_is_that_of_the_reference(converted):
    """Would catch features that the decoder loses after its first step."""
    _, state, config, out = converted
    batch = draw_batch()
    labels = batch.pop("labels")
    found = FusionT5.from_pretrained(out).generate(**batch, max_new_tokens=6, do_sample=False)
    tokens = torch.zeros_like(labels[:, :1])
    for _ in range(6):
        logits, _ = forward(state, config, batch, tokens)
        tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], 1)
    ended = (tokens == 1).long().cumsum(1).cumsum(1) > 1
    assert torch.equal(found, tokens.masked_fill(ended, 0)[:, : found.shape[1]])


def test_every_tensor_is_stored_once(converted):
    """Would catch a weight that was changed or lost, and three copies of the embeddings."""
    generation, state, _, out = converted
    stored = load_file(out / "model.safetensors")
    copies = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    copies |= {"lm_head.weight"} if generation == 1 else set()
    expected = {canonical_name(k): v for k, v in state.items() if k not in copies}
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], expected[name]) for name in expected)
    model = FusionT5.from_pretrained(out)
    assert (model.lm_head.weight is model.shared.weight) == (generation == 1)


def test_the_folder_explains_itself(converted):
    generation, _, source, out = converted
    config = FusionT5Config.from_pretrained(out)
    assert (config.patch_dim, config.num_patches, config.encoders) == (256, 100, ["detr"])
    assert config.absent_image == "zeros"
    record = json.loads((out / "converted.json").read_text())
    weights = out.parent / "in" / "pytorch_model.bin"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record["generation"] == generation
    assert record["source_sha256"]["pytorch_model.bin"] == digest
    assert record["head"] == ("tied" if generation == 1 else "its own")
    words = AutoTokenizer.from_pretrained(out)
    assert words.encode("(A)") == AutoTokenizer.from_pretrained(out.parent / "in").encode("(A)")
    model, _ = load_model(str(out), layout=DETR, absent_image="zeros")
    assert model.num_parameters() == record["num_parameters"]
    assert model.config.vocab_size == source["vocab_size"]


def test_all_forms_of_files_give_the_same_model(tmp_path):
    """Would catch a shard that is not read, and a form that is read in another precision."""
    state, _ = write_checkpoint(tmp_path / "bin", 2)
    half = len(state) // 2
    halves = [dict(list(state.items())[:half]), dict(list(state.items())[half:])]
    once = {
        name: tensor.clone() for name, tensor in state.items() if "embed_tokens" not in name
    }  # .safetensors hold no copies
    for form in ("bins", "safe", "safes", "old"):
        folder = tmp_path / form
        write_checkpoint(folder, 2)
        (folder / "pytorch_model.bin").unlink()
        if form == "bins":
            for number, part in enumerate(halves):
                torch.save(part, folder / f"pytorch_model-{number}.bin")
            places = {
                name: f"pytorch_model-{number}.bin"
                for number, part in enumerate(halves)
                for name in part
            }
            index = {"metadata": {}, "weight_map": places}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        elif form == "safe":
            save_file(once, folder / "model.safetensors")
        elif form == "old":
            torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        else:
            names = list(once)
            places = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(names)}
            for file in set(places.values()):
                save_file({n: once[n] for n in names if places[n] == file}, folder / file)
            index = {"weight_map": places}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    digests = set()
    for form in ("bin", "bins", "safe", "safes", "old"):
        convert_checkpoint(tmp_path / form, tmp_path / "out" / form)
        made = tmp_path / "out" / form / "model.safetensors"
        digests.add(hashlib.sha256(made.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_half_precision_becomes_full(tmp_path):
    """Would catch a model that computes in fp16 because it was stored so."""
    state, _ = write_checkpoint(tmp_path / "in", 1)
    halved = {name: tensor.half() for name, tensor in state.items()}
    torch.save(halved, tmp_path / "in" / "pytorch_model.bin")
    convert_checkpoint(tmp_path / "in", tmp_path / "out")
    model = FusionT5.from_pretrained(tmp_path / "out")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    expected = halved["gate_dense.weight"].float()
    assert torch.equal(model.encoder.gate_dense.weight, expected)


@pytest.mark.parametrize(
    ("width", "flags", "expected"),
    [
        (256, [], ("detr", 100)),
        (1024, [], ("vit", 145)),
        (768, ["--encoder", "clip"], ("clip", 50)),
        (768, ["--encoder", "vit"], ("vit", 577)),
        (2048, ["--encoder", "resnet"], ("resnet", 1)),
        (2048, ["--encoder", "clip-rn101"], ("clip-rn101", 49)),
        (2048, ["--encoder", "clip"], ("clip", 49)),
        (2048, ["--encoder", "resnet", "--num-patches", "512"], ("resnet", 512)),
        (36, ["--encoder", "frcnn", "--num-patches", "9"], ("frcnn", 9)),
    ],
)
def test_the_encoder_is_found(tmp_path, width, flags, expected):
    write_checkpoint(tmp_path / "in", 2, patch_dim=width)
    assert run(tmp_path / "in", tmp_path / "out", *flags) == 0
    config = FusionT5Config.from_pretrained(tmp_path / "out")
    assert (*config.encoders, config.num_patches, config.patch_dim) == (*expected, width)


@pytest.mark.parametrize(
    ("width", "flags", "told"),
    [
        (768, [], ["vit, (577, 768)", "clip, (50, 768)", "--encoder", "--features"]),
        (2048, [], ["clip-rn101, (49, 2048)", "resnet, (1, 2048)", "--encoder"]),
        (999, [], ["width 999", "--encoder"]),
        (1024, ["--encoder", "detr"], ["width 1024", "width 256"]),
        (36, ["--encoder", "frcnn"], ["--num-patches"]),
    ],
)
def test_an_encoder_is_never_guessed(tmp_path, capsys, width, flags, told):
    write_checkpoint(tmp_path / "in", 2, patch_dim=width)
    assert run(tmp_path / "in", tmp_path / "out", *flags) == 1
    error = capsys.readouterr().err
    assert all(part in error for part in told), error
    assert not (tmp_path / "out").exists()


def test_a_feature_set_names_the_encoder(tmp_path, capsys):
    """Would catch a feature set that is believed although the weights read another width."""
    for width, name in ((7, "fits"), (8, "fits-not")):
        features, digests = make_rows(2, shape=(5, width))
        index = [("q0", "question", 0), ("q1", "question", 1)]
        spec = make_spec(feature_dim=width)
        write_set(tmp_path / name, spec, [(features, digests)], index)
    write_checkpoint(tmp_path / "in", 1, patch_dim=7)
    out = tmp_path / "out"
    assert run(tmp_path / "in", out, "--features", tmp_path / "fits-not") == 1
    assert "width 7, found the features fake, (5, 8)" in capsys.readouterr().err
    assert run(tmp_path / "in", out, "--features", tmp_path / "fits") == 0
    config = FusionT5Config.from_pretrained(out)
    assert (*config.encoders, config.num_patches, config.patch_dim) == ("fake", 5, 7)


def test_a_tokenizer_can_be_given(tmp_path, capsys):
    write_checkpoint(tmp_path / "in", 1, tokenizer=False)
    write_checkpoint(tmp_path / "other", 1)
    assert run(tmp_path / "in", tmp_path / "out") == 1
    assert "give --tokenizer NAME" in capsys.readouterr().err
    assert run(tmp_path / "in", tmp_path / "out", "--tokenizer", tmp_path / "other") == 0
    assert str(tmp_path / "other") in capsys.readouterr().out
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token_id == 1


@pytest.mark.skipif(not SHAPES.is_file(), reason="needs the shapes of the reference's models")
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("g1-base", {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}),
        ("g1-large", {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16}),
        ("g2-flan-base", {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}),
        ("g2-flan-large", {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16}),
    ],
)
def test_shapes_of_the_released_models(name, sizes):
    """Would catch a tensor of a released size that conversion refuses or asks for in vain."""
    released = {k: tuple(v) for k, v in json.loads(SHAPES.read_text())[name].items()}
    tied = name.startswith("g1")
    config = FusionT5Config(
        **sizes,
        vocab_size=32128,
        d_kv=64,
        feed_forward_proj="relu" if tied else "gated-gelu",
        patch_dim=256 if tied else 1024,
    )
    copies = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    copies |= {"lm_head.weight"} if tied else set()
    expected = {canonical_name(k): v for k, v in released.items() if k not in copies}
    assert stored_shapes(config, tied=tied) == expected
    assert set(FUSION_TENSORS) <= expected.keys()
