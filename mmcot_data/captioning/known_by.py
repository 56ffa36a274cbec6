"""What tells captions by the same model and settings, before that model is loaded."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mmcot_data.captioning.config import CaptionConfig, CaptionerConfig
from mmcot_data.encoders.base import Precision
from mmcot_data.encoders.compute import fast_precisions, find_device
from mmcot_data.encoders.pretrained import find_commit, find_source

__all__ = ["find_precision", "known_by"]


def known_by(config: CaptionConfig, dataset: str) -> dict[str, Any]:
    """What captions are recognised by before the model is loaded, as JSON values.

    Equal ones mean captions by the same model and settings; others may do so, too.

    Raises:
        EncoderError: If the model's folder or the device does not exist.
    """
    captioner = config.captioner
    request = {name: value for name, value in asdict(captioner).items() if name != "device"}
    precision = find_precision(captioner, find_device(captioner.device))
    stamp = _model_stamp(captioner)
    return {**request, "precision": precision, "dataset": dataset, "model_stamp": stamp}


def find_precision(config: CaptionerConfig, device: torch.device) -> Precision:
    """The precision that a captioner has on a device."""
    if config.precision != "auto":
        return config.precision
    has_bf16 = device.type == "cuda" and "bf16" in fast_precisions(device)
    return "bf16" if has_bf16 else "fp32"


def _model_stamp(config: CaptionerConfig) -> str | None:
    """What tells, without loading it, that a model is the one that it was.

    It is a folder's files with their sizes and times, or the commit in the hub's local cache; None
    if the model is not there yet. Another stamp does not mean another model.

    Raises:
        EncoderError: If the folder of the model does not exist.
    """
    if config.name == "tiny":
        return "drawn"
    source = find_source(config, config.facts().model_id)
    if not source.is_folder:
        return find_commit(source)
    files = sorted(path for path in Path(source.location).rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
