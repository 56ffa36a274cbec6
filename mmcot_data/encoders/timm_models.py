"""Find, load and draw the convolutional networks of timm.

A folder or a hub's repository holds what timm's ``save_for_hf`` writes: config.json with the
architecture and ``pretrained_cfg``, which says how the network's pictures were prepared, and
model.safetensors.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from huggingface_hub import hf_hub_download
from torch import nn

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.encoders.pretrained import Source, explained, find_commit
from mmcot_data.encoders.weights import LoadedModel, draw_model, weights_sha256
from mmcot_data.errors import EncoderError

__all__ = ["LastHiddenState", "load_network", "read_pretrained_cfg"]

_WRITER = "timm's save_for_hf"


class LastHiddenState(NamedTuple):
    """What ``ModelEncoder`` expects of a module."""

    last_hidden_state: torch.Tensor


def read_pretrained_cfg(
    config: EncoderConfig, source: Source, architectures: tuple[str, ...]
) -> dict[str, Any] | None:
    """How the pictures of a trained network were prepared, in timm's words.

    Args:
        config: Of the encoder.
        source: Where the network is.
        architectures: timm's names of those that fit.

    Returns:
        None where weights are drawn and no model is named: then nothing is looked up.

    Raises:
        EncoderError: If it cannot be found, is not timm's, or is of another architecture.
    """
    if _is_default_drawn(config):
        return None
    with explained(source, "config.json", _WRITER):
        if source.is_folder:
            path = Path(source.location) / "config.json"
        else:
            path = Path(hf_hub_download(source.location, "config.json", revision=source.revision))
        settings = json.loads(path.read_text(encoding="utf-8"))
    architecture = settings.get("architecture")
    if architecture not in architectures:
        found = f"timm's {architecture}" if architecture else f"a {settings.get('model_type')!r}"
        raise EncoderError(
            f"{source.location} is {found}, expected timm's {' or '.join(architectures)}; "
            f"`--encoder hf:{source.location}` takes any vision model"
        )
    cfg: dict[str, Any] = settings.get("pretrained_cfg", settings)  # older files have no level
    return cfg


def load_network(
    config: EncoderConfig, source: Source, architecture: str, take: Callable[[Any], nn.Module]
) -> LoadedModel:
    """Load trained weights, or draw random ones, in float32.

    Args:
        config: Of the encoder.
        source: Where the network is.
        architecture: timm's name of what is drawn where no model is named.
        take: Makes of timm's network the module that gives the features.

    Raises:
        EncoderError: If they cannot be found or read, or do not fit the architecture.
    """
    name = architecture if _is_default_drawn(config) else _timm_name(source)
    if config.random_weights is not None:
        return draw_model(lambda: take(_draw(name, source)), config.random_weights, source.model_id)
    with explained(source, "its weights", _WRITER):
        network = timm.create_model(name, pretrained=True)
    module = take(network).float().eval().requires_grad_(False)
    return LoadedModel(
        module=module,
        model_id=source.model_id,
        revision=find_commit(source),
        random_weights=None,
        weights_sha256=weights_sha256(module),
    )


def _is_default_drawn(config: EncoderConfig) -> bool:
    return config.random_weights is not None and config.model is None


def _timm_name(source: Source) -> str:
    if source.is_folder:
        return f"local-dir:{source.location}"
    return f"hf-hub:{source.location}" + (f"@{source.revision}" if source.revision else "")


@torch.no_grad()
def _draw(name: str, source: Source) -> Any:
    """A network whose norms divide by the scale that they meet on noise.

    Untrained norms let activations grow with every block. The scales are powers of two, so that
    rounding cannot change them.
    """
    with explained(source, "config.json", _WRITER):
        # timm draws blocks that add nothing, for training to start from.
        network: Any = timm.create_model(name, pretrained=False, zero_init_last=False).eval()

    def match_scale(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor, ...]) -> None:
        assert norm.running_var is not None
        variance = inputs[0].var().item()
        if variance > 0:  # in a thin network all channels of a layer may be off
            norm.running_var.fill_(2.0 ** round(math.log2(variance)))

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(match_scale) for norm in norms]
    coarse_noise = torch.randn(2, 3, 16, 16)
    network.forward_features(nn.functional.interpolate(coarse_noise, size=(96, 96)))
    for hook in hooks:
        hook.remove()
    return network
