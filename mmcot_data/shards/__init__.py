"""Feature shards: patch features on disk, read at memory speed.

    from mmcot_data.shards import open_features

    features = open_features("shards/detr")
    features_BPD, mask_BP = features.gather(["42", "7"])

Reading needs the core packages only; ``mmcot_data.shards.torch`` adds PyTorch data sets and
loaders.
"""

from mmcot_data.shards.reader import FeatureSet, open_features
from mmcot_data.shards.schema import FeatureSpec

__all__ = ["FeatureSet", "FeatureSpec", "open_features"]
