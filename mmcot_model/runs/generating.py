"""Generation as a run asks for it: its tokens, its padding, and all of its processes."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from mmcot_data.inputs import ModelInput
from mmcot_model.batches import Collator, Example, Tokenized, tokenize
from mmcot_model.distributed import (
    gather_everywhere,
    is_main,
    local_device,
    num_processes,
    rank,
)
from mmcot_model.features import RunFeatures
from mmcot_model.fusion import FusionT5
from mmcot_model.generation import Generation, generate
from mmcot_model.progress import progress_bar
from mmcot_model.settings.config import TrainConfig

__all__ = ["generate_everywhere", "run_collator", "tokenize_sources"]


def tokenize_sources(
    tokenizer: PreTrainedTokenizerBase, inputs: Sequence[ModelInput], config: TrainConfig
) -> Tokenized:
    """What a model reads to generate; targets are left out."""
    return tokenize(
        tokenizer,
        inputs,
        max_source=config.max_source,
        max_target=None,
        truncation=config.truncation,
    )


def run_collator(
    config: TrainConfig,
    tokenizer: PreTrainedTokenizerBase,
    features: RunFeatures | None,
    max_target: int,
) -> Collator:
    """Pads as the run asks for, and to what tensor cores like, where there are some."""
    counted = config.label_padding == "counted"
    return Collator(
        tokenizer.pad_token_id,
        features,
        pad_multiple=8 if local_device().type == "cuda" else 1,
        lengths=(config.max_source, max_target) if config.padding == "fixed" else None,
        label_pad_id=tokenizer.pad_token_id if counted else -100,
    )


def generate_everywhere(
    model: FusionT5,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    collate: Collator,
    *,
    max_new_tokens: int,
    batch_size: int,
    precision: str,
    title: str,
) -> list[Generation]:
    """What ``generate`` writes, in the order of ``examples``, in every process.

    Args:
        model: The same in every process.
        tokenizer: Its own.
        examples: All questions; their labels are not looked at.
        collate: Makes batches and fetches features.
        max_new_tokens: Limit of a text.
        batch_size: Questions at once and process.
        precision: As in ``TrainConfig``.
        title: For the progress bar.
    """
    by_length = sorted(range(len(examples)), key=lambda i: -len(examples[i].input_ids))
    mine = by_length[rank() :: num_processes()]
    with progress_bar(title, len(mine), shown=is_main()) as advance:
        written = generate(
            model,
            tokenizer,
            [examples[i] for i in mine],
            collate,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            precision=precision,
            on_progress=advance,
        )
    everywhere = dict(gather_everywhere(list(zip(mine, written, strict=True))))
    return [everywhere[index] for index in range(len(examples))]
