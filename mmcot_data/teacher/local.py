"""A teacher on this machine: any causal or sequence-to-sequence text model of transformers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TypeVar

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.utils import logging as transformers_logging

from mmcot_data.encoders.compute import describe_device, find_device
from mmcot_data.errors import GenerationError
from mmcot_data.row_sampling import SeededSampling
from mmcot_data.teacher.base import Completion, Request, Steps
from mmcot_data.teacher.config import LocalConfig
from mmcot_data.teacher.decoding import StopAtText
from mmcot_data.teacher.model_files import ModelFiles
from mmcot_data.teacher.precision import resolve_precision
from mmcot_data.teacher.prompts import STOP

__all__ = ["LocalTeacher"]

T = TypeVar("T")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LOADING_ERRORS = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError),
)
_TOKEN_IDS = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("forced_bos_token_id", "forced_eos_token_id"),
)


class LocalTeacher:
    """A model in memory, with its tokenizer.

    Of the model's generation settings only the special tokens are used: a completion is sampled at
    the temperature that was asked for, without penalties.

    Args:
        config: The request.
        files: The model's.

    Raises:
        GenerationError: If it cannot be loaded, writes no text, or has no chat template though
            chat is on.
        EncoderError: If there is no such device.
    """

    def __init__(self, config: LocalConfig, files: ModelFiles) -> None:
        self.batch_size = config.batch_size
        self._name = files.model_id
        self._device = find_device(config.device)
        self._model: Any
        self._model, self._tokenizer = _load(files, _DTYPES[resolve_precision(config)])
        with self._memory_explained("for the model", "another device or a smaller model"):
            self._model.to(self._device)
        self._is_causal = not self._model.config.is_encoder_decoder
        self._window = getattr(self._model.config, "max_position_embeddings", None)
        has_template = self._tokenizer.chat_template is not None
        if config.chat == "on" and not has_template:
            raise GenerationError(
                f"the tokenizer of {files.model_id} has no chat template: use --chat off, or a "
                "model that was tuned for chat"
            )
        self._is_chat = has_template and config.chat != "off"
        self._token_ids = self._find_token_ids()
        self._model.generation_config = self._plain_generation(1)  # else mixed into ours

    def notes(self) -> dict[str, Any]:
        """Device and versions."""
        return {
            **describe_device(self._device),
            "architecture": type(self._model).__name__,
            "chat_template": self._is_chat,
            "torch": torch.__version__,
            "transformers": version("transformers"),
        }

    def close(self) -> None:
        """Nothing is held but memory."""

    def work(self, chains: Sequence[Steps[T]]) -> Iterator[list[tuple[int, T]]]:
        """Work through chains side by side; all results come at the end."""
        finished: list[tuple[int, T]] = []
        waiting = {place: next(chain) for place, chain in enumerate(chains)}
        while waiting:
            completions = self.complete(list(waiting.values()))
            places, waiting = list(waiting), {}
            for place, completion in zip(places, completions, strict=True):
                try:
                    waiting[place] = chains[place].send(completion)
                except StopIteration as end:
                    finished.append((place, end.value))
        yield finished

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete requests, in batches of those that are decoded alike.

        Returns:
            One completion a request, in their order.

        Raises:
            GenerationError: If the device has too little memory.
        """
        alike: dict[tuple[int, float, float], list[int]] = {}
        for place, request in enumerate(requests):
            manner = (request.max_new_tokens, request.temperature, request.top_p)
            alike.setdefault(manner, []).append(place)
        completions: dict[int, Completion] = {}
        for places in alike.values():
            for start in range(0, len(places), self.batch_size):
                batch = places[start : start + self.batch_size]
                texts = self._complete_batch([requests[place] for place in batch])
                completions |= zip(batch, texts, strict=True)
        return [completions[place] for place in range(len(requests))]

    def _complete_batch(self, requests: Sequence[Request]) -> list[Completion]:
        tokens = [self._tokenize(request.prompt) for request in requests]
        limit = requests[0].max_new_tokens
        room = self._room(limit)
        fitting = [place for place, ids in enumerate(tokens) if room is None or len(ids) <= room]
        completions = [Completion(text="", finish_reason="too_long") for _ in requests]
        if fitting:
            written = self._generate([tokens[i] for i in fitting], [requests[i] for i in fitting])
            for place, completion in zip(fitting, written, strict=True):
                completions[place] = completion
        return completions

    def _generate(self, tokens: list[list[int]], requests: Sequence[Request]) -> list[Completion]:
        first = requests[0]
        batch = self._tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(self._device)
        num_given = batch["input_ids"].shape[1] if self._is_causal else 1
        processors = LogitsProcessorList()
        if first.temperature > 0:
            seeds = [request.seed for request in requests]
            processors.append(
                SeededSampling(
                    seeds, first.temperature, first.top_p, first.max_new_tokens, self._device
                )
            )
        task = f"to write {len(tokens)} texts at once"
        with torch.inference_mode(), self._memory_explained(task, "a smaller --batch-size"):
            tokens_BT = self._model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                generation_config=self._plain_generation(first.max_new_tokens),
                logits_processor=processors,
                stopping_criteria=StoppingCriteriaList(
                    [StopAtText(self._tokenizer, STOP, num_given)]
                ),
            )
        return [self._read(ids) for ids in tokens_BT[:, num_given:].tolist()]

    @contextmanager
    def _memory_explained(self, task: str, remedy: str) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise GenerationError(
                f"{self._device} has too little memory {task} "
                f"({str(error).partition('. ')[0]}): use {remedy}; rationales that are written stay"
            ) from error

    def _read(self, ids: list[int]) -> Completion:
        end = self._token_ids["eos_token_id"]
        end_ids = end if isinstance(end, list) else [end]
        ends = [place for place, token in enumerate(ids) if token in end_ids]
        written = ids[: ends[0]] if ends else ids
        decoded = str(self._tokenizer.decode(written, skip_special_tokens=True))
        text, stop, _ = decoded.partition(STOP)
        return Completion(text=text, finish_reason="stop" if ends or stop else "length")

    def _tokenize(self, prompt: str) -> list[int]:
        if self._is_chat:
            message = [{"role": "user", "content": prompt}]
            text = self._tokenizer.apply_chat_template(
                message, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self._tokenizer(prompt)["input_ids"])

    def _room(self, max_new_tokens: int) -> int | None:
        """Tokens that a prompt may have; None if the model has no window."""
        if self._window is None:
            return None
        return self._window - max_new_tokens if self._is_causal else self._window

    def _find_token_ids(self) -> dict[str, Any]:
        given = self._model.generation_config
        ids = {name: getattr(given, name, None) for name in _TOKEN_IDS}
        if ids["eos_token_id"] is None:
            ids["eos_token_id"] = self._tokenizer.eos_token_id
        ids["pad_token_id"] = self._tokenizer.pad_token_id
        return ids

    def _plain_generation(self, max_new_tokens: int) -> GenerationConfig:
        make: Any = GenerationConfig  # not annotated
        config: GenerationConfig = make(
            do_sample=False,
            num_beams=1,
            use_cache=True,
            max_new_tokens=max_new_tokens,
            **self._token_ids,
        )
        return config


