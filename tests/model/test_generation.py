from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmcot_model.batches import Collator, Example
from mmcot_model.fusion import FusionT5, FusionT5Config
from mmcot_model.generation import generate
from mmcot_model.tokenizer import train_tokenizer

NUM_TOKENS = 24
WORDS = " ".join(f"word{letter}{number}" for letter in "abcdefgh" for number in range(8))


class Features:
    """Noise that depends on the question; question 3 has no picture."""

    def gather(self, question_ids):
        rows = [np.random.default_rng(int(i)).standard_normal((5, 6)) for i in question_ids]
        mask = np.array([[i != "3"] * 5 for i in question_ids])
        return np.stack(rows).astype(np.float16), mask


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([WORDS] * 3)


@pytest.fixture(scope="module")
def examples(tokenizer):
    rng = np.random.default_rng(0)
    return [
        Example(str(i), [*rng.integers(3, 60, rng.integers(2, 14)).tolist(), 1], [1])
        for i in range(12)
    ]


@pytest.fixture(scope="module")
def model(tokenizer):
    """Fresh weights whose texts depend on the source, and end after different numbers of tokens."""
    torch.manual_seed(6)
    config = FusionT5Config(
        vocab_size=60,
        patch_dim=6,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    model = FusionT5(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "EncDecAttention" in name or "relative" in name:
                weight.mul_(8)
    return model


def write(model, tokenizer, examples, **changes):
    arguments = {"max_new_tokens": NUM_TOKENS, "batch_size": 4} | changes
    return generate(model, tokenizer, examples, Collator(0, Features()), **arguments)


def calls_of(module, run):
    """The keyword arguments of each call of a module's forward."""
    calls = []
    hook = module.register_forward_pre_hook(
        lambda _module, _arguments, keywords: calls.append(keywords), with_kwargs=True
    )
    run()
    hook.remove()
    return calls


def test_texts_differ_and_end_differently(model, tokenizer, examples):
    """What the tests below rest on."""
    written = write(model, tokenizer, examples)
    assert [generation.question_id for generation in written] == [e.question_id for e in examples]
    assert len({generation.text for generation in written}) > 6
    reasons = Counter(generation.finish_reason for generation in written)
    assert min(reasons["stop"], reasons["length"]) > 1


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_a_text_does_not_depend_on_its_batch(model, tokenizer, examples, batch_size):
    """Would catch padding that is attended to, and rows that are given to another question."""
    expected = write(model, tokenizer, examples)
    assert write(model, tokenizer, examples, batch_size=batch_size) == expected
    assert write(model, tokenizer, examples[::-1], batch_size=batch_size) == expected[::-1]


def test_a_picture_is_encoded_once_and_each_token_computed_once(model, tokenizer, examples):
    """Would catch an encoder that runs for each token, and a cache that is not used."""
    fused = []
    fuse = model.encoder.fuse
    model.encoder.fuse = lambda *arguments: fused.append(1) or fuse(*arguments)
    steps = calls_of(model.decoder, lambda: write(model, tokenizer, examples))
    model.encoder.fuse = fuse
    assert len(fused) == 3
    assert len(steps) == 3 * NUM_TOKENS
    assert {step["input_ids"].shape[1] for step in steps} == {1}


def test_a_batch_ends_when_all_its_texts_have(model, tokenizer, examples):
    """Would catch batches that go on to the limit."""
    written = write(model, tokenizer, examples, batch_size=1)
    ended = [e for e, text in zip(examples, written, strict=True) if text.finish_reason == "stop"]
    steps = calls_of(model.decoder, lambda: write(model, tokenizer, ended, max_new_tokens=500))
    assert len(steps) < 2 * NUM_TOKENS


def test_static_cache_gives_the_same_texts(model, tokenizer, examples):
    """Would catch places of the cache that are attended to before they are written."""
    expected = write(model, tokenizer, examples)
    assert write(model, tokenizer, examples, static_cache=True) == expected


class Conversions(TorchDispatchMode):
    """Counts how often a weight is converted to bfloat16."""

    def __init__(self, model):
        super().__init__()
        self.weights = {parameter.data_ptr() for parameter in model.parameters()}
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function is torch.ops.aten._to_copy.default and arguments[0].data_ptr() in self.weights:
            self.counts[arguments[0].data_ptr()] += 1
        return function(*arguments, **(keywords or {}))


def test_weights_are_converted_once_a_batch(model, tokenizer, examples):
    """Would catch bf16 that is slower than fp32, because each token converts all weights anew."""
    with Conversions(model) as conversions:
        write(model, tokenizer, examples[:4], precision="bf16")
    assert len(conversions.counts) > 20
    assert set(conversions.counts.values()) == {1}
