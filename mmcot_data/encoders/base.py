"""What an encoder is: pixels in, patch features out.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = ["Alpha", "Backend", "Encoder", "EncoderConfig", "Precision", "Resizer"]

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""Of the computation. ``tf32`` is for CUDA only."""
Backend = Literal["torch", "compile", "openvino"]
"""What runs the model: torch as it is, torch.compile, or OpenVINO (CPUs, an extra)."""
Resizer = Literal["pil", "torchvision"]
"""What resizes pictures. Pillow's pixels are what the reference models saw; torchvision is faster
and differs by a grey level here and there."""
Alpha = Literal["white", "drop"]
"""Transparent pixels: composited on white, or (Multimodal-CoT) the colour that they hide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Which encoder to load, and how it computes.

    Raises:
        ValueError: If two settings exclude each other.
    """

    name: str
    """``detr``, ``clip``, ``vit``, ``clip-rn101``, ``resnet``, ``tiny`` or ``hf:<model id>``."""
    model: str | None = None
    """Local folder or hub id that replaces the encoder's own model id."""
    revision: str | None = None
    """Hub revision: branch, tag or commit."""
    random_weights: int | None = None
    """Seed of random weights drawn instead of loading trained ones; for trials and tests."""
    preprocessing: Literal["reference", "native"] = "reference"
    """``reference``: what Multimodal-CoT did. ``native``: what the model's authors did."""
    resize: Resizer = "pil"
    alpha: Alpha = "white"
    precision: Precision | Literal["auto"] = "fp32"
    """``auto`` loads in fp32 and lets the first batch decide: the fastest within 1e-2 of fp32."""
    backend: Backend = "torch"
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
        ``precision``, ``precision_error``, ``backend``, ``num_patches``, ``feature_dim``, ``grid``,
        ``versions``.
        """
        ...

    def environment(self) -> dict[str, Any]:
        """What computes, as JSON values: device, its name, threads, kernels.

        It is no part of the spec: it may change the rounding of features, nothing else.
        """
        ...

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) in pixels of the model's input for a picture of the given size.

        Pictures of equal input size are batched as they are; those of several sizes have to be
        padded to one, which only an encoder that ``pads`` takes.
        """
        ...

    def prepare(self, image: "Image.Image") -> "torch.Tensor":
        """Resize and crop one RGB picture.

        Returns:
            (C, H, W): uint8 pixels that ``encode`` normalises, or float32 that are normalised.
        """
        ...

    @property
    def pads(self) -> bool:
        """Whether ``start`` takes padded pictures and gives what they give alone."""
        ...

    def start(
        self, pixels_BCHW: "torch.Tensor", sizes: Sequence[tuple[int, int]] | None = None
    ) -> "Callable[[], torch.Tensor]":
        """Begin to compute the patch features of a batch of prepared pictures.

        A CPU has computed them when this returns; a GPU computes while the caller goes on.

        Args:
            pixels_BCHW: Prepared pictures on the CPU, padded at the right and bottom to one size.
            sizes: (height, width) of each without padding; None if none is padded.

        Returns:
            A function that waits and gives float32 features of shape (B, P, D), on the CPU.
        """
        ...
