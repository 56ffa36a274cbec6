"""From questions to batches: tokens, features by question id, and an order without much padding.

Shape suffixes: B = batch, S = source tokens, T = target tokens, P = patches, D = feature width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from mmcot_data.cut_report import CutReport
from mmcot_data.inputs import ModelInput, encode_inputs
from mmcot_data.truncation import Truncation

__all__ = [
    "Collator",
    "CutReport",
    "Example",
    "ExampleDataset",
    "FeatureSource",
    "LengthSampler",
    "Tokenized",
    "tokenize",
]


@dataclass(frozen=True, slots=True)
class Example:
    """A question as the model sees it, in tokens."""

    question_id: str
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Examples, and what of their texts was cut to make them fit."""

    examples: list[Example]
    cuts: CutReport


class FeatureSource(Protocol):
    """What batches need of a feature set; ``mmcot_data.shards.FeatureSet`` is one."""

    def gather(
        self, question_ids: Sequence[str]
    ) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]]:
        """Features (B, P, D) and mask (B, P), false where a question has no picture.

        The id of a blank, which is none of any question, is the empty text.
        """
        ...


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[ModelInput],
    *,
    max_source: int,
    max_target: int | None,
    truncation: Truncation = "keep",
) -> Tokenized:
    """Tokenize sources and targets, and cut what exceeds the limits.

    Arguments and errors are those of ``mmcot_data.inputs.encode_inputs``, which ``mmcot-data
    inputs`` shows, too. A target that is None becomes an empty one.
    """
    encoded = encode_inputs(
        tokenizer, inputs, max_source=max_source, max_target=max_target, truncation=truncation
    )
    examples = [
        Example(row.question_id, source.ids, target.ids)
        for row, source, target in zip(inputs, encoded.sources, encoded.targets, strict=True)
    ]
    return Tokenized(examples, encoded.cuts)


_BLANK = Example("", [1], [])  # no labels: it counts nothing in the loss


class ExampleDataset(Dataset[Example]):
    """Examples for a DataLoader, and after the last one a blank that fills up batches."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return _BLANK if index == len(self.examples) else self.examples[index]


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
        is_blank_B = torch.tensor([not example.labels for example in batch])
        arguments["labels"][is_blank_B] = -100
        if self.features is not None:
            features_BPD, mask_BP = self.features.gather([e.question_id for e in batch])
            arguments["image_features"] = torch.from_numpy(features_BPD)
            arguments["image_mask"] = torch.from_numpy(mask_BP)
        return arguments

    def _pad(self, rows: list[list[int]], value: int, length: int | None) -> torch.Tensor:
        longest = max(1, *(len(row) for row in rows))
        width = length or -(-longest // self.pad_multiple) * self.pad_multiple
        padded = np.full((len(rows), width), value, dtype=np.int64)
        for row, ids in zip(padded, rows, strict=True):
            row[: len(ids)] = ids
        return torch.from_numpy(padded)


class LengthSampler(Sampler[int]):
    """A random order whose consecutive batches hold texts of like lengths.

    Shuffles, packs windows of many batches, and shuffles the batches. A window is sorted by target,
    cut into strips of several batches, and each strip sorted by source: that pads far less than
    sorting by the sum, where a long source with a short target meets the reverse. Each epoch has
    another order.

    Args:
        lengths: Tokens of the source and of the target of each example; or one number each.
        batch_size: Examples a step, over all processes and accumulation steps.
        seed: Of the order; the same seed and epoch give the same order.
        window: Number of batches that are packed together; 1 keeps their order random.
        multiple: Of several processes: the order is filled up with blanks to a multiple of this.
            accelerate would fill it up with questions that then count twice.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Sequence[tuple[int, int]],
        batch_size: int,
        *,
        seed: int,
        window: int = 50,
        multiple: int = 1,
    ) -> None:
        lengths_NL = np.asarray(lengths, dtype=np.int64).reshape(len(lengths), -1)
        self._sources, self._targets = lengths_NL[:, 0], lengths_NL[:, -1]
        self.batch_size = batch_size
        self.seed = seed
        self.window = window
        self.num_blanks = -len(lengths) % multiple
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; called by the trainer, also when it resumes."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._sources) + self.num_blanks

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self._sources))
        size = self.window * self.batch_size
        packed = np.concatenate(
            [self._pack(order[start : start + size]) for start in range(0, len(order), size)]
        )
        full, rest = divmod(len(packed), self.batch_size)
        batches = packed[: full * self.batch_size].reshape(full, self.batch_size)
        yield from batches[rng.permutation(full)].ravel().tolist()
        if rest:
            yield from packed[-rest:].tolist()
        yield from [len(self._sources)] * self.num_blanks

    def _pack(self, window: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Order the examples of a window so that its batches need little padding."""
        strip = self.batch_size * math.ceil(math.sqrt(self.window))
        by_target = window[np.lexsort((self._sources[window], self._targets[window]))]
        strips = [by_target[start : start + strip] for start in range(0, len(window), strip)]
        return np.concatenate(
            [part[np.argsort(self._sources[part], kind="stable")] for part in strips]
        )
