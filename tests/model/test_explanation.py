"""The fusion's weights against the paper's formula, and what is made of them."""

import numpy as np
import pytest
import torch

from mmcot_model.batches import Collator, Example
from mmcot_model.feature_layout import FeatureLayout
from mmcot_model.fusion import FusionT5, FusionT5Config
from mmcot_model.loading import new_model
from mmcot_model.trained.explanation import Explanation, explain

WIDTH, D, P, S = 32, 12, 6, 7
SIZES = {"vocab_size": 99, "d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["text", "zeros"])
def encoder(request):
    torch.manual_seed(0)
    config = FusionT5Config(patch_dim=D, absent_image=request.param, **SIZES)
    return FusionT5(config).eval().encoder


def weights_by_hand(encoder, text, features, shown):
    """Attention, attended and gate written out with plain matrix products."""
    state = encoder.state_dict()
    image = features @ state["image_dense.weight"].T + state["image_dense.bias"]
    weight, bias = state["mha_layer.in_proj_weight"], state["mha_layer.in_proj_bias"]
    q, k, v = (
        side @ weight[i * WIDTH : (i + 1) * WIDTH].T + bias[i * WIDTH : (i + 1) * WIDTH]
        for i, side in enumerate((text, image, image))
    )
    logits = (q @ k.transpose(1, 2) / WIDTH**0.5).masked_fill(~shown[:, None], -torch.inf)
    attention = torch.softmax(logits, dim=-1)
    attended = attention @ v
    attended = attended @ state["mha_layer.out_proj.weight"].T + state["mha_layer.out_proj.bias"]
    both = torch.cat([text, attended], dim=-1)
    gate = torch.sigmoid(both @ state["gate_dense.weight"].T + state["gate_dense.bias"])
    return attention, attended, gate


def test_weights_are_those_of_the_formula_and_give_the_fused_state(encoder):
    """Would catch weights before the softmax, of another head, or a mask that they ignore."""
    text, features = draw(2, S, WIDTH), draw(2, P, D, seed=1)
    mask = torch.tensor([[True] * P, [True] * 4 + [False] * 2])
    shown = mask if encoder.config.absent_image == "text" else torch.ones_like(mask)
    attention, attended, gate = weights_by_hand(encoder, text, features, shown)
    found = encoder.explain(text, features, mask)
    torch.testing.assert_close(found.attention_BSP, attention, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.gate_BSC, gate, rtol=1e-5, atol=1e-6)
    fused = (1 - found.gate_BSC) * text + found.gate_BSC * attended
    torch.testing.assert_close(encoder.fuse(text, features, mask), fused, rtol=1e-5, atol=1e-5)


def test_the_gate_of_an_absent_picture_is_shut(encoder):
    """With zero features it is open, as it is in the model that learned with them."""
    text, features = draw(1, S, WIDTH), torch.zeros(1, P, D)
    gate = encoder.explain(text, features, torch.zeros(1, P, dtype=torch.bool)).gate_BSC
    assert (gate == 0).all() == (encoder.config.absent_image == "text")


def test_fusing_keeps_its_fast_attention(encoder, monkeypatch):
    """Would catch training that pays for weights which nobody looks at."""
    asked = []
    attend = encoder.mha_layer.forward
    monkeypatch.setattr(
        encoder.mha_layer,
        "forward",
        lambda *args, **options: asked.append(options["need_weights"]) or attend(*args, **options),
    )
    text, features = draw(1, S, WIDTH), draw(1, P, D, seed=1)
    encoder.fuse(text, features)
    encoder.explain(text, features)
    assert asked == [False, True]


class Features:
    def __init__(self, mask):
        self.mask = np.array(mask)

    def gather(self, question_ids):
        return draw(len(question_ids), P, D, seed=3).numpy(), self.mask[None]


@pytest.fixture(scope="module")
def loaded():
    texts = ["Question: Which is red? Options: (A) one (B) two Solution:", "The answer is (A)."]
    layout = FeatureLayout(encoders=("fake",), num_patches=P, patch_dim=D)
    model, tokenizer = new_model("tiny", texts, vocab_size=120, layout=layout, seed=1)
    return model.eval(), tokenizer


def make_batch(loaded, mask, pad_multiple=1):
    _, tokenizer = loaded
    ids = tokenizer("Question: Which is red?").input_ids
    collate = Collator(tokenizer.pad_token_id, Features(mask), pad_multiple=pad_multiple)
    return collate([Example("1", ids, [])]), ids


@pytest.mark.parametrize("pad_multiple", [1, 64])
def test_an_explanation_has_a_row_for_each_token_and_none_for_padding(loaded, pad_multiple):
    """Would catch padding that counts in the means, and tokens beside other tokens' weights."""
    model, tokenizer = loaded
    batch, ids = make_batch(loaded, [True] * P, pad_multiple)
    found = explain(model, tokenizer, batch)
    assert found.tokens == tuple(tokenizer.convert_ids_to_tokens(ids))
    text = model.encoder(input_ids=torch.tensor([ids])).last_hidden_state
    expected = model.encoder.explain(text, batch["image_features"], batch["image_mask"])
    np.testing.assert_allclose(
        found.attention_SP, expected.attention_BSP[0].detach(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        found.gate_S, expected.gate_BSC[0].mean(-1).detach(), rtol=1e-4, atol=1e-5
    )
    assert found.mean_gate == pytest.approx(float(expected.gate_BSC.detach().mean()), rel=1e-4)


def test_without_a_picture_there_is_nothing_to_explain(loaded):
    model, tokenizer = loaded
    batch, _ = make_batch(loaded, [False] * P)
    assert explain(model, tokenizer, batch) is None
    texts_only = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert explain(model, tokenizer, texts_only) is None


def test_a_shut_gate_says_nothing_about_the_picture():
    """Would catch a plain mean over tokens: (0.5, 0.5), not (0.2, 0.8)."""
    explanation = Explanation(
        tokens=("a", "b", "c"),
        attention_SP=np.array([[1, 0], [0, 1], [1, 0]], np.float32),
        gate_S=np.array([0.1, 0.4, 0.0], np.float32),
    )
    np.testing.assert_allclose(explanation.by_patch(), [0.2, 0.8], rtol=1e-6)


def test_behind_shut_gates_nothing_was_let_in():
    """Would catch a division by zero, which is a warning, then NaN in JSON and figure."""
    explanation = Explanation(
        tokens=("a",),
        attention_SP=np.array([[0.5, 0.5]], np.float32),
        gate_S=np.zeros(1, np.float32),
    )
    np.testing.assert_array_equal(explanation.by_patch(), [0, 0])