def _load(files: ModelFiles, dtype: torch.dtype) -> tuple[Any, PreTrainedTokenizerBase]:
    try:
        config = AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
        model_class: Any = AutoModelForCausalLM
        if config.is_encoder_decoder:
            model_class = AutoModelForSeq2SeqLM
        with _quiet():  # what is missing is an error below
            model, report = model_class.from_pretrained(
                files.folder, dtype=dtype, output_loading_info=True
            )
        tokenizer = AutoTokenizer.from_pretrained(files.folder)
    except _LOADING_ERRORS as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise GenerationError(
            f"the model {files.model_id} cannot be loaded as a text model from {files.folder} "
            f"({type(error).__name__}: {reason:.400}); expected a causal or "
            "sequence-to-sequence model with its tokenizer, as transformers' save_pretrained "
            "writes them"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise GenerationError(
            f"{files.folder} lacks {len(missing)} weights of {type(model).__name__}, "
            f"{missing[0]} first: it is another architecture or damaged"
        )
    tokenizer.padding_side = "right" if config.is_encoder_decoder else "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise GenerationError(
            f"the tokenizer of {files.model_id} has neither a padding token nor an end token: "
            "give it one with transformers and save it anew"
        )
    return model.eval().requires_grad_(False), tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the reports and progress bars of transformers."""
    reports: Any = transformers_logging  # not annotated
    verbosity, has_bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(verbosity)
        if has_bars:
            reports.enable_progress_bar()
