"""Patch features as a PyTorch data set.

    loader = DataLoader(
        PatchFeatures(open_features("shards/detr"), question_ids),
        batch_size=32,
        collate_fn=PatchFeatures.collate,
    )
    for features_BPD, mask_BP in loader: ...

Worker processes make reading slower, not faster: each batch would be copied once more.

Shape suffixes: B = batch, P = patches, D = feature width.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch.utils.data import Dataset

from mmcot_data.shards.reader import FeatureSet

__all__ = ["PatchFeatures"]

_T = TypeVar("_T")


class PatchFeatures(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Features and mask of a list of questions.

    Args:
        features: The feature set.
        question_ids: The questions, in the order of the data set; all that have features if None.
            One without features gives zeros and a mask that is false.
    """

    def __init__(self, features: FeatureSet, question_ids: Sequence[str] | None = None) -> None:
        self.features = features
        self.question_ids = features.question_ids if question_ids is None else list(question_ids)

    def __len__(self) -> int:
        return len(self.question_ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (P, D) in the stored dtype and mask (P,) of one question."""
        features_BPD, mask_BP = self.__getitems__([index])
        return features_BPD[0], mask_BP[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A finished batch: features (B, P, D) and mask (B, P); DataLoader calls this."""
        features_BPD, mask_BP = self.features.gather([self.question_ids[i] for i in indices])
        return torch.from_numpy(features_BPD), torch.from_numpy(mask_BP)

    @staticmethod
    def collate(batch: _T) -> _T:
        """For DataLoader's ``collate_fn``: what ``__getitems__`` gives is a batch already."""
        return batch
