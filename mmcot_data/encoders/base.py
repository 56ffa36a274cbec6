"""What an encoder is: pixels in, patch features out.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = ["Encoder", "EncoderConfig", "Precision"]

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Which encoder to load, and how it computes.

    Raises:
        ValueError: If two settings exclude each other.
    """

    name: str
    """``detr``, ``clip``, ``vit``, ``tiny`` or ``hf:<model id>``."""
    model: str | None = None
    """Local folder or hub id that replaces the encoder's own model id."""
    revision: str | None = None
    """Hub revision: branch, tag or commit."""
    random_weights: int | None = None
    """Seed of random weights drawn instead of loading trained ones; for trials and tests."""
    preprocessing: Literal["reference", "native"] = "reference"
    """``reference``: what Multimodal-CoT did. ``native``: what the model's authors did."""
    precision: Precision = "fp32"
    device: str = "auto"
    """``auto`` is CUDA where there is one, else the CPU."""

    def __post_init__(self) -> None:
        if self.random_weights is not None and self.revision is not None:
            raise ValueError("random_weights draws the weights: a revision has no meaning with it")


class Encoder(Protocol):
    """A loaded vision model together with its preprocessing."""

    name: str
    num_patches: int
    feature_dim: int

    def describe(self) -> dict[str, Any]:
        """What made the features, as JSON values.

        Keys: ``encoder``, ``model_id``, ``revision``, ``weights_sha256``, ``random_weights``,
        ``layer``, ``preprocessing`` (list of steps, each with its parameters and implementation),
        ``precision``, ``num_patches``, ``feature_dim``, ``grid``, ``versions``.
        """
        ...

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) in pixels of the model's input for a picture of the given size.

        Pictures are batched together only where this is equal, so that no padding is needed.
        """
        ...

    def prepare(self, image: "Image.Image") -> "torch.Tensor":
        """Resize and crop one RGB picture.

        Returns:
            (C, H, W): uint8 pixels that ``encode`` normalises, or float32 that are normalised.
        """
        ...

    def encode(self, pixels_BCHW: "torch.Tensor") -> "torch.Tensor":
        """Patch features of a batch of prepared pictures of equal size.

        Returns:
            float32 features of shape (B, P, D), on the CPU.
        """
        ...
