"""How many floating-point operations training needs, and how many a device does.

Shape suffixes: S = source tokens, T = target tokens, P = patches, D = feature width, C = model
width.
"""

import time

import torch

from mmcot_model.fusion import FusionT5Config

__all__ = ["forward_flops", "matmul_peak", "train_flops"]

_REPEATS = 20


def forward_flops(
    config: FusionT5Config, num_source: int, num_target: int, num_patches: int
) -> float:
    """Operations of the matrix products of one example, a multiplication and an addition each.

    Args:
        config: Of the model; a feed-forward layer of two matrices, as in T5 1.0.
        num_source: S.
        num_target: T.
        num_patches: P.
    """
    S, T, P = num_source, num_target, num_patches
    C, inner = config.d_model, config.num_heads * config.d_kv
    feed_forward = 2 * C * config.d_ff
    encoder = S * (4 * C * inner + feed_forward) + 2 * S * S * inner
    decoder = T * (6 * C * inner + feed_forward) + 2 * S * C * inner + 2 * (T + S) * T * inner
    fusion = P * config.patch_dim * C + (2 * S + 2 * P) * C * C + 2 * S * P * C + 2 * S * C * C
    head = T * C * config.vocab_size
    num_decoder_layers = config.num_decoder_layers or config.num_layers
    products = config.num_layers * encoder + num_decoder_layers * decoder + fusion + head
    return 2.0 * products


def train_flops(
    config: FusionT5Config, num_source: int, num_target: int, num_patches: int
) -> float:
    """Operations of a forward and a backward pass of one example."""
    return 3 * forward_flops(config, num_source, num_target, num_patches)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large square matrix product, the best of several."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(_REPEATS):
        _synchronize(device)
        start = time.perf_counter()
        torch.mm(left, right)
        _synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
