"""What size an image processor makes of a picture, told from its settings.

Nothing is computed with pixels here: a header that says 60,000 x 1 costs as little as any other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from timm.data.transforms import MaybeToTensor
from torchvision import transforms
from transformers import ConvNextImageProcessorPil, TimmWrapperImageProcessor
from transformers.image_processing_backends import PilBackend
from transformers.image_transforms import get_resize_output_image_size, get_size_with_aspect_ratio
from transformers.image_utils import ChannelDimension, get_image_size_for_max_height_width

__all__ = ["ProcessorSizes", "find_sizes"]

_Size = tuple[int, int]
_CONVNEXT_WARPS_FROM = 384


@dataclass(frozen=True, slots=True)
class ProcessorSizes:
    """(height, width) of a picture on its way through an image processor."""

    resized: Callable[[int, int], _Size]
    """Takes height and width; a side is 0 where rounding leaves nothing of it."""
    crop: _Size | None
    """What is cut from the middle after that, or padded where it is smaller."""

    def output(self, height: int, width: int) -> _Size:
        """(height, width) in the end."""
        return self.crop or self.resized(height, width)


def find_sizes(processor: Any) -> ProcessorSizes | None:
    """Which sizes a processor's settings give; None if its own code decides them.

    Known are the processors of transformers that leave all work to its Pillow backend, as those of
    CLIP, DINOv2, SigLIP and ViT do; ConvNeXt's; and those of timm that resize and crop the middle.
    """
    if isinstance(processor, TimmWrapperImageProcessor):
        return _timm_sizes(processor)
    if type(processor) is ConvNextImageProcessorPil:
        return _convnext_sizes(processor)
    return _plain_sizes(processor) if _has_no_code_of_its_own(type(processor)) else None


def _has_no_code_of_its_own(kind: type) -> bool:
    """Whether a class only sets what ``PilBackend`` does."""
    if not issubclass(kind, PilBackend):
        return False
    own = kind.__mro__[: kind.__mro__.index(PilBackend)]
    return not any(
        callable(value) and name != "__init__" for base in own for name, value in vars(base).items()
    )


def _plain_sizes(processor: Any) -> ProcessorSizes | None:
    size = processor.size
    if processor.do_pad and processor.pad_size is not None:
        return None
    crop = _crop_size(processor)
    if not processor.do_resize:
        return _without_resizing(crop)
    if size.shortest_edge and size.longest_edge:
        return ProcessorSizes(
            lambda height, width: get_size_with_aspect_ratio(
                (height, width), size.shortest_edge, size.longest_edge
            ),
            crop,
        )
    if size.shortest_edge:
        return ProcessorSizes(_to_shorter_side(size.shortest_edge), crop)
    if size.max_height and size.max_width:
        return ProcessorSizes(
            lambda height, width: get_image_size_for_max_height_width(
                (height, width), size.max_height, size.max_width
            ),
            crop,
        )
    if size.height and size.width:
        return ProcessorSizes(lambda _height, _width: (size.height, size.width), crop)
    return None


def _convnext_sizes(processor: Any) -> ProcessorSizes | None:
    """It crops only where the input is small, and by a fraction."""
    crop, side = _crop_size(processor), processor.size.shortest_edge
    if not processor.do_resize:
        return _without_resizing(crop)
    if not side:
        return None
    if side >= _CONVNEXT_WARPS_FROM:
        return ProcessorSizes(lambda _height, _width: (side, side), crop)
    return ProcessorSizes(_to_shorter_side(int(side / processor.crop_pct)), crop or (side, side))


def _timm_sizes(processor: Any) -> ProcessorSizes | None:
    match processor.val_transforms.transforms:
        case [
            transforms.Resize(size=size, max_size=None),
            transforms.CenterCrop(size=(height, width)),
            MaybeToTensor(),
            transforms.Normalize(),
        ]:
            crop = (int(height), int(width))
            if isinstance(size, int):
                return ProcessorSizes(_to_shorter_side(size), crop)
            if len(size) == 2:
                rows, columns = size
                return ProcessorSizes(lambda _height, _width: (rows, columns), crop)
    return None


def _without_resizing(crop: _Size | None) -> ProcessorSizes:
    """Cropping needs no memory, however large the picture is."""
    return ProcessorSizes(lambda height, width: crop or (height, width), crop)


def _crop_size(processor: Any) -> _Size | None:
    if not processor.do_center_crop:
        return None
    return int(processor.crop_size.height), int(processor.crop_size.width)


def _to_shorter_side(size: int) -> Callable[[int, int], _Size]:
    def resized(height: int, width: int) -> _Size:
        # transformers asks an array for its shape; this one has no memory of its own
        shape = np.broadcast_to(np.uint8(0), (3, height, width))
        rows, columns = get_resize_output_image_size(
            shape, size, default_to_square=False, input_data_format=ChannelDimension.FIRST
        )
        return rows, columns

    return resized
