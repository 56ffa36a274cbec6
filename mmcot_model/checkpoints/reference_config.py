"""Configuration and tokenizer of a checkpoint of the reference."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mmcot_data.errors import TrainingError
from mmcot_model.feature_layout import FeatureLayout
from mmcot_model.fusion import FusionT5Config

__all__ = ["find_tokenizer", "fusion_config"]

_REQUIRED = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
_OPTIONAL = (
    "num_decoder_layers",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "dropout_rate",
    "layer_norm_epsilon",
    "feed_forward_proj",
    "pad_token_id",
    "eos_token_id",
    "tie_word_embeddings",
)
_FEED_FORWARD = ("relu", "gated-gelu")
"""Of UnifiedQA and of FLAN-Alpaca."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model")


def fusion_config(folder: Path, values: Mapping[str, Any], layout: FeatureLayout) -> FusionT5Config:
    """Our configuration; settings of a task or of a library's version are left behind.

    Args:
        folder: Of the checkpoint, for errors.
        values: Its config.json.
        layout: The features that the model reads.

    Raises:
        TrainingError: If it is not the configuration of a T5.
    """
    if absent := [name for name in _REQUIRED if name not in values]:
        raise TrainingError(
            f"{folder / 'config.json'} lacks {', '.join(absent)}: expected the configuration of "
            "the T5 that was trained"
        )
    form = values.get("feed_forward_proj", "relu")
    if form not in _FEED_FORWARD:
        raise TrainingError(
            f"{folder / 'config.json'} has feed_forward_proj {form!r}: expected "
            f"{' or '.join(_FEED_FORWARD)}"
        )
    known = {name: values[name] for name in (*_REQUIRED, *_OPTIONAL) if name in values}
    try:
        config = FusionT5Config(
            **known,
            patch_dim=layout.patch_dim,
            num_patches=layout.num_patches,
            encoders=list(layout.encoders),
            absent_image="zeros",
            architectures=["FusionT5"],
            dtype="float32",
        )
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{folder / 'config.json'} is not the configuration of a T5: {error}"
        ) from error
    config.decoder_start_token_id = values.get("decoder_start_token_id", config.pad_token_id)
    return config


def find_tokenizer(
    folder: Path, config: FusionT5Config, name: str | None
) -> tuple[PreTrainedTokenizerBase, str]:
    """The tokenizer, and where it came from.

    Args:
        folder: Of the checkpoint.
        config: Of the model that is made.
        name: Folder or hub id; None: the checkpoint's own.

    Raises:
        TrainingError: If there is none, or it is not that of the model.
    """
    if name is None:
        there = [file for file in _TOKENIZER_FILES if (folder / file).is_file()]
        if not {"tokenizer.json", "spiece.model"} & set(there):
            raise TrainingError(
                f"{folder} holds no tokenizer (tokenizer.json or spiece.model): give --tokenizer "
                "NAME, a folder or the hub id of the T5 that it was trained from, such as "
                "declare-lab/flan-alpaca-base or allenai/unifiedqa-t5-base"
            )
        if "tokenizer.json" not in there and importlib.util.find_spec("sentencepiece") is None:
            raise TrainingError(
                f"{folder} holds its tokenizer as spiece.model alone, which needs another package: "
                "`pip install sentencepiece protobuf`, or give --tokenizer NAME, the hub id of the "
                "T5 that it was trained from"
            )
    source = name or str(folder)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    except (ImportError, OSError, ValueError) as error:
        raise TrainingError(f"cannot load the tokenizer of {source!r}: {error}") from error
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    expected = {key: getattr(config, key) for key in ids}
    if ids != expected or len(tokenizer) > config.vocab_size:
        raise TrainingError(
            f"the tokenizer of {source} has {len(tokenizer)} ids and {ids}, the checkpoint "
            f"{config.vocab_size} and {expected}: give the --tokenizer of the T5 that it was "
            "trained from"
        )
    return tokenizer, source
