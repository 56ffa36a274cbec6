"""Which pictures to caption, with which model, and into what."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mmcot_data.captioning.table import CaptionerFacts, find_facts
from mmcot_data.encoders.base import Alpha
from mmcot_data.sources import LAYOUTS, Layout

__all__ = ["CaptionConfig", "CaptionPrecision", "CaptionerConfig"]

CaptionPrecision = Literal["auto", "fp32", "bf16", "fp16"]
"""Of the weights and of the computation. ``auto`` is bf16 on a GPU that has it, else fp32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionerConfig:
    """Which model to load, and how it writes.

    Raises:
        EncoderError: If there is no captioner of the name.
        ValueError: If a setting is not one of those that are possible.
    """

    name: str
    """A captioner of ``CAPTIONERS``, or ``hf:`` and a hub id or a local folder."""
    model: str | None = None
    """Local folder or hub id that replaces the captioner's own model id."""
    revision: str | None = None
    """Hub revision: branch, tag or commit."""
    random_weights: int | None = None
    """Seed of random weights drawn instead of loading trained ones; for trials and tests."""
    prompt: str | None = None
    """What is said to the model beside the picture; None is the captioner's own."""
    max_new_tokens: int | None = None
    """Longest caption; None is the captioner's own, as below."""
    num_beams: int | None = None
    """Of beam search; 1 takes the likeliest token each time."""
    repetition_penalty: float | None = None
    alpha: Alpha = "white"
    precision: CaptionPrecision = "auto"
    device: str = "auto"
    """``auto`` is CUDA where there is one, else the CPU."""

    def __post_init__(self) -> None:
        find_facts(self.name)
        for name, value, allowed in (
            ("alpha", self.alpha, get_args(Alpha)),
            ("precision", self.precision, get_args(CaptionPrecision)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")
        for name, number in (
            ("max_new_tokens", self.max_new_tokens),
            ("num_beams", self.num_beams),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}, expected at least 1")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise ValueError(
                f"repetition_penalty is {self.repetition_penalty}, expected more than 0"
            )
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError("the prompt is empty: leave it out")
        if self.random_weights is not None and self.revision is not None:
            raise ValueError("random_weights draws the weights: a revision has no meaning with it")

    def facts(self) -> CaptionerFacts:
        """The captioner's own facts with those settings instead that were given."""
        own = find_facts(self.name)
        return CaptionerFacts(
            model_id=own.model_id,
            max_new_tokens=self.max_new_tokens or own.max_new_tokens,
            num_beams=self.num_beams or own.num_beams,
            repetition_penalty=self.repetition_penalty or own.repetition_penalty,
            prompt=self.prompt or own.prompt,
            about=own.about,
            licence=own.licence if self.model is None else "see the model's card",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionConfig:
    """The captions of one data set by one captioner.

    Raises:
        ValueError: If a setting is not one of those that are possible.
    """

    data: Path
    """The data set: a folder in ScienceQA's layout, a folder of pictures, …: see ``layout``."""
    out: Path
    """Artifact root; the captions become ``captions/<producer>.parquet`` in it."""
    captioner: CaptionerConfig
    producer: str | None = None
    """Name of the captions; None is the captioner's, or that of the model that was given."""
    layout: Layout = "auto"
    """What ``data`` is; ``auto`` looks at it."""
    id_column: str | None = None
    """Of a table of pictures: the column that identifies them."""
    image_column: str | None = None
    """Of a table of pictures: the column that holds them."""
    licence: str | None = None
    """Of the pictures; None takes what the data set says."""
    splits: tuple[str, ...] | None = None
    """Only the pictures of these splits; all if None."""
    roles: tuple[str, ...] | None = None
    """Only the pictures in these roles, as ``question`` and ``choice_0``; all if None."""
    batch_size: int | None = None
    """Pictures captioned together; None is 8 on a CPU and 16 on a GPU."""
    max_failures: str = "1%"
    """Pictures that may fail: a number, or a percentage of the pictures asked for."""

    def __post_init__(self) -> None:
        from mmcot_data.extraction.config import allowed_failures

        if self.layout not in LAYOUTS:
            raise ValueError(f"layout is {self.layout!r}, expected one of {', '.join(LAYOUTS)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}, expected at least 1")
        if self.roles is not None and not self.roles:
            raise ValueError("roles is empty: expected roles, or None for all pictures")
        allowed_failures(self.max_failures, 0)

    @property
    def producer_name(self) -> str:
        """Name of the captions' file, without its suffix."""
        if self.producer is not None:
            return self.producer
        name = self.captioner.model or self.captioner.name.removeprefix("hf:")
        return Path(name).expanduser().name or Path(name).resolve().name
