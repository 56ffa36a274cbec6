"""Make or load a FusionT5 and its tokenizer: a preset, a folder, or a hub id."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging as transformers_logging

from mmcot_data.errors import TrainingError
from mmcot_model.checkpoints.state_dicts import (
    FUSION_TENSORS,
    REFERENCE_ARCHITECTURE,
    generation,
    some_of,
)
from mmcot_model.feature_layout import FeatureLayout
from mmcot_model.fusion import FusionT5, FusionT5Config
from mmcot_model.tokenizer import train_tokenizer

__all__ = ["PRESETS", "check_model", "load_model", "new_model"]

logger = logging.getLogger(__name__)

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "d_model": 64,
        "d_kv": 32,
        "d_ff": 256,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
    }
}
_POSITION_STD = 2.0
_PLAIN_TYPE = "t5"


def new_model(
    preset: str,
    texts: Iterable[str],
    *,
    vocab_size: int,
    layout: FeatureLayout | None,
    absent_image: Literal["text", "zeros"] = "text",
    seed: int,
) -> tuple[FusionT5, PreTrainedTokenizerBase]:
    """A model with fresh weights, and a tokenizer trained on ``texts``.

    Args:
        preset: A name in ``PRESETS``.
        texts: Sources and targets of the training questions.
        vocab_size: Upper bound of the vocabulary.
        layout: The features that it is to read; None: it is to read text alone.
        absent_image: What a question without a picture gets: ``text`` or ``zeros``.
        seed: Of the weights.
    """
    tokenizer = train_tokenizer(texts, vocab_size)
    set_seed(seed)
    config = FusionT5Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **_features_of(layout),
        absent_image=absent_image,
        **PRESETS[preset],
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    model = FusionT5(config)
    _draw_positions(model)
    model.generation_config = GenerationConfig.from_model_config(config)
    return model, tokenizer


def load_model(
    name: str,
    *,
    layout: FeatureLayout | None = None,
    absent_image: Literal["text", "zeros"] | None = None,
    seed: int = 0,
    trained: bool = False,
) -> tuple[FusionT5, PreTrainedTokenizerBase]:
    """Load a FusionT5, or a plain T5 that gets new fusion layers, in float32.

    Args:
        name: A folder or hub id.
        layout: The features that it is to read; None: it is to read text alone.
        absent_image: What a question without a picture gets, ``text`` or ``zeros``; None: what a
            FusionT5 was trained with, ``text`` for a plain T5.
        seed: Of the fusion layers that a plain T5 lacks.
        trained: Whether it is to be used as it is: a plain T5 can then read text alone.

    Raises:
        TrainingError: If nothing can be loaded, a weight is missing or has another shape, a
            FusionT5 was trained with other features or another ``absent_image``, or it is a
            checkpoint of the reference that must be converted first.
    """
    config, fused = _checked_config(name, layout, absent_image, trained=trained)
    tokenizer = _read_tokenizer(name)
    with _quiet_transformers():
        model = _load_weights(name, config, fused=fused, seed=seed)
    return model, tokenizer


def check_model(
    name: str, *, layout: FeatureLayout | None, absent_image: Literal["text", "zeros"] | None
) -> None:
    """See that a trained stage reads what it is to be given, without its weights.

    Arguments and errors are those of ``load_model``.
    """
    _checked_config(name, layout, absent_image, trained=True)


def _checked_config(
    name: str,
    layout: FeatureLayout | None,
    absent_image: Literal["text", "zeros"] | None,
    *,
    trained: bool,
) -> tuple[FusionT5Config, bool]:
    """The configuration of a model, and whether it has fusion layers."""
    values = _read_config(name)
    fused = values["model_type"] == FusionT5Config.model_type
    if REFERENCE_ARCHITECTURE in (values.get("architectures") or ()):
        raise _unconverted(name)
    if trained and not fused and layout is not None:
        raise TrainingError(
            f"{name} is a plain T5 that has never seen a feature: expected a trained stage, as "
            "RUN/rationale or RUN/answer, or what mmcot-convert made; to train it, give --model"
        )
    if not fused:
        values |= _features_of(layout) | {"absent_image": absent_image or "text"}
    try:
        config = FusionT5Config.from_dict(values | {"model_type": FusionT5Config.model_type})
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise TrainingError(f"config.json of {name} is not that of a T5: {error}") from error
    if trained and layout is None and config.encoders:
        raise TrainingError(
            f"{name} was trained with features of {' + '.join(config.encoders)}: give --features, "
            "or a stage that was trained on the text alone"
        )
    if fused:
        _check_features(name, config, layout)
        _check_absent_image(name, config, absent_image)
    return config, fused


def _read_config(name: str) -> dict[str, Any]:
    """config.json as it stands."""
    try:
        values, _ = FusionT5Config.get_config_dict(name)
    except (OSError, ValueError) as error:
        raise _nothing_there(name, error) from error
    if not values:
        raise _nothing_there(name, "There is no config.json.")
    kinds = (FusionT5Config.model_type, _PLAIN_TYPE)
    if values.get("model_type") not in kinds:
        raise TrainingError(
            f"{name} is a model of the kind {values.get('model_type')!r}, expected "
            f"{' or '.join(kinds)}"
        )
    return values


def _read_tokenizer(name: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    except (ImportError, OSError, ValueError) as error:
        raise _nothing_there(name, error) from error
    return tokenizer


def _nothing_there(name: str, error: Exception | str) -> TrainingError:
    return TrainingError(
        f"cannot load the model {name!r}: expected a folder or a hub id with config.json and a "
        f"tokenizer, or one of the presets {', '.join(PRESETS)}. {error}"
    )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without its report on weights: it knows nothing of our kind of model, and we report."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _load_weights(name: str, config: FusionT5Config, *, fused: bool, seed: int) -> FusionT5:
    set_seed(seed)
    try:
        loaded: Any = FusionT5.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TrainingError(f"cannot load the weights of {name}: {error}") from error
    model, loading = loaded
    missing = set(loading["missing_keys"])
    new = set() if fused else missing & set(FUSION_TENSORS)
    if not fused and (
        generation(loading["unexpected_keys"]) is not None or len(new) < len(FUSION_TENSORS)
    ):
        raise _unconverted(name)
    faults = {
        "lacks the weights": sorted(missing - new),
        "has weights of another shape than its config.json says:": sorted(
            key for key, *_ in loading["mismatched_keys"]
        ),
    }
    for fault, keys in faults.items():
        if keys:
            raise TrainingError(
                f"{name} {fault} {some_of(keys)}; expected all of a "
                f"{'FusionT5' if fused else 'T5'}: copy or download the model again"
            )
    if unknown := sorted(loading["unexpected_keys"]):
        logger.warning("%s has weights that are not used: %s", name, some_of(unknown))
    if new:
        logger.info("%s is a plain T5: its fusion layers start from seed %d", name, seed)
    return model


def _features_of(layout: FeatureLayout | None) -> dict[str, Any]:
    """What a configuration says of the features that the model is trained on."""
    if layout is None:
        return {"patch_dim": 1, "num_patches": 0, "encoders": []}
    return {
        "patch_dim": layout.patch_dim,
        "num_patches": layout.num_patches,
        "encoders": list(layout.encoders),
    }


def _check_features(name: str, config: FusionT5Config, layout: FeatureLayout | None) -> None:
    """A model that reads pictures can be given none; one that reads none can't be given any."""
    if layout is None:
        return
    expected = {key: getattr(config, key) for key in ("encoders", "num_patches", "patch_dim")}
    found = _features_of(layout)
    different = [
        key for key, value in expected.items() if value is not None and value != found[key]
    ]
    if not different:
        return
    if config.encoders == []:
        raise TrainingError(
            f"{name} was trained on text alone, found the features {layout}: leave out the "
            "features, or train a model on them"
        )
    encoders = "unknown" if config.encoders is None else " + ".join(config.encoders)
    num_patches = "?" if config.num_patches is None else config.num_patches
    names = {"encoders": "encoder", "num_patches": "number of patches", "patch_dim": "width"}
    raise TrainingError(
        f"{name} reads the features {encoders}, ({num_patches}, {config.patch_dim}), found "
        f"{layout}: another {' and '.join(names[key] for key in different)}. Give the feature set "
        "that it was trained on, or train a model on this one"
    )


def _check_absent_image(name: str, config: FusionT5Config, absent_image: str | None) -> None:
    if absent_image is not None and config.absent_image != absent_image:
        raise TrainingError(
            f"{name} was trained with absent_image {config.absent_image!r} (what a question "
            f"without a picture gets), found {absent_image!r}: give --absent-image "
            f"{config.absent_image}"
        )


def _unconverted(name: str) -> TrainingError:
    return TrainingError(
        f"{name} is a checkpoint of the reference, whose fusion layers a plain T5 does not have: "
        f"make it a FusionT5 with `mmcot-convert {name} OUT`, and give OUT"
    )


@torch.no_grad()
def _draw_positions(model: FusionT5) -> None:
    """Start with heads that look at certain distances, instead of T5's, which look everywhere.

    T5 draws its relative position biases with a standard deviation of ``d_model ** -0.5``. At
    the step size of Adam it then takes a model from scratch a thousand steps and more until a
    head can find a neighbour, and with it what a rationale concludes.
    """
    for name, weight in model.named_parameters():
        if name.endswith("relative_attention_bias.weight"):
            weight.normal_(std=_POSITION_STD)
