"""What runs a model: torch as it is, or compiled by torch.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

from collections.abc import Callable, Sequence
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
        return _as_patches(output.last_hidden_state).float()


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

    Few shapes occur. A batch that is smaller than an earlier one of the same picture size is
    filled up with a picture of its own, whose features are dropped; a larger one is filled up to a
    power of two. So the first, full batch of a data set computes nothing in vain.

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

        The function raises an EncoderError for the ninth shape, which takes several picture sizes,
        and if torch can't compile the model in one piece: nothing runs uncompiled.
        """
        is_cuda = self._device.type == "cuda"
        compiled: Any = torch.compile(
            self._features(precision),
            dynamic=False,
            fullgraph=True,
            mode="reduce-overhead" if is_cuda else None,
        )
        compiler: Any = torch.compiler
        shapes = _BatchShapes()

        def forward(pixels_BCHW: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
            batch_size = len(pixels_BCHW)
            missing = shapes.find_batch_size(pixels_BCHW.shape) - batch_size
            with computing(self._device, precision):
                if missing:
                    repeated = pixels_BCHW[-1:].expand(missing, -1, -1, -1)
                    pixels_BCHW = torch.cat([pixels_BCHW, repeated])
                if is_cuda:
                    compiler.cudagraph_mark_step_begin()
                pixels_BCHW = pixels_BCHW.contiguous(memory_format=torch.channels_last)
                features_BPD = self._run(compiled, pixels_BCHW)[:batch_size]
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


class _BatchShapes:
    """The shapes that a function is compiled for."""

    def __init__(self) -> None:
        self._largest: dict[tuple[int, ...], int] = {}
        """Batch size by picture size."""
        self._num_shapes = 0

    def find_batch_size(self, shape_BCHW: Sequence[int]) -> int:
        """The batch size to compute a batch with, at least its own.

        Raises:
            EncoderError: If that is one shape too many.
        """
        batch_size, *picture = shape_BCHW
        largest = self._largest.get(tuple(picture))
        if largest is not None and batch_size <= largest:
            return largest
        if self._num_shapes == _MAX_SHAPES:
            raise EncoderError(
                f"the backend compile compiles the model for each shape of a batch, found more "
                f"than {_MAX_SHAPES} with {len(self._largest)} sizes of pictures: use the backend "
                "torch"
            )
        if largest is not None:
            batch_size = 1 << (batch_size - 1).bit_length()
        self._num_shapes += 1
        self._largest[tuple(picture)] = batch_size
        return batch_size


def _as_patches(features: torch.Tensor) -> torch.Tensor:
    """(B, P, D) as it is; of a map (B, D, h, w) the cells become patches, row by row."""
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features
