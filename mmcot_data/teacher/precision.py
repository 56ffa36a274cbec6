"""How precisely a local teacher computes."""

from mmcot_data.encoders.compute import fast_precisions, find_device
from mmcot_data.teacher.config import LocalConfig

__all__ = ["resolve_precision"]


def resolve_precision(config: LocalConfig) -> str:
    """``fp32`` or ``bf16``: what ``auto`` means on the device.

    Raises:
        EncoderError: If there is no such device.
    """
    if config.precision != "auto":
        return config.precision
    return "bf16" if "bf16" in fast_precisions(find_device(config.device)) else "fp32"
