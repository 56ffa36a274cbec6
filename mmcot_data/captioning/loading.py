"""Load a captioner: from the hub or its cache, from a folder, or with drawn weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    VisionEncoderDecoderModel,
)

from mmcot_data.captioning.captioner import Captioner
from mmcot_data.captioning.config import CaptionerConfig
from mmcot_data.captioning.inputs import PictureInputs
from mmcot_data.captioning.known_by import find_precision
from mmcot_data.captioning.tiny import SEED, build_tiny, tiny_image_processor, tiny_tokenizer
from mmcot_data.encoders.compute import HALF_DTYPES, find_device
from mmcot_data.encoders.pretrained import (
    Source,
    explained,
    find_source,
    load_model,
    read_config,
)
from mmcot_data.encoders.weights import LoadedModel, draw_model
from mmcot_data.errors import EncoderError

__all__ = ["load_captioner"]

_ENCODER_DECODER = "vision-encoder-decoder"
_TAKE_PLAIN_PROMPTS = ("blip", "blip-2", "instructblip")
"""Model types that were trained on bare prompts, whatever template stands beside them."""
_CHAT_PROMPT = "Describe the image in one sentence."


def load_captioner(config: CaptionerConfig) -> Captioner:
    """Load the model of a captioner with its processor and tokenizer.

    Raises:
        EncoderError: If they cannot be found or read, weights are missing, or the model is no
            image-to-text model or takes no prompt.
    """
    device = find_device(config.device)
    precision = find_precision(config, device)
    dtype = HALF_DTYPES.get(precision, torch.float32)
    load = _load_tiny if config.name == "tiny" else _load_pretrained
    model, inputs, tokenizer = load(config, dtype)
    return Captioner(
        model=model,
        inputs=inputs,
        tokenizer=tokenizer,
        facts=config.facts(),
        device=device,
        precision=precision,
        alpha=config.alpha,
    )


def _load_tiny(
    config: CaptionerConfig, dtype: torch.dtype
) -> tuple[LoadedModel, PictureInputs, Any]:
    if config.model is not None or config.revision is not None:
        raise EncoderError(
            "the captioner tiny draws its weights and loads no model; a model of your own is "
            f"`--captioner hf:{config.model or 'MODEL'}`"
        )
    _refuse_prompt(config, "the captioner tiny")
    seed = SEED if config.random_weights is None else config.random_weights
    model = _draw(build_tiny, seed, config.facts().model_id, dtype)
    model = replace(model, random_weights=config.random_weights)
    return model, PictureInputs(tiny_image_processor(), alpha=config.alpha), tiny_tokenizer()


def _load_pretrained(
    config: CaptionerConfig, dtype: torch.dtype
) -> tuple[LoadedModel, PictureInputs, Any]:
    source = find_source(config, config.facts().model_id)
    settings = read_config(source)
    if type(settings) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise EncoderError(
            f"{source.location} is a model of type {settings.model_type!r}, expected one that "
            "writes text for pictures (image-text-to-text or vision-encoder-decoder)"
        )
    inputs, tokenizer = _load_processors(config, source, settings.model_type)
    _check_tokenizer(source, tokenizer, settings)
    auto_model: Any = AutoModelForImageTextToText
    if config.random_weights is not None:
        model = _draw(
            lambda: _used_part(auto_model.from_config(settings))[1],
            config.random_weights,
            source.model_id,
            dtype,
        )
    else:
        model = load_model(
            auto_model, source, _used_part, dtype, config=settings, trust_remote_code=False
        )
    return model, inputs, tokenizer


def _load_processors(
    config: CaptionerConfig, source: Source, model_type: str
) -> tuple[PictureInputs, Any]:
    """What prepares pictures, and the tokenizer."""
    options = {"revision": source.revision, "trust_remote_code": False}
    if model_type == _ENCODER_DECODER:
        _refuse_prompt(config, source.location)
        auto_image_processor: Any = AutoImageProcessor
        auto_tokenizer: Any = AutoTokenizer
        with explained(source, "preprocessor_config.json"):
            image_processor = auto_image_processor.from_pretrained(source.location, **options)
        with explained(source, "its tokenizer"):
            tokenizer = auto_tokenizer.from_pretrained(source.location, **options)
        return PictureInputs(image_processor, alpha=config.alpha), tokenizer
    auto_processor: Any = AutoProcessor
    with explained(source, "its processor"):
        processor = auto_processor.from_pretrained(source.location, **options)
    if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
        raise EncoderError(
            f"{source.location} has no processor of pictures and text, found only "
            f"{type(processor).__name__}: expected processor_config.json or "
            "preprocessor_config.json and a tokenizer beside the model"
        )
    has_template = getattr(processor, "chat_template", None) is not None
    is_chat = has_template and model_type not in _TAKE_PLAIN_PROMPTS
    prompt = config.facts().prompt or (_CHAT_PROMPT if is_chat else None)
    inputs = PictureInputs(
        processor.image_processor, processor, prompt=prompt, is_chat=is_chat, alpha=config.alpha
    )
    return inputs, processor.tokenizer


def _check_tokenizer(source: Source, tokenizer: Any, settings: Any) -> None:
    """Where its files are absent, transformers may give an empty tokenizer, which hides all words.

    Vocabularies may be smaller than what the model was padded to, but not by half.
    """
    vocab_size = getattr(settings.get_text_config(decoder=True), "vocab_size", 0)
    if 2 * len(tokenizer) < vocab_size:
        raise EncoderError(
            f"{source.location}: the tokenizer holds {len(tokenizer)} tokens and the model writes "
            f"{vocab_size}: expected the tokenizer's files (tokenizer.json, vocab.txt, …) beside "
            "the model"
        )


def _draw(
    build: Callable[[], nn.Module], seed: int, model_id: str, dtype: torch.dtype
) -> LoadedModel:
    model = draw_model(build, seed, model_id)
    model.module.to(dtype)
    return model


def _used_part(model: Any) -> tuple[str, nn.Module]:
    """The model without its vision encoder's pooler, which checkpoints often lack: none uses it."""
    if isinstance(model, VisionEncoderDecoderModel):
        pooler = getattr(model.encoder, "pooler", None)
        if pooler is not None and any(True for _ in pooler.parameters()):
            model.encoder.pooler = None
    return "", model


def _refuse_prompt(config: CaptionerConfig, what: str) -> None:
    if config.prompt is not None:
        raise EncoderError(f"{what} takes no prompt: leave out --prompt")
