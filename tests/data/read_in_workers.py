"""Read a feature set through DataLoader's worker processes: run by test_shards_torch.py.

In a process of its own, since other tests leave threads behind that do not survive a fork.
"""

import sys

import torch
from torch.utils.data import DataLoader

from mmcot_data.shards import open_features
from mmcot_data.shards.torch import PatchFeatures


def main() -> None:
    """Arguments: folder, start method, question ids."""
    folder, method, *question_ids = sys.argv[1:]
    features = open_features(folder)
    features.gather(question_ids[:1])
    loader = DataLoader(
        PatchFeatures(features, question_ids),
        batch_size=2,
        collate_fn=PatchFeatures.collate,
        num_workers=2,
        multiprocessing_context=method,
    )
    found = torch.cat([batch for batch, _ in loader])
    sys.stdout.write(found.numpy().tobytes().hex())


if __name__ == "__main__":
    main()
