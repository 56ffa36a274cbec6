"""Pictures to the device and features back, while the device computes.

Shape suffixes: B = batch, C = channels, H, W = pixels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch

__all__ = ["CudaTransfer", "DirectTransfer", "Transfer", "find_transfer"]


class Transfer(Protocol):
    """How batches get to a device and back."""

    def start(
        self, pixels_BCHW: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]
    ) -> Callable[[], torch.Tensor]:
        """Begin ``compute``, which takes pixels and gives features, both on the device.

        Returns:
            A function that waits for the features and gives them on the CPU.
        """
        ...

    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        """A small tensor on the device, for use in ``compute``."""
        ...


class DirectTransfer:
    """Compute at once; for CPUs, and devices without copies of their own.

    Args:
        device: Where to compute.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def start(
        self, pixels_BCHW: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]
    ) -> Callable[[], torch.Tensor]:
        """Compute; the function returned has nothing to wait for."""
        features = compute(pixels_BCHW.to(self._device)).cpu()
        return lambda: features

    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        """On the device."""
        return values.to(self._device)


class CudaTransfer:
    """Copy from and to pinned memory on two streams beside the one that computes.

    Memory is shared between streams by telling torch's allocators: pinned blocks are used again
    once the copies that they serve have ended, device blocks once the stream noted here has
    reached this point.

    Args:
        device: A GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        cuda: Any = torch.cuda  # its classes are annotated in parts
        self._inward, self._outward = cuda.Stream(device), cuda.Stream(device)
        self._new_event = partial(cuda.Event, blocking=True)

    def start(
        self, pixels_BCHW: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]
    ) -> Callable[[], torch.Tensor]:
        """Queue both copies and the computation, on the caller's current stream."""
        computing = torch.cuda.current_stream(self._device)
        # A copy of its own: the caller may change its pixels as soon as this returns.
        pinned = torch.empty(pixels_BCHW.shape, dtype=pixels_BCHW.dtype, pin_memory=True)
        pinned.copy_(pixels_BCHW)
        with torch.cuda.stream(self._inward):
            on_device = pinned.to(self._device, non_blocking=True)
        computing.wait_stream(self._inward)
        on_device.record_stream(computing)

        features = compute(on_device)

        on_host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        done = self._new_event()
        self._outward.wait_stream(computing)
        with torch.cuda.stream(self._outward):
            on_host.copy_(features, non_blocking=True)
            done.record()
        features.record_stream(self._outward)

        def finish() -> torch.Tensor:
            done.synchronize()
            return on_host

        return finish

    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        """On the device, without waiting for what it computes."""
        return values.pin_memory().to(self._device, non_blocking=True)


def find_transfer(device: torch.device) -> Transfer:
    """What suits a device."""
    return CudaTransfer(device) if device.type == "cuda" else DirectTransfer(device)
