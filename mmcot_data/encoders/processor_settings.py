"""Compare our preprocessing with what stands beside a model.

That is preprocessor_config.json of transformers, or pretrained_cfg in timm's config.json.
"""

import json
import math
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from mmcot_data.encoders.preprocessing import PicturePreprocessing
from mmcot_data.encoders.pretrained import Source
from mmcot_data.errors import EncoderError

__all__ = ["check_pretrained_cfg", "check_processor_settings"]

_FILE = "preprocessor_config.json"
_RESAMPLE = {"bilinear": 2, "bicubic": 3}


def check_processor_settings(
    source: Source, preprocessing: PicturePreprocessing, *, only_normalization: bool
) -> None:
    """Refuse a model whose authors prepared pictures in another way than we would.

    Nothing is checked where the model comes without the file.

    Args:
        source: The model.
        preprocessing: Ours.
        only_normalization: The sizes differ on purpose; compare mean and std alone.

    Raises:
        EncoderError: If a setting contradicts.
    """
    if (path := _find_file(source)) is None:
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EncoderError(f"{path}: not valid JSON: {error}") from error
    expected = _as_settings(preprocessing)
    if only_normalization:
        expected = {key: expected[key] for key in ("image_mean", "image_std")}
    if different := _differences(_in_long_form(found, preprocessing), expected):
        raise EncoderError(
            f"{path} contradicts this encoder's preprocessing: {different}. "
            f"`--encoder hf:{source.location}` uses the model's own"
        )


def check_pretrained_cfg(
    source: Source,
    cfg: dict[str, Any],
    preprocessing: PicturePreprocessing,
    *,
    not_compared: tuple[str, ...] = (),
    advice: str | None = None,
) -> None:
    """Refuse a network of timm that was trained with another preprocessing than ours.

    Args:
        source: The network.
        cfg: Its ``pretrained_cfg``; what it leaves out is not compared.
        preprocessing: Ours, which crops.
        not_compared: Settings in which ours differs on purpose.
        advice: What to do then; by default, to use the encoder ``hf:``.

    Raises:
        EncoderError: If a setting contradicts.
    """
    resize, crop = preprocessing.resize, preprocessing.crop
    assert crop is not None
    expected = {
        "input_size": [3, crop.size, crop.size],
        "interpolation": resize.interpolation,
        "crop_pct": crop.size / resize.size,
        "crop_mode": "center",
        "mean": list(preprocessing.normalization.mean),
        "std": list(preprocessing.normalization.std),
    }
    expected = {key: value for key, value in expected.items() if key not in not_compared}
    if different := _differences(cfg, expected):
        advice = advice or f"`--encoder hf:{source.location}` uses the model's own"
        raise EncoderError(
            f"{source.location}: its pretrained_cfg contradicts this encoder's preprocessing: "
            f"{different}. {advice}"
        )


def _find_file(source: Source) -> Path | None:
    if source.is_folder:
        path = Path(source.location) / _FILE
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(source.location, _FILE, revision=source.revision))
    except EntryNotFoundError:
        return None


def _as_settings(preprocessing: PicturePreprocessing) -> dict[str, Any]:
    resize, crop = preprocessing.resize, preprocessing.crop
    size = {"height": resize.size, "width": resize.size}
    if resize.rule == "shorter_side":
        size = {"shortest_edge": resize.size}
    if resize.max_longer_side is not None:
        size["longest_edge"] = resize.max_longer_side
    return {
        "do_resize": True,
        "size": size,
        "resample": _RESAMPLE[resize.interpolation],
        "do_center_crop": crop is not None,
        "crop_size": {"height": crop.size, "width": crop.size} if crop is not None else None,
        "do_normalize": True,
        "image_mean": list(preprocessing.normalization.mean),
        "image_std": list(preprocessing.normalization.std),
    }


def _in_long_form(found: dict[str, Any], preprocessing: PicturePreprocessing) -> dict[str, Any]:
    """Older files write sizes as single numbers."""
    found = dict(found)
    size, crop = found.get("size"), found.get("crop_size")
    if isinstance(size, int) and preprocessing.resize.rule == "square":
        found["size"] = {"height": size, "width": size}
    elif isinstance(size, int):
        found["size"] = {"shortest_edge": size}
        if "max_size" in found:
            found["size"]["longest_edge"] = found["max_size"]
    if isinstance(crop, int):
        found["crop_size"] = {"height": crop, "width": crop}
    if not found.get("do_center_crop"):
        found["crop_size"] = None
    return found


def _differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The settings that contradict, in words."""
    return "; ".join(
        f"{key} is {found[key]}, expected {value}"
        for key, value in expected.items()
        if found.get(key) is not None and not _equal(found[key], value)
    )


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(math.isclose, found, expected))
    if isinstance(expected, float):
        return math.isclose(found, expected)
    return bool(found == expected)
