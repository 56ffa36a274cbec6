"""Changes to a model's layers that make it faster and compute the same."""

import copy
from itertools import chain

import torch
from torch import nn

__all__ = ["cast_layers", "channels_last", "fold_norms"]

_AUTOCAST_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def channels_last(module: nn.Module) -> nn.Module:
    """Lay out the weights of 2-d convolutions, in place, as the fastest kernels want them."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(memory_format=torch.channels_last)
    return module


def cast_layers(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A model that computes in autocast what ``module`` does, to the bit.

    Autocast casts the weights of linear layers and convolutions in every call; here that is done
    once. Subclasses are left to autocast: they may do more with their weights.

    Returns:
        A copy that shares every other tensor with ``module``.
    """
    tensors = chain(module.parameters(), module.buffers())
    copied = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for layer in copied.modules():
        if type(layer) in _AUTOCAST_LAYERS:
            for name, weight in list(layer.named_parameters(recurse=False)):
                setattr(layer, name, nn.Parameter(weight.to(dtype), requires_grad=False))
    return copied


@torch.no_grad()
def fold_norms(module: nn.Module, norm_type: type[nn.Module], eps: float) -> None:
    """Fold frozen batch norms into the convolutions before them, in place.

    A norm multiplies each channel and adds to it, which the convolution can do itself. Which
    convolution a norm follows is seen in a run on a black picture, not guessed from names.

    Args:
        module: Takes pixels (B, 3, H, W).
        norm_type: Its norms: ``weight``, ``bias``, ``running_mean`` and ``running_var`` of shape
            (C,).
        eps: What they add to ``running_var``.
    """
    latest: list[tuple[nn.Conv2d, torch.Tensor]] = []
    folded: dict[nn.Module, nn.Conv2d] = {}

    def after_convolution(layer: nn.Conv2d, _: object, output: torch.Tensor) -> None:
        latest[:] = [(layer, output)]

    def before_norm(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if latest and latest[0][1] is inputs[0]:
            folded[norm] = latest[0][0]

    layers = list(module.modules())
    hooks = [m.register_forward_hook(after_convolution) for m in layers if type(m) is nn.Conv2d]
    hooks += [m.register_forward_pre_hook(before_norm) for m in layers if type(m) is norm_type]
    module(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    for norm, convolution in folded.items():
        _fold(norm, convolution, eps)
    for parent in layers:
        for name, child in list(parent.named_children()):
            if child in folded:
                setattr(parent, name, nn.Identity())


def _fold(norm: nn.Module, convolution: nn.Conv2d, eps: float) -> None:
    """In float64, so that one rounding remains."""
    weight, bias, mean, variance = (
        getattr(norm, name).double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale_C = weight / (variance + eps).sqrt()
    if convolution.bias is not None:
        mean = mean - convolution.bias.double()
    shift_C = bias - mean * scale_C
    scaled = convolution.weight.double() * scale_C.view(-1, 1, 1, 1)
    convolution.weight = nn.Parameter(scaled.float(), requires_grad=False)
    convolution.bias = nn.Parameter(shift_C.float(), requires_grad=False)
