"""The encoder made of a torch module and a preprocessing.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

import copy
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Self

import torch
from PIL import Image
from torch import nn

from mmcot_data.encoders.backends import CompileBackend, RunnableModel, TorchBackend
from mmcot_data.encoders.base import EncoderConfig, Precision
from mmcot_data.encoders.compute import check_precision, describe_device, find_device
from mmcot_data.encoders.masked_backbone import MULTIPLE
from mmcot_data.encoders.preprocessing import Preprocessing
from mmcot_data.encoders.transfer import find_transfer
from mmcot_data.encoders.weights import LoadedModel
from mmcot_data.errors import EncoderError

__all__ = ["ModelEncoder"]

_LIBRARIES = ("timm", "torch", "transformers")


class ModelEncoder:
    """An ``Encoder`` whose features are a module's ``last_hidden_state``.

    Args:
        config: Gives the name, the device, the backend and the precision.
        model: Takes ``pixel_values`` of shape (B, C, H, W) and gives (B, P, D), or a map
            (B, D, h, w) whose cells become the patches, row by row.
        preprocessing: What happens to a picture before.
        num_patches: P.
        feature_dim: D.
        grid: Rows and columns of the patches over the picture, the last ones of P; None if they
            have no place in it.
        layer: Which activations the features are, for the spec.
        pads: Whether the module takes padded pictures, with ``sizes_B2``.

    Raises:
        EncoderError: If the device, the backend or the precision can't be used.
    """

    def __init__(
        self,
        *,
        config: EncoderConfig,
        model: LoadedModel,
        preprocessing: Preprocessing,
        num_patches: int,
        feature_dim: int,
        grid: tuple[int, int] | None,
        layer: str,
        pads: bool = False,
    ) -> None:
        self.name = config.name
        self.num_patches = num_patches
        self.feature_dim = feature_dim
        self._preprocessing = preprocessing
        self._device = _device_of(config)
        self._transfer = find_transfer(self._device)
        precision: Precision = "fp32" if config.precision == "auto" else config.precision
        check_precision(self._device, precision)
        self._model = self._open(config, model.module, pads)
        self._forward = self._model.at(precision)
        libraries = {*_LIBRARIES, *preprocessing.libraries, *self._model.libraries}
        self._description: dict[str, Any] = {
            "encoder": config.name,
            "model_id": model.model_id,
            "revision": model.revision,
            "weights_sha256": model.weights_sha256,
            "random_weights": model.random_weights,
            "layer": layer,
            "preprocessing": preprocessing.describe(),
            "precision": precision,
            "precision_error": None,
            "backend": config.backend,
            "num_patches": num_patches,
            "feature_dim": feature_dim,
            "grid": None if grid is None else list(grid),
            "versions": {library: version(library) for library in sorted(libraries)},
        }

    @property
    def pads(self) -> bool:
        """Whether ``start`` takes padded pictures and gives what they give alone."""
        return self._model.pads

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those worth trying, fastest first; the last is fp32."""
        return self._model.precisions

    def at_precision(self, precision: Precision, error: float | None = None) -> Self:
        """The same encoder at another precision; weights are shared where they can be.

        Args:
            precision: Of the computation.
            error: Its measured error, for the description; None if it was asked for.

        Raises:
            EncoderError: If the device or the backend doesn't have it.
        """
        check_precision(self._device, precision)
        other = copy.copy(self)
        if precision != self._description["precision"]:
            other._forward = self._model.at(precision)
        chosen = {"precision": precision, "precision_error": error}
        other._description = {**self._description, **chosen}
        return other

    def describe(self) -> dict[str, Any]:
        """What made the features, as JSON values."""
        return copy.deepcopy(self._description)

    def environment(self) -> dict[str, Any]:
        """What computes, as JSON values."""
        return describe_device(self._device)

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) of the model's input for a picture of the given size."""
        return self._preprocessing.output_size(width, height)

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """Resize and crop one RGB picture; (C, H, W)."""
        return self._preprocessing.prepare(image)

    def start(
        self, pixels_BCHW: torch.Tensor, sizes: Sequence[tuple[int, int]] | None = None
    ) -> Callable[[], torch.Tensor]:
        """Begin to compute the features of a batch; a CPU has computed them on return.

        Args:
            pixels_BCHW: Prepared pictures on the CPU, padded at the right and bottom to one size.
            sizes: (height, width) of each without padding; None if none is padded.

        Returns:
            A function that waits and gives float32 features of shape (B, P, D), on the CPU.

        Raises:
            EncoderError: If the device has too little memory, the model gives another number of
                patches than it promised, or padded pictures aren't padded as they have to be.
        """
        sizes_B2 = self._check_sizes(pixels_BCHW, sizes)

        def compute(pixels_BCHW: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                pixels_BCHW = self._preprocessing.normalize(pixels_BCHW)
            padding = None if sizes_B2 is None else self._transfer.to_device(sizes_B2)
            return self._check_features(self._forward(pixels_BCHW, padding), pixels_BCHW)

        try:
            return self._transfer.start(pixels_BCHW, compute)
        except torch.OutOfMemoryError as error:
            batch_size, _, height, width = pixels_BCHW.shape
            reason = str(error).partition(". ")[0]
            raise EncoderError(
                f"{self._device} has too little memory for {batch_size} pictures of {width} x "
                f"{height} pixels at once ({reason}): use a smaller --batch-size"
            ) from error

    def encode(
        self, pixels_BCHW: torch.Tensor, sizes: Sequence[tuple[int, int]] | None = None
    ) -> torch.Tensor:
        """What ``start`` begins, finished."""
        return self.start(pixels_BCHW, sizes)()

    def _open(self, config: EncoderConfig, module: nn.Module, pads: bool) -> RunnableModel:
        match config.backend:
            case "torch":
                return TorchBackend(module, self._device, pads=pads)
            case "compile":
                return CompileBackend(module, self._device)
            case "openvino":
                from mmcot_data.encoders.openvino_backend import OpenvinoBackend

                return OpenvinoBackend(module, self.input_size(64, 64), self.input_size(96, 64))
        raise EncoderError(
            f"there is no backend {config.backend!r}: expected torch, compile or openvino"
        )

    def _check_sizes(
        self, pixels_BCHW: torch.Tensor, sizes: Sequence[tuple[int, int]] | None
    ) -> torch.Tensor | None:
        """``sizes`` as (B, 2); None if no picture is padded."""
        batch_size, _, height, width = pixels_BCHW.shape
        if sizes is None or [tuple(size) for size in sizes] == [(height, width)] * batch_size:
            return None
        if not self.pads:
            raise EncoderError(
                f"{self.name} takes no padded pictures with the backend "
                f"{self._description['backend']}: batch pictures of equal size"
            )
        fits = all(0 < h <= height and 0 < w <= width for h, w in sizes)
        if len(sizes) != batch_size or not fits or height % MULTIPLE or width % MULTIPLE:
            raise EncoderError(
                f"padded pictures of sizes {list(sizes)} in a batch of shape "
                f"{tuple(pixels_BCHW.shape)}: expected a size for each picture, none larger than "
                f"the batch, and a height and width of the batch that are multiples of {MULTIPLE}"
            )
        return torch.tensor(sizes)

    def _check_features(
        self, features_BPD: torch.Tensor, pixels_BCHW: torch.Tensor
    ) -> torch.Tensor:
        expected = (len(pixels_BCHW), self.num_patches, self.feature_dim)
        if features_BPD.shape != expected:
            raise EncoderError(
                f"{self.name} gave features of shape {tuple(features_BPD.shape)} for pixels of "
                f"shape {tuple(pixels_BCHW.shape)}, expected {expected}: the number of patches "
                "must not depend on the picture's size"
            )
        return features_BPD


def _device_of(config: EncoderConfig) -> torch.device:
    """OpenVINO runs on CPUs only, so ``auto`` means the CPU there."""
    if config.backend != "openvino":
        return find_device(config.device)
    device = find_device("cpu" if config.device == "auto" else config.device)
    if device.type != "cpu":
        raise EncoderError(f"the backend openvino computes on CPUs, not on {device}: use cpu")
    return device
