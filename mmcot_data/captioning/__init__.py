"""Captions of pictures: by a model (``run``), from a file (``importing``), and their ``coverage``.

Only ``run`` and what it needs load torch and transformers, when they are imported.
"""

from mmcot_data.captioning.config import CaptionConfig, CaptionerConfig
from mmcot_data.captioning.table import CAPTIONERS, CaptionerFacts

__all__ = ["CAPTIONERS", "CaptionConfig", "CaptionerConfig", "CaptionerFacts"]
