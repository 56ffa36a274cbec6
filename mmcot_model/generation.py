"""Generate rationales and answers: always from the source alone, with the key-value cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from mmcot_data.row_sampling import Sampling
from mmcot_model.batches import Collator, Example
from mmcot_model.fusion import FusionT5
from mmcot_model.precision import autocast

__all__ = ["Generation", "generate"]

_GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Generation:
    """What the model wrote for one question."""

    question_id: str
    text: str
    finish_reason: Literal["stop", "length"]


def generate(
    model: FusionT5,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    collate: Collator,
    *,
    max_new_tokens: int,
    batch_size: int,
    precision: str = "fp32",
    static_cache: bool = False,
    sampling: Sampling = _GREEDY,
    seeds: Sequence[int] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_batch: Callable[[Sequence[int], Sequence[Generation]], None] | None = None,
) -> list[Generation]:
    """Generate in batches of like length; a picture is encoded once for all its tokens.

    Args:
        model: Moved nowhere: inputs go to the device it is on.
        tokenizer: The one it was trained with.
        examples: Questions; their labels are not looked at.
        collate: Makes batches and fetches features.
        max_new_tokens: Limit of a text.
        batch_size: Questions at once.
        precision: Of the arithmetic: ``auto``, ``fp32`` or ``bf16``, as for ``choose_precision``.
        static_cache: Give the cache of a batch its final size at the start. On a GPU transformers
            compiles the model then, which many batches pay back; elsewhere it changes nothing.
        sampling: How tokens are chosen; greedily by default.
        seeds: Of each example, where tokens are drawn: a text depends on its own alone.
        on_progress: Called with (done, all) after each batch.
        on_batch: Called after each batch with the positions of its examples and what was written.

    Returns:
        One generation an example, in the order of ``examples``.

    Raises:
        TrainingError: If the device cannot compute in ``precision``.
    """
    generator: Any = model.eval()  # its annotations want a decoder-only model
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].input_ids))
    generations: dict[int, Generation] = {}
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = collate([examples[i] for i in indices])
        del batch["labels"]
        with torch.no_grad(), autocast(precision, model.device):  # not inference_mode: see there
            tokens_BT = generator.generate(
                **{name: tensor.to(model.device) for name, tensor in batch.items()},
                max_new_tokens=max_new_tokens,
                cache_implementation="static" if static_cache else None,
                do_sample=False,  # where tokens are drawn, the processors do it
                logits_processor=sampling.processors(
                    [seeds[i] for i in indices] if seeds else [], max_new_tokens, model.device
                ),
            )
        texts = tokenizer.batch_decode(tokens_BT, skip_special_tokens=True)
        ended_B = (tokens_BT == tokenizer.eos_token_id).any(dim=1).tolist()
        for index, text, ended in zip(indices, texts, ended_B, strict=True):
            generations[index] = Generation(
                examples[index].question_id, text.strip(), "stop" if ended else "length"
            )
        if on_batch is not None:
            on_batch(indices, [generations[index] for index in indices])
        if on_progress is not None:
            on_progress(len(generations), len(order))
    return [generations[index] for index in range(len(examples))]
