"""The encoder made of a torch module and a preprocessing.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

from importlib.metadata import version
from typing import Any

import torch
from PIL import Image

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.encoders.compute import computing, find_device
from mmcot_data.encoders.preprocessing import Preprocessing
from mmcot_data.encoders.weights import LoadedModel
from mmcot_data.errors import EncoderError

__all__ = ["ModelEncoder", "as_patches"]

_LIBRARIES = ("pillow", "timm", "torch", "transformers")


class ModelEncoder:
    """An ``Encoder`` whose features are a module's ``last_hidden_state``.

    Args:
        config: Gives the name, the device and the precision.
        model: Takes ``pixel_values`` of shape (B, C, H, W) and gives (B, P, D), or a map
            (B, D, h, w) whose cells become the patches, row by row.
        preprocessing: What happens to a picture before.
        num_patches: P.
        feature_dim: D.
        grid: Rows and columns of the patches over the picture, the last ones of P; None if they
            have no place in it.
        layer: Which activations the features are, for the spec.

    Raises:
        EncoderError: If the device cannot be used.
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
    ) -> None:
        self.name = config.name
        self.num_patches = num_patches
        self.feature_dim = feature_dim
        self._preprocessing = preprocessing
        self._precision = config.precision
        self._device = find_device(config.device)
        self._module = model.module.to(self._device)
        self._description = {
            "encoder": config.name,
            "model_id": model.model_id,
            "revision": model.revision,
            "weights_sha256": model.weights_sha256,
            "random_weights": model.random_weights,
            "layer": layer,
            "preprocessing": preprocessing.describe(),
            "precision": config.precision,
            "num_patches": num_patches,
            "feature_dim": feature_dim,
            "grid": None if grid is None else list(grid),
            "versions": {library: version(library) for library in _LIBRARIES},
        }

    def describe(self) -> dict[str, Any]:
        """What made the features, as JSON values."""
        return dict(self._description)

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) of the model's input for a picture of the given size."""
        return self._preprocessing.output_size(width, height)

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """Resize and crop one RGB picture; (C, H, W)."""
        return self._preprocessing.prepare(image)

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Features of shape (B, P, D), float32 on the CPU.

        Raises:
            EncoderError: If the model gives another number of patches than it promised.
        """
        with computing(self._device, self._precision):
            pixels_BCHW = self._preprocessing.normalize(pixels_BCHW.to(self._device))
            features = self._module(pixel_values=pixels_BCHW).last_hidden_state
            features_BPD = as_patches(features).float().cpu()
        expected = (len(pixels_BCHW), self.num_patches, self.feature_dim)
        if features_BPD.shape != expected:
            raise EncoderError(
                f"{self.name} gave features of shape {tuple(features_BPD.shape)} for pixels of "
                f"shape {tuple(pixels_BCHW.shape)}, expected {expected}: the number of patches "
                "must not depend on the picture's size"
            )
        return features_BPD


def as_patches(features: torch.Tensor) -> torch.Tensor:
    """(B, P, D) as it is; of a map (B, D, h, w) the cells become patches, row by row."""
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features
