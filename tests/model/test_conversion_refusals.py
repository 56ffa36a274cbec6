"""mmcot-convert: what it refuses, in words that say what to do, leaving nothing behind."""

import json
import os

import pytest
import torch
from reference_checkpoints import write_checkpoint
from safetensors import SafetensorError

from mmcot_model.checkpoints import conversion
from mmcot_model.cli.convert import main
from mmcot_model.tokenizer import train_tokenizer


def refused(capsys, *arguments):
    """The explanation; also sees that OUT was not made."""
    assert main([str(argument) for argument in arguments]) == 1
    out = arguments[1]
    assert not out.is_dir() or list(out.iterdir()) == [] or (out / "keep").exists()
    assert not list(out.parent.glob(".*"))
    return capsys.readouterr().err


class Code:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def drop(name):
    return lambda state: state.pop(name)


def put(name, tensor):
    return lambda state: state.__setitem__(name, tensor)


GATE = "gate_dense.weight"
DAMAGE = {
    "missing": (1, drop(GATE), ["1 missing: encoder.gate_dense.weight"]),
    "a missing block": (
        1,
        drop("encoder.block.1.layer.0.SelfAttention.q.weight"),
        ["1 missing: encoder.block.1"],
    ),
    "no embeddings": (
        1,
        lambda s: [s.pop(k) for k in list(s) if "lm_head" in k or "shared" in k or "embed" in k],
        ["1 missing: shared.weight"],
    ),
    "a missing head": (2, drop("lm_head.weight"), ["1 missing: lm_head.weight"]),
    "unknown": (1, put("adapter.weight", torch.zeros(2)), ["1 unknown: adapter.weight"]),
    "misshapen": (
        1,
        put(GATE, torch.zeros(16, 16)),
        ["1 of another shape: encoder.gate_dense.weight (16, 16) instead of (16, 32)"],
    ),
    "two generations": (1, put(f"encoder.{GATE}", torch.zeros(16, 32)), ["two generations"]),
    "another head": (1, put("lm_head.weight", torch.zeros(164, 16)), ["tie_word_embeddings"]),
    "another copy": (
        2,
        put("decoder.embed_tokens.weight", torch.zeros(164, 16)),
        ["decoder.embed_tokens.weight differs from shared.weight"],
    ),
    "no projection": (1, drop("image_dense.weight"), ["without a matrix"]),
    "plain": (
        1,
        lambda s: [s.pop(k) for k in list(s) if "dense." in k or "mha" in k],
        ["holds no fusion layers", "mmcot-train --model"],
    ),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_tensors_that_do_not_make_a_model(tmp_path, capsys, fault):
    """Would catch weights that are drawn anew, or dropped, in silence."""
    generation, damage, told = DAMAGE[fault]
    state, _ = write_checkpoint(tmp_path / "in", generation)
    damage(state)
    torch.save(state, tmp_path / "in" / "pytorch_model.bin")
    error = refused(capsys, tmp_path / "in", tmp_path / "out")
    assert all(part in error for part in told), error


def test_no_code_is_run(tmp_path, capsys):
    """Would catch torch.load without weights_only."""
    write_checkpoint(tmp_path / "in", 1)
    torch.save({"code": Code(tmp_path / "run")}, tmp_path / "in" / "pytorch_model.bin")
    assert "would run code" in refused(capsys, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("kept", [0, 100, 9000])
def test_a_damaged_file(tmp_path, capsys, name, kept):
    write_checkpoint(tmp_path / "in", 1)
    whole = (tmp_path / "in" / "pytorch_model.bin").read_bytes()
    (tmp_path / "in" / name).write_bytes(whole[:kept])
    error = refused(capsys, tmp_path / "in", tmp_path / "out")
    assert f"{name} is damaged" in error
    assert len(error) < 1000


def test_something_else_than_a_state_dict(tmp_path, capsys):
    write_checkpoint(tmp_path / "in", 1)
    torch.save([torch.zeros(2)], tmp_path / "in" / "pytorch_model.bin")
    assert "no state dict" in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_places_that_are_no_checkpoint(tmp_path, capsys):
    out = tmp_path / "out"
    write_checkpoint(tmp_path / "unpacked" / "in", 1)
    assert "does not exist" in refused(capsys, tmp_path / "absent", out)
    error = refused(capsys, tmp_path / "unpacked", out)
    assert f"did you mean {tmp_path / 'unpacked' / 'in'}?" in error
    weights = tmp_path / "unpacked" / "in" / "pytorch_model.bin"
    assert f"give {weights.parent}" in refused(capsys, weights, out)
    (tmp_path / "base.zip").write_bytes(b"")
    assert "unpack it" in refused(capsys, tmp_path / "base.zip", out)
    weights.unlink()
    assert "holds no weights" in refused(capsys, weights.parent, out)


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("{", "damaged"),
        ("[]", "expected a JSON object"),
        ("{}", "weight_map"),
        ('{"weight_map": {"a": "../elsewhere.bin"}}', "expected a file beside it"),
        ('{"weight_map": {"a": "one.bin", "b": "two.bin"}}', "2 files, one.bin, two.bin of them"),
    ],
)
def test_a_wrong_index(tmp_path, capsys, index, told):
    write_checkpoint(tmp_path / "in", 1)
    (tmp_path / "in" / "pytorch_model.bin").unlink()
    (tmp_path / "in" / "pytorch_model.bin.index.json").write_text(index)
    assert told in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_a_name_in_two_shards(tmp_path, capsys):
    """Would catch the last one being taken."""
    state, _ = write_checkpoint(tmp_path / "in", 1)
    (tmp_path / "in" / "pytorch_model.bin").unlink()
    places = {}
    for number in "01":
        torch.save(state, tmp_path / "in" / f"{number}.bin")
        places[number] = f"{number}.bin"
    index = tmp_path / "in" / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert "a second time" in refused(capsys, tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"d_model": "wide"}, "not the configuration of a T5"),
        ({"feed_forward_proj": "gated-silu"}, "expected relu or gated-gelu"),
        ({"num_layers": 3}, "missing: encoder.block.2"),
        ({"feed_forward_proj": "gated-gelu"}, "missing"),
        ({"model_type": "mmcot-fusion-t5"}, "a FusionT5 already"),
        ({"pad_token_id": 3}, "--tokenizer"),
    ],
)
def test_a_configuration_of_something_else(tmp_path, capsys, changes, told):
    write_checkpoint(tmp_path / "in", 1, **changes)
    assert told in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_a_configuration_without_sizes(tmp_path, capsys):
    """Would catch sizes of t5-small that are taken for absent ones."""
    _, config = write_checkpoint(tmp_path / "in", 1)
    del config["d_model"], config["d_ff"]
    (tmp_path / "in" / "config.json").write_text(json.dumps(config))
    assert "lacks d_model, d_ff" in refused(capsys, tmp_path / "in", tmp_path / "out")


