"""A small captioner whose weights are drawn from a fixed seed: for trials, it needs no download.

Its captions are nonsense, but each picture has its own.
"""

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

__all__ = ["SEED", "build_tiny", "tiny_image_processor", "tiny_tokenizer"]

SEED = 20230201
_SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
_PAD, _START, _END = 0, 1, 2
_WORDS = (
    "a an the and or of on in at near with under over left right top bottom two three many some "
    "picture drawing map chart graph table line arrow circle square word number letter label "
    "animal bird fish frog leaf tree flower stone bottle magnet thermometer island sea country "
    "red blue green yellow grey black white dark light long short large small round warm cold"
)
_VOCABULARY = (*_SPECIAL, *_WORDS.split())
_SIDE, _PATCH_SIZE, _WIDTH = 64, 16, 32
_SPREAD = 0.6
"""Standard deviation of the weights: large enough for a text to depend on its picture."""


def build_tiny() -> VisionEncoderDecoderModel:
    """A ViT and a GPT-2 of one layer each, with weights of torch's generator as it is."""
    sizes: dict[str, Any] = {"initializer_range": _SPREAD}
    tokens: dict[str, Any] = {
        "pad_token_id": _PAD,
        "bos_token_id": _START,
        "eos_token_id": _END,
    }
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(
            hidden_size=_WIDTH,
            intermediate_size=2 * _WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=_SIDE,
            patch_size=_PATCH_SIZE,
            **sizes,
        ),
        GPT2Config(
            vocab_size=len(_VOCABULARY),
            n_positions=512,
            n_embd=_WIDTH,
            n_layer=1,
            n_head=2,
            **sizes,
            **tokens,
        ),
        decoder_start_token_id=_START,
        **tokens,
    )
    return VisionEncoderDecoderModel(config=config)


def tiny_tokenizer() -> Any:
    """One token a word."""
    ids = {word: number for number, word in enumerate(_VOCABULARY)}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer: Any = PreTrainedTokenizerFast  # it has no types
    return tokenizer(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unknown>",
    )


def tiny_image_processor() -> ViTImageProcessor:
    """Squares of 64 pixels, between -1 and 1."""
    return ViTImageProcessor(size={"height": _SIDE, "width": _SIDE})
