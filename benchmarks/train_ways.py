"""Two ways to train and to generate with one model: Multimodal-CoT's and ours.

Shape suffixes: B = batch, P = patches, D = feature width.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler
from transformers import DataCollatorForSeq2Seq

from benchmarks.train_task import Task
from mmcot_model.batches import Collator, Example, ExampleDataset, LengthSampler
from mmcot_model.generation import generate
from mmcot_model.precision import autocast

__all__ = ["Ours", "Reference", "Way"]

Batch = dict[str, torch.Tensor]


class Way(Protocol):
    """How batches are made, a model is stepped, and texts are written."""

    optimizer: torch.optim.Optimizer

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        ...

    def arithmetic(self) -> AbstractContextManager[object]:
        """Within which the loss is computed."""
        ...

    def write(self, examples: Sequence[Example], num_tokens: int) -> list[str]:
        """Texts of so many tokens each."""
        ...


class Reference:
    """Multimodal-CoT's way, as its main.py and utils_data.py do it.

    Every text is padded to the limits and the loss counts the padding; all features are in memory,
    and each item's are converted by itself and go through Python lists in the collator; the order
    is random; float32; AdamW as it is; generation without a key-value cache. To its favour texts
    are tokenized once, not anew for each batch.

    Args:
        task: What is trained.
        batch_size: Questions a batch.
        lengths: Tokens that a source and a target are padded to.
    """

    def __init__(self, task: Task, batch_size: int, lengths: tuple[int, int]) -> None:
        self.task = task
        self.batch_size = batch_size
        self.lengths = lengths
        features_NPD, _ = task.features.gather([e.question_id for e in task.examples])
        self._features_NPD = features_NPD.astype(np.float32)
        self._collate = DataCollatorForSeq2Seq(task.tokenizer)
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(task.model.parameters(), lr=5e-5)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        dataset: Any = ExampleDataset(self.task.examples)
        order = RandomSampler(dataset, generator=torch.Generator().manual_seed(number))
        return iter(
            DataLoader(dataset, batch_size=self.batch_size, sampler=order, collate_fn=self.collate)
        )

    def collate(self, examples: Sequence[Example]) -> Batch:
        """A batch of fixed size."""
        return dict(self._collate([self._item(example) for example in examples]))

    def arithmetic(self) -> AbstractContextManager[object]:
        """Within which the loss is computed."""
        return nullcontext()

    def write(self, examples: Sequence[Example], num_tokens: int) -> list[str]:
        """Texts of so many tokens each."""
        model: Any = self.task.model
        model.eval()
        texts: list[str] = []
        for start in range(0, len(examples), self.batch_size):
            batch = self.collate(examples[start : start + self.batch_size])
            del batch["labels"]
            with torch.no_grad():
                tokens_BT = model.generate(
                    **{name: tensor.to(model.device) for name, tensor in batch.items()},
                    max_new_tokens=num_tokens,
                    min_new_tokens=num_tokens,
                    do_sample=False,
                    use_cache=False,
                )
            texts += self.task.tokenizer.batch_decode(tokens_BT, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _item(self, example: Example) -> dict[str, Any]:
        num_source, num_target = self.lengths
        pad = self.task.tokenizer.pad_token_id
        ids, labels = example.input_ids, example.labels
        return {
            "input_ids": torch.tensor(ids + [pad] * (num_source - len(ids))),
            "attention_mask": torch.tensor([1] * len(ids) + [0] * (num_source - len(ids))),
            "labels": labels + [pad] * (num_target - len(labels)),
            "image_features": torch.tensor(self._features_NPD[int(example.question_id)]).squeeze(),
        }


class Ours:
    """Batches of like lengths padded to their longest texts, and what else mmcot-train does.

    Args:
        task: What is trained.
        batch_size: Questions a batch.
        precision: ``fp32`` or ``bf16``.
    """

    def __init__(self, task: Task, batch_size: int, precision: str) -> None:
        self.task = task
        self.batch_size = batch_size
        self.precision = precision
        device = task.model.device
        multiple = 8 if device.type == "cuda" else 1
        self.collate = Collator(task.tokenizer.pad_token_id, task.features, pad_multiple=multiple)
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            task.model.parameters(), lr=5e-5, fused=True
        )

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        examples = self.task.examples
        order = LengthSampler(
            [(len(example.input_ids), len(example.labels)) for example in examples],
            self.batch_size,
            seed=0,
        )
        order.set_epoch(number)
        return iter(
            DataLoader(
                ExampleDataset(examples),
                batch_size=self.batch_size,
                sampler=order,
                collate_fn=self.collate,
                pin_memory=self.task.model.device.type == "cuda",
            )
        )

    def arithmetic(self) -> AbstractContextManager[object]:
        """Within which the loss is computed."""
        return autocast(self.precision, self.task.model.device)

    def write(self, examples: Sequence[Example], num_tokens: int) -> list[str]:
        """Texts of so many tokens each."""
        settings: Any = self.task.model.generation_config
        settings.min_new_tokens = num_tokens
        written = generate(
            self.task.model,
            self.task.tokenizer,
            examples,
            self.collate,
            max_new_tokens=num_tokens,
            batch_size=self.batch_size,
            precision=self.precision,
        )
        return [generation.text for generation in written]
