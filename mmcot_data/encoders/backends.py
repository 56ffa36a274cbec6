"""What runs a model: torch as it is, or compiled by torch.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from mmcot_data.encoders.base import Precision
from mmcot_data.encoders.compute import HALF_DTYPES, computing, fast_precisions
from mmcot_data.encoders.layers import cast_layers, channels_last
from mmcot_data.errors import EncoderError

__all__ = [
    "CompileBackend",
    "FeatureModule",
    "Forward",
    "RunnableModel",
    "TorchBackend",
    "as_patches",
]

Forward = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""float32 features (B, P, D) of normalised pixels (B, C, H, W), both on the model's device.

The second argument is None, or (height, width) of pictures that are padded, of shape (B, 2)."""

_MAX_SHAPES = 8
"""As many as torch compiles a function for before it stops doing so."""


class RunnableModel(Protocol):
    """A model on its device, at any precision."""

    precisions: tuple[Precision, ...]
    """Those that pay, fastest first."""
    pads: bool
    """Whether it takes padded pictures."""
    libraries: tuple[str, ...]
    """Packages that compute, besides torch."""

    def at(self, precision: Precision) -> Forward:
        """The model at a precision; what can be shared between precisions is.

        Raises:
            EncoderError: If it can't compute at this precision.
        """
        ...


class FeatureModule(nn.Module):
    """A vision model reduced to a tensor in and a tensor out.

    Args:
        model: Takes ``pixel_values`` and gives a ``last_hidden_state`` (B, P, D), or a map
            (B, D, h, w) whose cells become the patches, row by row. If it pads, it also takes
            ``sizes_B2``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, pixels_BCHW: torch.Tensor, sizes_B2: torch.Tensor | None = None
    ) -> torch.Tensor:
        """float32 features (B, P, D)."""
        padding = {} if sizes_B2 is None else {"sizes_B2": sizes_B2}
        output = self.model(pixel_values=pixels_BCHW, **padding)
        return as_patches(output.last_hidden_state).float()


class TorchBackend:
    """A module as it is.

    Args:
        module: The model, as ``FeatureModule`` takes it; it is moved to the device.
        device: Where it computes.
        pads: Whether the module takes ``sizes_B2``.
    """

    libraries: tuple[str, ...] = ()

    def __init__(self, module: nn.Module, device: torch.device, *, pads: bool) -> None:
        self.module = channels_last(module.to(device))
        self.precisions = fast_precisions(device)
        self.pads = pads
        self._device = device

    def at(self, precision: Precision) -> Forward:
        """The model at a precision, with weights cast where autocast would cast them."""
        features = self._features(precision)

        def forward(pixels_BCHW: torch.Tensor, sizes_B2: torch.Tensor | None) -> torch.Tensor:
            with computing(self._device, precision):
                pixels_BCHW = pixels_BCHW.contiguous(memory_format=torch.channels_last)
                return features(pixels_BCHW, sizes_B2)

        return forward

    def _features(self, precision: Precision) -> FeatureModule:
        half = HALF_DTYPES.get(precision)
        return FeatureModule(self.module if half is None else cast_layers(self.module, half))


class CompileBackend(TorchBackend):
    """A module compiled by torch, for each shape of its input; on GPUs with CUDA graphs.

    Args:
        module: The model, as ``FeatureModule`` takes it; it is moved to the device.
        device: Where it computes.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__(module, device, pads=False)
        # torch's compiler reads TF32's older switches, and torch forbids that beside the new ones.
        self.precisions = tuple(p for p in self.precisions if p != "tf32")

    def at(self, precision: Precision) -> Forward:
        """The model at a precision; the first batch of each shape is slow, it compiles.

        The function raises an EncoderError for the ninth shape, and if torch can't compile the
        model in one piece: nothing runs uncompiled.
        """
        is_cuda = self._device.type == "cuda"
        compiled: Any = torch.compile(
            self._features(precision),
            dynamic=False,
            fullgraph=True,
            mode="reduce-overhead" if is_cuda else None,
        )
        compiler: Any = torch.compiler
        shapes: set[torch.Size] = set()

        def forward(pixels_BCHW: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
            shapes.add(pixels_BCHW.shape)
            if len(shapes) > _MAX_SHAPES:
                raise EncoderError(
                    f"the backend compile compiles the model for each shape of a batch, found "
                    f"{len(shapes)}, expected at most {_MAX_SHAPES}: use the backend torch"
                )
            with computing(self._device, precision):
                if is_cuda:
                    compiler.cudagraph_mark_step_begin()
                pixels_BCHW = pixels_BCHW.contiguous(memory_format=torch.channels_last)
                features_BPD = self._run(compiled, pixels_BCHW)
                # The next replay of a CUDA graph writes into the same memory.
                return features_BPD.clone() if is_cuda else features_BPD

        return forward

    def _run(self, compiled: Any, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        try:
            features_BPD: torch.Tensor = compiled(pixels_BCHW)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            reason = " ".join(str(error).split())
            raise EncoderError(
                f"torch.compile cannot compile {type(self.module).__name__} "
                f"({type(error).__name__}: {reason:.400}): use the backend torch"
            ) from error
        return features_BPD


def as_patches(features: torch.Tensor) -> torch.Tensor:
    """(B, P, D) as it is; of a map (B, D, h, w) the cells become patches, row by row."""
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features
