"""Which teacher writes which rationales, and how."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from mmcot_data.rationales import KEEP_RULES, KeepRule

__all__ = [
    "METHODS",
    "AnswerExtraction",
    "Chat",
    "ClusterConfig",
    "EndpointConfig",
    "LimitParameter",
    "LocalConfig",
    "Method",
    "Precision",
    "TeacherConfig",
]

Method = Literal["zero-shot-cot", "few-shot-cot", "auto-cot", "least-to-most"]
METHODS: tuple[Method, ...] = get_args(Method)
AnswerExtraction = Literal["two-step", "direct"]
"""Ask a second time for the answer, or read it in the rationale."""
Chat = Literal["auto", "on", "off"]
Precision = Literal["auto", "fp32", "bf16"]
LimitParameter = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalConfig:
    """A causal or sequence-to-sequence model of transformers.

    Raises:
        ValueError: If a setting is not one of those that are possible.
    """

    model: str
    """Folder, or hub id."""
    revision: str | None = None
    """Branch, tag or commit of the hub."""
    chat: Chat = "auto"
    """Whether prompts become messages by the tokenizer's chat template; ``auto``: if it has one."""
    precision: Precision = "auto"
    """``auto`` is bf16 on devices that compute it fast, else fp32."""
    device: str = "auto"
    batch_size: int = 8
    """Texts written at once."""

    def __post_init__(self) -> None:
        _check_one_of("chat", self.chat, get_args(Chat))
        _check_one_of("precision", self.precision, get_args(Precision))
        _check_at_least("batch_size", self.batch_size, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointConfig:
    """A model behind an OpenAI-compatible server.

    Raises:
        ValueError: If a setting is not one of those that are possible.
    """

    model: str
    """Its name on the server."""
    url: str
    """Base of the server's API, such as ``http://localhost:8000/v1``."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the key; if it is not set, requests carry none."""
    concurrency: int = 8
    """Requests under way at a time."""
    timeout: float = 600.0
    """Seconds to wait for an answer."""
    retries: int = 6
    """Of a request, after a refusal or failure that may pass."""
    limit_parameter: LimitParameter = "max_tokens"
    """What the server calls the limit of new tokens."""
    no_thinking: bool = False
    """Ask the server that its chat template lets the model not think first (vLLM, SGLang and
    llama.cpp know this; OpenAI refuses it)."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url is {self.url!r}, expected one like http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("the url holds credentials or a query; give a key by environment")
        _check_at_least("concurrency", self.concurrency, 1)
        _check_at_least("retries", self.retries, 0)
        if self.timeout <= 0:
            raise ValueError(f"timeout is {self.timeout}, expected seconds above 0")
        _check_one_of("limit_parameter", self.limit_parameter, get_args(LimitParameter))


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterConfig:
    """How Auto-CoT chooses its demonstrations.

    Raises:
        ValueError: If a number is too small.
    """

    num_clusters: int = 8
    """One demonstration each."""
    model: str | None = None
    """Folder or hub id of a text encoder, whose mean states are clustered; None: TF-IDF."""
    revision: str | None = None
    max_words: int = 60
    """Of a demonstration's question, with context and options."""
    max_lines: int = 5
    """Of a demonstration's rationale."""
    max_tries: int = 8
    """Questions tried in a cluster, from its centre outwards, until a chain fits."""

    def __post_init__(self) -> None:
        for name in ("num_clusters", "max_words", "max_lines", "max_tries"):
            _check_at_least(name, getattr(self, name), 1)
        if self.revision is not None and self.model is None:
            raise ValueError("a revision is given for the clusters' text encoder, but no model")


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Rationales of one producer.

    Raises:
        ValueError: If settings are impossible, or contradict each other.
    """

    artifacts: Path
    """Artifact root, with questions.parquet."""
    teacher: LocalConfig | EndpointConfig
    producer: str = "teacher"
    """Name of the table: ``rationales/<producer>.parquet``."""
    method: Method = "zero-shot-cot"
    splits: tuple[str, ...] = ("train",)
    limit: int | None = None
    """Only the first questions of each split, as a trial; more can be made later."""
    samples: int = 1
    """Rationales of each question; more can be made later."""
    temperature: float = 0.0
    """0 takes the most probable token each time."""
    top_p: float = 1.0
    """Samples only from the most probable tokens that together have this probability."""
    max_new_tokens: int = 512
    """Of a rationale, and of each sub-question's answer."""
    seed: int = 0
    captions: str | None = None
    """Producer of captions that are appended to the context."""
    answer_extraction: AnswerExtraction | None = None
    """None: as the method's paper; ``direct`` with demonstrations, else ``two-step``."""
    keep: KeepRule | None = None
    """Which rationales are marked as kept. None: by the rule that the table has, ``all`` at
    first."""
    demonstrations: Path | None = None
    """few-shot-cot: JSON lines with question, context, choices, rationale and answer."""
    demonstrations_from: str | None = None
    """few-shot-cot: producer of rationales of train questions."""
    demonstration_ids: tuple[str, ...] = ()
    """few-shot-cot: train questions that it takes from there, in the order of the prompt."""
    clusters: ClusterConfig = field(default_factory=ClusterConfig)
    """auto-cot only."""
    max_steps: int = 4
    """least-to-most: sub-questions, at most."""

    def __post_init__(self) -> None:
        _check_one_of("method", self.method, METHODS)
        if self.keep is not None:
            _check_one_of("keep", self.keep, KEEP_RULES)
        if self.answer_extraction is not None:
            _check_one_of("answer_extraction", self.answer_extraction, get_args(AnswerExtraction))
        for name in ("samples", "max_new_tokens", "max_steps"):
            _check_at_least(name, getattr(self, name), 1)
        if self.limit is not None:
            _check_at_least("limit", self.limit, 1)
        if not self.splits:
            raise ValueError("no split is given")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature is {self.temperature}, expected 0 to 2")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected above 0 and at most 1")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"{self.samples} samples at temperature 0 would all be the same: give a "
                "temperature, such as 0.7"
            )
        self._check_demonstrations()

    @property
    def extraction(self) -> AnswerExtraction:
        """How the answer is got, the method's own way if nothing else was asked for."""
        if self.answer_extraction is not None:
            return self.answer_extraction
        return "direct" if self.method in ("few-shot-cot", "auto-cot") else "two-step"

    def _check_demonstrations(self) -> None:
        given = [
            name
            for name in ("demonstrations", "demonstrations_from", "demonstration_ids")
            if getattr(self, name)
        ]
        if self.method != "few-shot-cot":
            if given:
                raise ValueError(f"{given[0]} is for few-shot-cot, not for {self.method}")
        elif given not in (["demonstrations"], ["demonstrations_from", "demonstration_ids"]):
            raise ValueError(
                "few-shot-cot needs demonstrations: either a file, or demonstrations_from (a "
                f"producer) with demonstration_ids; found {', '.join(given) or 'none'}"
            )


def _check_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")


def _check_at_least(name: str, number: int, least: int) -> None:
    if number < least:
        raise ValueError(f"{name} is {number}, expected at least {least}")
