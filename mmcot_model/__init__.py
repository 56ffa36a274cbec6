"""Fusion T5: trains on questions and feature shards, opens no image."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcot_model.fusion import FusionT5, FusionT5Config

__all__ = ["FusionT5", "FusionT5Config"]


def __getattr__(name: str) -> object:
    """Import the model when it is asked for: transformers takes seconds."""
    if name in __all__:
        from mmcot_model import fusion

        return getattr(fusion, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
