"""The form of the features that a model reads."""

from dataclasses import dataclass

__all__ = ["FeatureLayout"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureLayout:
    """Which encoders' patch features a model reads, and how many and how wide they are.

    Several feature sets are laid one after the other along the patches, each in columns of its
    own and zeros elsewhere, so that the model's projection has separate weights for each.
    """

    encoders: tuple[str, ...]
    num_patches: int
    """P, the sum over the sets."""
    patch_dim: int
    """D, the sum over the sets."""

    def __str__(self) -> str:
        return f"{' + '.join(self.encoders)}, ({self.num_patches}, {self.patch_dim})"
