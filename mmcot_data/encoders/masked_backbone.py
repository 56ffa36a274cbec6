"""Padded batches through a convolutional backbone, as if each picture were alone.

A single picture has zeros beyond its border: the convolutions' own padding. In a padded batch a
norm's bias makes the padding non-zero, and each 3 x 3 convolution carries it further into the
picture. So the padding is set to zero again before every layer that mixes neighbouring cells.
Where a side of the batch is a multiple of the backbone's stride, ceil(side / stride so far) cells
of a map belong to the picture, and every one sees what it would see alone.

Shape suffixes: B = batch, C = channels, H, W = pixels, h, w = cells of a map.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["MULTIPLE", "find_mixing_layers", "padding_mask", "zero_padding"]

MULTIPLE = 32
"""Of pixels, for both sides of a padded batch: the stride of a ResNet; with DC5 it is 16."""


def find_mixing_layers(
    backbone: nn.Module, harmless: tuple[type[nn.Module], ...] = ()
) -> list[nn.Module] | None:
    """The layers that mix neighbouring cells.

    Args:
        backbone: A network whose arithmetic is in its layers, as in ResNets, and whose
            max-pooling gets the output of a ReLU: it sees zeros, not minus infinity, beyond the
            border.
        harmless: Further types of layers that take cells one by one, without parts of their own.

    Returns:
        None if there is a layer of which it isn't known that masking makes it exact, such as an
        average over a window.
    """
    mixing: list[nn.Module] = []
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            if not _halves_or_keeps(layer):
                return None
            if layer.kernel_size not in (1, (1, 1)):
                mixing.append(layer)
        elif not isinstance(layer, (nn.Identity, nn.ReLU, *harmless)) and not list(
            layer.children()
        ):
            return None
    return mixing


def padding_mask(
    sizes_B2: torch.Tensor, batch: tuple[int, int], cells: tuple[int, int]
) -> torch.Tensor:
    """Which cells of a map are padding.

    Args:
        sizes_B2: (height, width) of the pictures without padding.
        batch: (H, W), multiples of ``MULTIPLE``.
        cells: (h, w) of the map.

    Returns:
        Booleans of shape (B, h, w).
    """
    strides = [side // number for side, number in zip(batch, cells, strict=True)]
    rows, columns = (
        torch.arange(number, device=sizes_B2.device) * stride >= sizes_B2[:, axis, None]
        for axis, (number, stride) in enumerate(zip(cells, strides, strict=True))
    )
    return rows[:, :, None] | columns[:, None, :]


@contextmanager
def zero_padding(
    mixing_layers: Iterable[nn.Module], sizes_B2: torch.Tensor, batch: tuple[int, int]
) -> Iterator[None]:
    """Set the padding to zero at the input of each of the layers, in place.

    Whatever else reads such a map reads padding there, which no picture sees.

    Args:
        mixing_layers: From ``find_mixing_layers``.
        sizes_B2: (height, width) of the pictures without padding, on the layers' device.
        batch: (H, W), multiples of ``MULTIPLE``.
    """
    masks: dict[tuple[int, int], torch.Tensor] = {}

    def mask_input(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        (map_BChw,) = inputs
        cells = (map_BChw.shape[2], map_BChw.shape[3])
        if cells not in masks:
            masks[cells] = padding_mask(sizes_B2, batch, cells)[:, None]
        map_BChw.masked_fill_(masks[cells], 0.0)

    hooks = [layer.register_forward_pre_hook(mask_input) for layer in mixing_layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _halves_or_keeps(layer: nn.Conv2d | nn.MaxPool2d) -> bool:
    """Whether n cells become n or ceil(n / 2), each one in the middle of what it sees."""
    settings: tuple[Any, ...] = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    kernel, stride, padding, dilation = (
        value if isinstance(value, tuple) else (value, value) for value in settings
    )
    centred = all(
        k % 2 == 1 and 2 * p == d * (k - 1)  # false if p is a word, too
        for k, p, d in zip(kernel, padding, dilation, strict=True)
    )
    zeros = layer.padding_mode == "zeros" if isinstance(layer, nn.Conv2d) else not layer.ceil_mode
    return centred and zeros and set(stride) <= {1, 2}