def test_a_tokenizer_of_another_model(tmp_path, capsys):
    """Would catch ids that the embeddings don't have."""
    write_checkpoint(tmp_path / "in", 1)
    words = [f"{first}{second}" for first in "abcdefgh" for second in "ijklmnop"] * 3
    train_tokenizer(words, 400).save_pretrained(tmp_path / "other")
    flags = ["--tokenizer", tmp_path / "other"]
    error = refused(capsys, tmp_path / "in", tmp_path / "out", *flags)
    assert "the checkpoint 164" in error
    flags = ["--tokenizer", tmp_path / "in" / "config.json"]
    assert "cannot load the tokenizer" in refused(capsys, tmp_path / "in", tmp_path / "out", *flags)


def test_a_tokenizer_that_needs_another_package(tmp_path, capsys, monkeypatch):
    """Would catch transformers' advice to install something that does not read the file."""
    write_checkpoint(tmp_path / "in", 1, tokenizer=False)
    (tmp_path / "in" / "spiece.model").write_bytes(b"")
    find = conversion.find_tokenizer.__globals__["importlib"].util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "sentencepiece" else find(name)
    )
    error = refused(capsys, tmp_path / "in", tmp_path / "out")
    assert "pip install sentencepiece" in error
    assert "--tokenizer NAME" in error


def test_a_place_that_is_taken(tmp_path, capsys):
    write_checkpoint(tmp_path / "in", 1)
    out = tmp_path / "out"
    out.mkdir()
    assert main([str(tmp_path / "in"), str(out)]) == 0  # an empty folder is filled
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "keep").write_text("mine")
    assert "is there already" in refused(capsys, tmp_path / "in", tmp_path / "full")
    assert (tmp_path / "full" / "keep").read_text() == "mine"


@pytest.mark.parametrize("error", [SafetensorError("no space"), KeyboardInterrupt()])
def test_a_stop_leaves_nothing(tmp_path, capsys, monkeypatch, error):
    """Would catch a half-written folder at OUT, which looks like a model."""
    write_checkpoint(tmp_path / "in", 1)

    def stop(tensors, path, metadata):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(conversion, "save_file", stop)
    out = tmp_path / "out"
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            main([str(tmp_path / "in"), str(out)])
    else:
        assert "cannot write" in refused(capsys, tmp_path / "in", out)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_flags_that_exclude_each_other(tmp_path):
    for flags in (["--features", "a", "--encoder", "b"], ["--num-patches", "3"]):
        with pytest.raises(SystemExit, match="2"):
            main(["in", "out", *flags])
