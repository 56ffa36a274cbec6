"""The weight files of a checkpoint folder: .safetensors or .bin, in one piece or in shards."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmcot_data.errors import DataError, TrainingError
from mmcot_data.strict_json import parse_json

__all__ = ["checkpoint_folder", "read_object", "read_tensors", "weight_files"]

_WHOLE = ("model.safetensors", "pytorch_model.bin")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_ZIP = b"PK\x03\x04"


def checkpoint_folder(path: Path) -> Path:
    """See that ``path`` is a folder with config.json.

    Raises:
        TrainingError: If not; says what to give instead.
    """
    if path.is_file():
        if path.suffix.lower() in _ARCHIVES:
            raise TrainingError(f"{path} is an archive: unpack it, and give the folder")
        raise TrainingError(
            f"{path} is a file, expected a checkpoint's folder: give {path.parent} if config.json "
            "is there, too"
        )
    if not path.is_dir():
        raise TrainingError(
            f"{path} does not exist: expected the folder of a checkpoint, with config.json and "
            "weights (download a published one first: docs/checkpoints.md)"
        )
    if not (path / "config.json").is_file():
        inner = sorted(file.parent for file in path.glob("*/config.json"))
        hint = f"; did you mean {' or '.join(map(str, inner))}?" if inner else ""
        raise TrainingError(
            f"{path} holds no config.json: expected the folder of a checkpoint, with config.json "
            f"and weights{hint}"
        )
    return path


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        TrainingError: If it is anything else.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"), str(path))
    except (DataError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise TrainingError(f"{path} holds {json.dumps(value)[:40]}, expected a JSON object")
    return value


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights; with both formats the .safetensors, as transformers chooses.

    Raises:
        TrainingError: If there are none, or an index names one that does not exist.
    """
    for name in _WHOLE:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
    raise TrainingError(
        f"{folder} holds no weights: expected {', '.join(_WHOLE)}, or an index of shards beside "
        "them (…index.json)"
    )


def _shards(index: Path) -> list[Path]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise TrainingError(f"{index} has no `weight_map`: expected the file of each tensor")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name:
            raise TrainingError(f"{index} names {name!r}, expected a file beside it")
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise TrainingError(
            f"{index} names {len(names)} files, {', '.join(absent)} of them are absent: download "
            "or copy the checkpoint again"
        )
    return [index.parent / name for name in names]


def read_tensors(files: list[Path]) -> dict[str, torch.Tensor]:
    """The tensors of all files by name, mapped from the disk where the format allows it.

    No code in a .bin file is run: it is read with ``weights_only``.

    Raises:
        TrainingError: If a file is damaged or holds anything but named tensors, or two files hold
            the same name.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in files:
        for name, tensor in _read(path).items():
            if name in tensors:
                raise TrainingError(f"{path} holds {name} a second time: expected it in one file")
            tensors[name] = tensor
    return tensors


def _read(path: Path) -> dict[str, torch.Tensor]:
    with path.open("rb") as file:
        mapped = file.read(len(_ZIP)) == _ZIP  # files of torch < 1.6 can't be mapped
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise TrainingError(
            f"{path} is damaged, or holds objects that are no tensors and would run code when "
            "read: expected a state dict as torch.save writes it"
        ) from error
    except (EOFError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise TrainingError(f"{path} is damaged: {error}. Download or copy it again") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    ):
        raise TrainingError(f"{path} holds no state dict: expected tensors by name")
    return state
