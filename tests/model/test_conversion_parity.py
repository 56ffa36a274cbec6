"""FusionT5 against outputs of the reference's own code, on its tiny checkpoints.

`pytest tests/model/test_conversion_parity.py -s -q` prints the table of differences.
"""

from pathlib import Path

import pytest
import torch
from reference_checkpoints import TEXTS

from mmcot_model.checkpoints.conversion import convert_checkpoint
from mmcot_model.loading import load_model
from mmcot_model.tokenizer import train_tokenizer

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "mm-cot-tiny"
ENCODERS = {"gen1-detr": "detr", "gen2-vit": "vit", "gen2-clip": "clip-rn101"}
LIMIT = 1e-5

pytestmark = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="needs the reference's tiny checkpoints"
)


@pytest.fixture(params=ENCODERS)
def converted(request, tmp_path):
    """Name of the checkpoint, and the folder made of it."""
    train_tokenizer(TEXTS, 160).save_pretrained(tmp_path / "words")
    convert_checkpoint(
        REFERENCE / request.param,
        tmp_path / "out",
        encoder=ENCODERS[request.param],
        tokenizer=str(tmp_path / "words"),
    )
    return request.param, tmp_path / "out"


def read(name):
    inputs, expected = (
        torch.load(REFERENCE / name / f"{kind}.pt", weights_only=True)
        for kind in ("inputs", "expected")
    )
    inputs["image_features"] = inputs.pop("image_ids")
    return inputs, expected


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_outputs_are_those_of_the_reference(converted, attention):
    """Would catch any difference in names, order, scale or treatment of an absent picture.

    The limit is relative to the largest logit (up to 6.4): in float32 the reference's outputs
    themselves are up to 3.8e-5 away from those in float64.
    """
    name, folder = converted
    inputs, expected = read(name)
    assert not inputs["image_features"][2].any()  # no picture
    assert inputs["labels"].eq(0).any()  # padding that is counted
    model, _ = load_model(str(folder))
    model.set_attn_implementation(attention)
    with torch.no_grad():
        outputs = model(**inputs, image_mask=torch.tensor([True, True, False, True]))
        state = outputs.encoder_last_hidden_state
        if name.startswith("gen1"):  # there it is the state before the fusion
            state = model.encoder(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
        ignored = inputs["labels"].masked_fill(inputs["labels"].eq(0), -100)
        without_pads = model(**inputs | {"labels": ignored}).loss
    logits = expected["logits"]
    difference = (outputs.logits - logits).abs()
    pads = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ignored.flatten())
    scale = logits.abs().max()
    print(
        f"\n{name:10} {attention:6} logits {difference.max():.1e} ({difference.max() / scale:.1e} "
        f"of {scale:.2f}), absent row {difference[2].max():.1e}, encoder state "
        f"{(state - expected['encoder_last_hidden_state']).abs().max():.1e}, loss "
        f"{(outputs.loss - expected['loss']).abs():.1e}, without pads "
        f"{(without_pads - pads).abs():.1e}"
    )
    assert difference.max() <= LIMIT * scale
    torch.testing.assert_close(state, expected["encoder_last_hidden_state"], rtol=0, atol=LIMIT)
    torch.testing.assert_close(outputs.loss, expected["loss"], rtol=0, atol=LIMIT)
    torch.testing.assert_close(without_pads, pads, rtol=0, atol=LIMIT)


@pytest.mark.parametrize("converted", ["gen2-vit", "gen2-clip"], indirect=True)
def test_greedy_text_is_that_of_the_reference(converted):
    """Would catch features that are lost in generation; generation 1 could not generate."""
    name, folder = converted
    inputs, expected = read(name)
    del inputs["labels"]
    model, _ = load_model(str(folder))
    found = model.generate(**inputs, max_length=14, do_sample=False)
    assert torch.equal(found, expected["greedy"])
