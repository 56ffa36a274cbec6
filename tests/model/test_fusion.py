"""FusionT5 against T5, against the paper's formula, and against reference checkpoints."""

from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from mmcot_model.fusion import FusionT5, FusionT5Config

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "mm-cot-tiny"
SIZES = {
    "vocab_size": 99,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}


@pytest.fixture
def model() -> FusionT5:
    torch.manual_seed(0)
    return FusionT5(FusionT5Config(patch_dim=12, **SIZES)).eval()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(2, 99, (3, 7), generator=generator),
        "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 7]),
        "labels": torch.randint(2, 99, (3, 5), generator=generator),
    }


def features(num_patches: int = 6) -> torch.Tensor:
    return torch.randn(3, num_patches, 12, generator=torch.Generator().manual_seed(2))


def test_text_only_equals_t5(tmp_path, batch):
    """Would catch a fusion that touches the text path, or T5 weights lost on loading."""
    torch.manual_seed(0)
    t5 = T5ForConditionalGeneration(T5Config(**SIZES)).eval()
    t5.save_pretrained(tmp_path)
    fused = FusionT5.from_pretrained(tmp_path, patch_dim=12).eval()
    assert torch.equal(fused(**batch).logits, t5(**batch).logits)
    absent = torch.zeros(3, dtype=torch.bool)
    logits = fused(**batch, image_features=features(), image_mask=absent).logits
    assert torch.equal(logits, t5(**batch).logits)


def test_initialisation_is_that_of_t5():
    """Would catch transformers' N(0, 1) for blocks of classes outside of it (0.06 here, not 1)."""
    sizes = SIZES | {"d_model": 128, "d_kv": 32, "d_ff": 256}
    torch.manual_seed(0)
    expected = T5ForConditionalGeneration(T5Config(**sizes)).encoder.state_dict()
    torch.manual_seed(0)
    found = FusionT5(FusionT5Config(patch_dim=12, **sizes)).encoder.state_dict()
    for name, weight in expected.items():
        if weight.dim() == 2 and "relative" not in name:
            assert found[name].std() == pytest.approx(weight.std().item(), rel=0.1), name
    assert found["gate_dense.weight"].abs().max() <= 256**-0.5
    assert found["image_dense.weight"].abs().max() <= 12**-0.5


def test_fuse_is_the_papers_formula(model):
    """Equations 4 to 6 written out with plain matrix products."""
    encoder = model.encoder
    text, image = torch.randn(3, 7, 32), features()
    state = encoder.state_dict()
    keys = image @ state["image_dense.weight"].T + state["image_dense.bias"]
    weight, bias = state["mha_layer.in_proj_weight"], state["mha_layer.in_proj_bias"]
    q = text @ weight[:32].T + bias[:32]
    k = keys @ weight[32:64].T + bias[32:64]
    v = keys @ weight[64:].T + bias[64:]
    attended = torch.softmax(q @ k.transpose(1, 2) / 32**0.5, dim=-1) @ v
    attended = attended @ state["mha_layer.out_proj.weight"].T + state["mha_layer.out_proj.bias"]
    both = torch.cat([text, attended], dim=-1)
    gate = torch.sigmoid(both @ state["gate_dense.weight"].T + state["gate_dense.bias"])
    expected = (1 - gate) * text + gate * attended
    torch.testing.assert_close(encoder.fuse(text, image), expected, rtol=1e-5, atol=1e-5)


def test_patch_mask_equals_fewer_patches(model, batch):
    """Would catch a mask of the wrong polarity."""
    mask = torch.arange(6).expand(3, 6) < 4
    masked = model(**batch, image_features=features(), image_mask=mask).logits
    cut = model(**batch, image_features=features()[:, :4]).logits
    torch.testing.assert_close(masked, cut, rtol=1e-5, atol=1e-5)
    whole = model(**batch, image_features=features()).logits
    assert (masked - whole).abs().max() > 1e-3


def test_absent_rows_do_not_change_the_others(model, batch):
    mask = torch.tensor([True, False, True])
    mixed = model(**batch, image_features=features(), image_mask=mask).logits
    whole = model(**batch, image_features=features()).logits
    text = model(**batch).logits
    assert torch.equal(mixed[1], text[1])
    torch.testing.assert_close(mixed[[0, 2]], whole[[0, 2]])
    assert mixed.isfinite().all()


def test_loss_of_parts_adds_up(model, batch):
    """Would catch the loss scale that Trainer's accumulation expects being ignored."""
    batch["labels"][1, 2:] = -100
    count = batch["labels"].ne(-100).sum()
    whole = model(**batch).loss
    rows = [
        model(**{k: v[i : i + 1] for k, v in batch.items()}, num_items_in_batch=count).loss
        for i in range(3)
    ]
    torch.testing.assert_close(sum(rows), whole)


def test_save_and_load(tmp_path, model, batch):
    model.save_pretrained(tmp_path)
    loaded, loading = FusionT5.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"]
    arguments = batch | {"image_features": features()}
    assert torch.equal(loaded.eval()(**arguments).logits, model(**arguments).logits)
    assert loaded.config.patch_dim == 12
    assert loaded.lm_head.weight is loaded.shared.weight


def test_generate_equals_argmax_loop(model, batch):
    """Would catch features that generate() drops after the first token."""
    arguments = {k: batch[k] for k in ("input_ids", "attention_mask")}
    arguments["image_features"] = features()
    found = model.generate(**arguments, max_new_tokens=6, do_sample=False)
    tokens = torch.zeros(3, 1, dtype=torch.long)
    for _ in range(6):
        logits = model(**arguments, decoder_input_ids=tokens).logits[:, -1]
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    ended = (tokens[:, 1:] == 1).long().cumsum(1).cumsum(1) > 1
    expected = tokens[:, 1:].masked_fill(ended, 0)
    assert torch.equal(found[:, 1:], expected[:, : found.shape[1] - 1])


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the reference's tiny checkpoints")
@pytest.mark.parametrize(
    ("name", "patch_dim"), [("gen1-detr", 256), ("gen2-vit", 1024), ("gen2-clip", 2048)]
)
def test_reference_checkpoints(name, patch_dim):
    model, loading = FusionT5.from_pretrained(
        REFERENCE / name,
        patch_dim=patch_dim,
        absent_image="zeros",
        key_mapping={r"^(image_dense|mha_layer|gate_dense)\.": r"encoder.\1."},
        output_loading_info=True,
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    inputs = torch.load(REFERENCE / name / "inputs.pt", weights_only=True)
    expected = torch.load(REFERENCE / name / "expected.pt", weights_only=True)
    inputs["image_features"] = inputs.pop("image_ids")
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    torch.testing.assert_close(outputs.logits, expected["logits"], rtol=1e-5, atol=5e-5)
    torch.testing.assert_close(outputs.loss, expected["loss"], rtol=1e-5, atol=1e-5)
    if "greedy" in expected:
        del inputs["labels"]
        found = model.generate(**inputs, max_length=14, do_sample=False)
        assert torch.equal(found, expected["greedy"])
