"""From questions to batches: tokens, features by question id, and an order without much padding.

Shape suffixes: B = batch, S = source tokens, T = target tokens, P = patches, D = feature width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from mmcot_data.inputs import ModelInput
from mmcot_data.tokens import encode

__all__ = ["Collator", "Example", "ExampleDataset", "FeatureSource", "LengthSampler", "tokenize"]


@dataclass(frozen=True, slots=True)
class Example:
    """A question as the model sees it, in tokens."""

    question_id: str
    input_ids: list[int]
    labels: list[int]


class FeatureSource(Protocol):
    """What batches need of a feature set; ``mmcot_data.shards.FeatureSet`` is one."""

    def gather(
        self, question_ids: Sequence[str]
    ) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]]:
        """Features (B, P, D) and mask (B, P), false where a question has no picture."""
        ...


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[ModelInput],
    *,
    max_source: int,
    max_target: int,
) -> list[Example]:
    """Tokenize sources and targets; what exceeds a limit is cut off on the right.

    Args:
        tokenizer: T5's tokenizer; it ends each text with ``</s>``.
        inputs: Texts by question id. A target that is None becomes an empty one.
        max_source: Most tokens of a source.
        max_target: Most tokens of a target.
    """
    sources = encode(tokenizer, [text.source for text in inputs], max_source)
    targets = encode(tokenizer, [text.target or "" for text in inputs], max_target)
    return [
        Example(text.question_id, source, target)
        for text, source, target in zip(inputs, sources, targets, strict=True)
    ]


class ExampleDataset(Dataset[Example]):
    """Examples for a DataLoader."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


class Collator:
    """Pads a batch to its longest texts and fetches its features.

    Args:
        pad_id: The tokenizer's padding id.
        features: Where features come from; None for a text-only model.
        pad_multiple: Lengths are rounded up to a multiple of this.
        lengths: Tokens of a source and of a target that all batches are padded to; None pads each
            batch to its longest texts.
        label_pad_id: What targets are padded with; -100 is not counted in the loss.
    """

    def __init__(
        self,
        pad_id: int,
        features: FeatureSource | None = None,
        *,
        pad_multiple: int = 8,
        lengths: tuple[int, int] | None = None,
        label_pad_id: int = -100,
    ) -> None:
        self.pad_id = pad_id
        self.features = features
        self.pad_multiple = pad_multiple
        self.lengths = lengths
        self.label_pad_id = label_pad_id

    def __call__(self, batch: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Arguments of ``FusionT5.forward``: ids (B, S), labels (B, T), features (B, P, D)."""
        source_length, target_length = self.lengths or (None, None)
        input_ids_BS = self._pad(
            [example.input_ids for example in batch], self.pad_id, source_length
        )
        lengths_B = torch.tensor([len(example.input_ids) for example in batch])
        arguments = {
            "input_ids": input_ids_BS,
            "attention_mask": (torch.arange(input_ids_BS.shape[1]) < lengths_B[:, None]).long(),
            "labels": self._pad(
                [example.labels for example in batch], self.label_pad_id, target_length
            ),
        }
        if self.features is not None:
            features_BPD, mask_BP = self.features.gather([e.question_id for e in batch])
            arguments["image_features"] = torch.from_numpy(features_BPD)
            arguments["image_mask"] = torch.from_numpy(mask_BP)
        return arguments

    def _pad(self, rows: list[list[int]], value: int, length: int | None) -> torch.Tensor:
        longest = max(len(row) for row in rows)
        width = length or -(-longest // self.pad_multiple) * self.pad_multiple
        padded = np.full((len(rows), width), value, dtype=np.int64)
        for row, ids in zip(padded, rows, strict=True):
            row[: len(ids)] = ids
        return torch.from_numpy(padded)


class LengthSampler(Sampler[int]):
    """A random order whose consecutive batches hold texts of like lengths.

    Shuffles, sorts by length inside windows of many batches, and shuffles the batches: 98-99 % of
    what sorting everything would save in padding, and still another order in each epoch.

    Args:
        lengths: Source and target tokens of each example together.
        batch_size: Examples a step, over all processes and accumulation steps.
        seed: Of the order; the same seed and epoch give the same order.
        window: Number of batches that are sorted together.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, *, seed: int, window: int = 50
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.window = window
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; called by the trainer, also when it resumes."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        size = self.window * self.batch_size
        windows = [order[start : start + size] for start in range(0, len(order), size)]
        by_length = np.concatenate(
            [window[np.argsort(self.lengths[window], kind="stable")] for window in windows]
        )
        full, rest = divmod(len(by_length), self.batch_size)
        batches = by_length[: full * self.batch_size].reshape(full, self.batch_size)
        yield from batches[rng.permutation(full)].ravel().tolist()
        if rest:
            yield from by_length[-rest:].tolist()
