"""The captioners that have a name of their own."""

from dataclasses import dataclass

from mmcot_data.errors import EncoderError

__all__ = ["CAPTIONERS", "CaptionerFacts", "find_facts"]

_ANY_MODEL = "hf:"


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionerFacts:
    """A model, and how it writes unless told otherwise."""

    model_id: str
    """Hugging Face id; the captioner's own name where the weights are drawn, not loaded."""
    max_new_tokens: int = 64
    num_beams: int = 1
    """1 takes the likeliest token each time."""
    repetition_penalty: float = 1.0
    """Divides the scores of tokens that are there already; 1 does nothing."""
    prompt: str | None = None
    about: str = "any image-to-text model of transformers"
    licence: str = "see the model's card"
    """Of the weights, as their authors state it."""


CAPTIONERS = {
    "vit-gpt2": CaptionerFacts(
        model_id="nlpconnect/vit-gpt2-image-captioning",
        max_new_tokens=63,  # of 64 with the one that starts the text
        num_beams=4,
        about="one short sentence; ScienceQA's own captions.json",
        licence="Apache-2.0",
    ),
    "blip": CaptionerFacts(
        model_id="Salesforce/blip-image-captioning-base",
        max_new_tokens=30,
        num_beams=3,
        about="one short sentence",
        licence="BSD-3-Clause",
    ),
    "blip2": CaptionerFacts(
        model_id="Salesforce/blip2-opt-2.7b",
        max_new_tokens=30,
        num_beams=5,
        about="one short sentence",
        licence="MIT; the language model within it OPT-175B, non-commercial",
    ),
    "instructblip": CaptionerFacts(
        model_id="Salesforce/instructblip-vicuna-7b",
        max_new_tokens=256,
        num_beams=5,
        repetition_penalty=1.5,
        prompt="Write a detailed description.",
        about="a paragraph; the captions of Multimodal-CoT's paper",
        licence="non-commercial: LLaMA and Vicuna",
    ),
    "tiny": CaptionerFacts(
        model_id="mmcot-tiny-captioner-v1",
        max_new_tokens=12,
        about="drawn weights, no download: its captions are nonsense, for trials only",
        licence="none needed",
    ),
}
"""By name."""


def find_facts(name: str) -> CaptionerFacts:
    """The facts of a captioner: one of ``CAPTIONERS``, or ``hf:`` and a hub id or a folder.

    Raises:
        EncoderError: If there is no such captioner.
    """
    if name in CAPTIONERS:
        return CAPTIONERS[name]
    if name.startswith(_ANY_MODEL) and name != _ANY_MODEL:
        return CaptionerFacts(model_id=name.removeprefix(_ANY_MODEL))
    raise EncoderError(
        f"no captioner {name!r}; expected {', '.join(CAPTIONERS)} or hf:<model id or folder>"
    )
