"""A model with its weights, drawn or loaded, and what identifies them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["LoadedModel", "draw_model", "weights_sha256"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model in evaluation mode, on the CPU, and where its weights come from."""

    module: nn.Module
    model_id: str
    revision: str | None
    """Commit of the hub."""
    random_weights: int | None
    """Seed; None for trained weights."""
    weights_sha256: str


def draw_model(build: Callable[[], nn.Module], seed: int, model_id: str) -> LoadedModel:
    """Build a model whose weights torch's CPU generator draws from ``seed``.

    The generator's state outside is left as it was. Equal seeds give equal weights on one kind of
    machine and version of torch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = build().float().eval().requires_grad_(False)
    return LoadedModel(
        module=module,
        model_id=model_id,
        revision=None,
        random_weights=seed,
        weights_sha256=weights_sha256(module),
    )


def weights_sha256(module: nn.Module) -> str:
    """Hex sha256 over name, dtype, shape and bytes of a module's state, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
