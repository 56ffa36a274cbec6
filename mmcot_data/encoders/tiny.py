"""A small ViT whose weights are drawn from a fixed seed: for trials, it needs no download.

Random features are enough to tell colours, places and shapes of simple drawings apart, because
the layers' gains are low: what the patch embedding saw and where stays readable in every patch.
White paper is zero, so that a patch's feature is its place and what is drawn on it.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.encoders.model_encoder import ModelEncoder
from mmcot_data.encoders.preprocessing import Normalize, PicturePreprocessing, Resize
from mmcot_data.encoders.table import ENCODERS
from mmcot_data.encoders.weights import draw_model
from mmcot_data.errors import EncoderError

__all__ = ["TinyViT", "load"]

_FACTS = ENCODERS["tiny"]
_SEED = 20230201
_IMAGE_SIZE, _PATCH_SIZE = 112, 16
_WIDTH, _NUM_HEADS, _NUM_LAYERS = _FACTS.feature_dim, 3, 2
_LAYER_GAIN = 0.5
_FEATURE_STD = 4.0
"""Of the features. Larger ones train a small model faster: its attention starts less uniform."""
_WHITE = (1.0, 1.0, 1.0)
_CONTRAST = (1 / 3, 1 / 3, 1 / 3)


class _Output(NamedTuple):
    last_hidden_state: torch.Tensor


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(_WIDTH)
        self.query_key_value = nn.Linear(_WIDTH, 3 * _WIDTH, bias=False)
        self.mix = nn.Linear(_WIDTH, _WIDTH, bias=False)
        self.norm_2 = nn.LayerNorm(_WIDTH)
        self.widen = nn.Linear(_WIDTH, 4 * _WIDTH, bias=False)
        self.narrow = nn.Linear(4 * _WIDTH, _WIDTH, bias=False)

    def forward(self, hidden_BPD: torch.Tensor) -> torch.Tensor:
        heads = self.query_key_value(self.norm_1(hidden_BPD)).unflatten(-1, (3, _NUM_HEADS, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        hidden_BPD = hidden_BPD + self.mix(mixed.transpose(1, 2).flatten(2))
        return hidden_BPD + self.narrow(functional.gelu(self.widen(self.norm_2(hidden_BPD))))


class TinyViT(nn.Module):
    """Two pre-norm layers over 7 x 7 patches and a class token.

    Args:
        seed: Of the weights. They are uniform draws of PCG64, scaled without transcendental
            functions, and therefore the same on every machine.
    """

    def __init__(self, seed: int = _SEED) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(1, 1, _WIDTH))
        self.embed = nn.Conv2d(3, _WIDTH, _PATCH_SIZE, _PATCH_SIZE, bias=False)
        self.layers = nn.ModuleList(_Layer() for _ in range(_NUM_LAYERS))
        self.norm = nn.LayerNorm(_WIDTH)
        self.positions = nn.Parameter(torch.empty(1, _FACTS.num_patches, _WIDTH))
        self._draw(np.random.Generator(np.random.PCG64(seed)))

    def forward(self, pixel_values: torch.Tensor) -> _Output:
        """Features after the final norm, class token first.

        Args:
            pixel_values: Normalised pixels (B, 3, 112, 112).
        """
        patches_BPD = self.embed(pixel_values).flatten(2).transpose(1, 2)
        tokens_BPD = torch.cat(
            [self.class_token.expand(patches_BPD.shape[0], -1, -1), patches_BPD], 1
        )
        hidden_BPD = tokens_BPD + self.positions
        for layer in self.layers:
            hidden_BPD = layer(hidden_BPD)
        return _Output(self.norm(hidden_BPD))

    @torch.no_grad()
    def _draw(self, generator: np.random.Generator) -> None:
        """Unit variance for patches and positions alike, less for what the layers add."""
        for name, weight in sorted(self.named_parameters()):
            if "norm" in name:
                continue
            std = 1.0
            if name == "embed.weight":
                std = float(weight[0].numel() ** -0.5)
            elif name.startswith("layers."):
                std = _LAYER_GAIN * float(weight.shape[1] ** -0.5)
            uniform = (generator.random(weight.shape) * 2 - 1) * (3**0.5 * std)
            weight.copy_(torch.from_numpy(uniform.astype(np.float32)))
        self.norm.weight.fill_(_FEATURE_STD)


def load(config: EncoderConfig) -> ModelEncoder:
    """Draw the small ViT; ``random_weights`` replaces its fixed seed.

    Raises:
        EncoderError: If a model or a revision is named: there is nothing to load.
    """
    if config.model is not None or config.revision is not None:
        raise EncoderError(
            "the encoder tiny draws its weights and loads no model; a model of your own is "
            f"`--encoder hf:{config.model or 'MODEL'}`"
        )
    seed = _SEED if config.random_weights is None else config.random_weights
    model = draw_model(lambda: TinyViT(seed), seed, _FACTS.model_id)
    return ModelEncoder(
        config=config,
        model=replace(model, random_weights=config.random_weights),
        preprocessing=PicturePreprocessing(
            resize=Resize(rule="square", size=_IMAGE_SIZE, interpolation="bicubic"),
            normalization=Normalize(mean=_WHITE, std=_CONTRAST),
            resizer=config.resize,
            alpha=config.alpha,
        ),
        num_patches=_FACTS.num_patches,
        feature_dim=_FACTS.feature_dim,
        grid=(_IMAGE_SIZE // _PATCH_SIZE, _IMAGE_SIZE // _PATCH_SIZE),
        layer=_FACTS.layer,
    )
