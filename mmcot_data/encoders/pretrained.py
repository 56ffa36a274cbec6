"""Find and load trained models: from a folder, the hub's local cache, or the hub."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from mmcot_data.encoders.weights import LoadedModel, weights_sha256
from mmcot_data.errors import EncoderError

__all__ = [
    "ModelRequest",
    "Source",
    "explained",
    "find_commit",
    "find_source",
    "load_model",
    "read_config",
]

_LOADING_ERRORS: Final = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,
    RuntimeError,
    SafetensorError,
)


class ModelRequest(Protocol):
    """The part of a configuration that says where a model comes from."""

    @property
    def model(self) -> str | None:
        """Local folder or hub id; None is the default one."""
        ...

    @property
    def revision(self) -> str | None:
        """Hub revision: branch, tag or commit."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a model comes from."""

    location: str
    """Folder or hub id."""
    is_folder: bool
    revision: str | None = None
    """Branch, tag or commit that was asked for; None is the hub's main branch."""

    @property
    def model_id(self) -> str:
        """Hub id, or the folder's name: where the folder lies is no part of the features."""
        return Path(self.location).resolve().name if self.is_folder else self.location


def find_source(config: ModelRequest, default_id: str) -> Source:
    """Where a model comes from: a folder if there is one of the name.

    Raises:
        EncoderError: If the folder does not exist, or a revision of a folder is asked for.
    """
    location = config.model or default_id
    path = Path(location).expanduser()
    if path.is_dir():
        if config.revision is not None:
            raise EncoderError(
                f"{path} is a folder: the revision {config.revision!r} has no meaning for it"
            )
        return Source(location=str(path), is_folder=True)
    if path.is_absolute() or location.startswith((".", "~")) or location.count("/") > 1:
        raise EncoderError(
            f"the model folder {location} does not exist; expected one with config.json and "
            "model.safetensors"
        )
    return Source(location=location, is_folder=False, revision=config.revision)


def read_config(source: Source, model_types: tuple[str, ...] = ()) -> Any:
    """The transformers configuration of a model.

    Args:
        source: Where it is.
        model_types: The architectures that fit; any if empty.

    Raises:
        EncoderError: If it cannot be found, or is of another architecture.
    """
    with explained(source, "config.json"):
        config = AutoConfig.from_pretrained(
            source.location, revision=source.revision, trust_remote_code=False
        )
    if model_types and config.model_type not in model_types:
        raise EncoderError(
            f"{source.location} is a model of type {config.model_type!r}, expected "
            f"{' or '.join(model_types)}; `--encoder hf:{source.location}` takes any vision model"
        )
    return config


def load_model(
    model_class: Any,
    source: Source,
    take: Callable[[Any], tuple[str, nn.Module]] = lambda model: ("", model),
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> LoadedModel:
    """Load trained weights.

    Args:
        model_class: Class of transformers that has ``from_pretrained``.
        source: Where they are.
        take: Gives the part of the model that is used, with its name in the model; it may remove
            what is not used.
        dtype: Of the weights; those that a model computes in float32 in any case stay so.
        options: Further arguments of ``from_pretrained``.

    Raises:
        EncoderError: If they cannot be found or read, or lack weights of the part that is used,
            which transformers would draw at random.
    """
    with explained(source, "its weights"), _quiet(source):
        model, report = model_class.from_pretrained(
            source.location,
            revision=source.revision,
            dtype=dtype,
            output_loading_info=True,
            **options,
        )
    name, module = take(model)
    prefix = f"{name}." if name else ""
    used = {f"{prefix}{key}" for key in module.state_dict()}
    if missing := sorted(used.intersection(report["missing_keys"])):
        raise EncoderError(
            f"{source.location} lacks {len(missing)} weights of {type(module).__name__}, "
            f"{missing[0]} first: it is another architecture or damaged"
        )
    return LoadedModel(
        module=module.eval().requires_grad_(False),
        model_id=source.model_id,
        revision=find_commit(source),
        random_weights=None,
        weights_sha256=weights_sha256(module),
    )


def find_commit(source: Source) -> str | None:
    """The commit whose files the hub's local cache has just given; a folder has none."""
    if source.is_folder:
        return None
    path = try_to_load_from_cache(source.location, "config.json", revision=source.revision)
    return Path(path).parent.name if isinstance(path, str) else None


@contextmanager
def explained(
    source: Source, what: str, written_by: str = "transformers' save_pretrained"
) -> Iterator[None]:
    """Turn what a library raises while it looks for ``what`` into an EncoderError."""
    try:
        yield
    except _LOADING_ERRORS as error:
        reason = " ".join(str(error).split()).rstrip(".")
        place, advice = "the hub and its local cache", "without network, use `--model FOLDER`"
        if source.is_folder:
            place, advice = "the folder", f"expected what {written_by} writes"
        raise EncoderError(
            f"the model {source.location} cannot be loaded: looked for {what} in {place} "
            f"({type(error).__name__}: {reason:.400}); {advice}, or try without trained weights: "
            "`--random-weights SEED`"
        ) from error


@contextmanager
def _quiet(source: Source) -> Iterator[None]:
    """Keep back the report on unused weights, and for a folder, the progress bar."""

    def keep(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    bars: Any = transformers_logging
    hide_bar = source.is_folder and bars.is_progress_bar_enabled()
    logger.addFilter(keep)
    if hide_bar:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        logger.removeFilter(keep)
        if hide_bar:
            bars.enable_progress_bar()
