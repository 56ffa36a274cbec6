"""Convert checkpoints of the reference, of both generations, to FusionT5 folders.

The folder that is made:

    config.json, generation_config.json    FusionT5's
    model.safetensors                      every tensor once, under our names, float32
    tokenizer.json, tokenizer_config.json
    converted.json                         what it was made from, and with which versions
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import GenerationConfig

from mmcot_data.errors import TrainingError
from mmcot_data.files import (
    disk_errors_explained,
    file_sha256,
    sync_files,
    sync_folder,
    write_json,
)
from mmcot_model.checkpoints.files import (
    checkpoint_folder,
    read_object,
    read_tensors,
    weight_files,
)
from mmcot_model.checkpoints.reference_config import find_tokenizer, fusion_config
from mmcot_model.checkpoints.reference_features import choose_layout
from mmcot_model.checkpoints.state_dicts import (
    FUSION_TENSORS,
    canonical_name,
    canonical_state_dict,
    check_shapes,
    generation,
    stored_shapes,
)
from mmcot_model.feature_layout import FeatureLayout
from mmcot_model.fusion import FusionT5Config

__all__ = ["Conversion", "convert_checkpoint"]

_PROJECTION = FUSION_TENSORS[0]
_RECORD_VERSION = 1
_PACKAGES = ("mmcot", "safetensors", "torch", "transformers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What a checkpoint was found to be."""

    generation: int
    """1: fusion after the encoder, UnifiedQA. 2: inside of it, FLAN-Alpaca."""
    layout: FeatureLayout
    tied: bool
    """Whether the head is the token embeddings."""
    num_tensors: int
    num_parameters: int
    tokenizer: str
    """Where it came from."""


def convert_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    layout: FeatureLayout | None = None,
    encoder: str | None = None,
    num_patches: int | None = None,
    tokenizer: str | None = None,
) -> Conversion:
    """Write a checkpoint of the reference as a FusionT5 folder, in one step.

    Weights are mapped from the disk: the memory needed is that of the largest tensor where they
    are float32, as the published ones.

    Args:
        checkpoint: Folder with config.json and weights.
        out: Folder to make; it may exist if it is empty.
        layout: The features that the model reads; None: by ``encoder``, ``num_patches`` and the
            width that the weights have.
        encoder: Name of the encoder.
        num_patches: Patches of a picture.
        tokenizer: Folder or hub id; None: the checkpoint's own.

    Raises:
        TrainingError: If it is no such checkpoint or is damaged, its encoder or tokenizer is not
            known, or ``out`` holds something.
        DiskFullError: If there is no room.
    """
    _check_out(out)
    folder = checkpoint_folder(checkpoint)
    values = read_object(folder / "config.json")
    if values.get("model_type") == FusionT5Config.model_type:
        raise TrainingError(f"{folder} is a FusionT5 already: use it as it is")
    files = weight_files(folder)
    state = read_tensors(files)
    which = generation(state)
    if which is None:
        raise TrainingError(
            f"{folder} holds no fusion layers: expected a checkpoint of the reference with "
            f"{_PROJECTION} or {_PROJECTION.removeprefix('encoder.')}. A plain T5 needs no "
            f"conversion: `mmcot-train --model {folder}` adds fresh ones"
        )
    chosen = _layout(folder, state, layout, encoder, num_patches)
    config = fusion_config(folder, values, chosen)
    tied = values.get("tie_word_embeddings") is not False
    tensors = canonical_state_dict(state, tied=tied, where=str(folder))
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_shapes(found, stored_shapes(config, tied=tied), str(folder))
    words, source = find_tokenizer(folder, config, tokenizer)
    conversion = Conversion(
        generation=which,
        layout=chosen,
        tied=tied,
        num_tensors=len(tensors),
        num_parameters=sum(tensor.numel() for tensor in tensors.values()),
        tokenizer=source,
    )
    with _new_folder(out) as unfinished:
        _save_weights(tensors, unfinished / "model.safetensors")
        config.save_pretrained(unfinished)
        GenerationConfig.from_model_config(config).save_pretrained(unfinished)
        words.save_pretrained(unfinished)
        record = _record(conversion, folder, [folder / "config.json", *files])
        write_json(unfinished / "converted.json", record)
    return conversion


def _check_out(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise TrainingError(
            f"{out} is there already and not an empty folder: choose another place, or remove it"
        )


def _layout(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    layout: FeatureLayout | None,
    encoder: str | None,
    num_patches: int | None,
) -> FeatureLayout:
    projections = [t for name, t in state.items() if canonical_name(name) == _PROJECTION]
    if not projections or projections[0].dim() != 2:
        raise TrainingError(
            f"{folder} holds fusion layers without a matrix {_PROJECTION}: download or copy the "
            "checkpoint again"
        )
    patch_dim = projections[0].shape[1]
    if layout is None:
        return choose_layout(patch_dim, encoder=encoder, num_patches=num_patches)
    if layout.patch_dim != patch_dim:
        raise TrainingError(
            f"{folder} reads patch features of width {patch_dim}, found the features {layout}: "
            "give a feature set of the encoder that it was trained on"
        )
    return layout


def _save_weights(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise TrainingError(f"cannot write {path}: {error}") from error


def _record(conversion: Conversion, folder: Path, files: list[Path]) -> dict[str, Any]:
    return {
        "format_version": _RECORD_VERSION,
        "generation": conversion.generation,
        "features": str(conversion.layout),
        "head": "tied" if conversion.tied else "its own",
        "num_tensors": conversion.num_tensors,
        "num_parameters": conversion.num_parameters,
        "source": str(folder.resolve()),
        "source_sha256": {path.name: file_sha256(path) for path in files},
        "tokenizer": conversion.tokenizer,
        "versions": {package: version(package) for package in _PACKAGES},
    }


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears at ``path`` whole, when the block ends without an error."""
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    with disk_errors_explained(path):
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            sync_files(unfinished)
            unfinished.replace(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        sync_folder(path.parent)
