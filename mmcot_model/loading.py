"""Make or load a FusionT5 and its tokenizer: a preset, a folder, or a hub id."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, set_seed

from mmcot_data.errors import TrainingError
from mmcot_model.fusion import FusionT5, FusionT5Config
from mmcot_model.tokenizer import train_tokenizer

__all__ = ["PRESETS", "load_model", "new_model"]

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
_FUSION_PREFIXES = ("encoder.image_dense.", "encoder.mha_layer.", "encoder.gate_dense.")


def new_model(
    preset: str, texts: Iterable[str], *, vocab_size: int, patch_dim: int, seed: int
) -> tuple[FusionT5, PreTrainedTokenizerBase]:
    """A model with fresh weights, and a tokenizer trained on ``texts``.

    Args:
        preset: A name in ``PRESETS``.
        texts: Sources and targets of the training questions.
        vocab_size: Upper bound of the vocabulary.
        patch_dim: Width of a patch feature.
        seed: Of the weights.
    """
    tokenizer = train_tokenizer(texts, vocab_size)
    set_seed(seed)
    config = FusionT5Config(
        vocab_size=len(tokenizer),
        patch_dim=patch_dim,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **PRESETS[preset],
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    model = FusionT5(config)
    _draw_positions(model)
    model.generation_config = GenerationConfig.from_model_config(config)
    return model, tokenizer


def load_model(
    name: str, *, patch_dim: int | None = None, seed: int = 0
) -> tuple[FusionT5, PreTrainedTokenizerBase]:
    """Load a FusionT5, or a plain T5 that gets new fusion layers.

    Args:
        name: A folder or hub id.
        patch_dim: Width of a patch feature; None keeps what the folder's configuration says.
        seed: Of the fusion layers that a plain T5 lacks.

    Raises:
        TrainingError: If nothing can be loaded, a weight is missing, or ``patch_dim`` is not the
            one that the model was trained with.
    """
    try:
        config = FusionT5Config.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise TrainingError(
            f"cannot load the model {name!r}: expected a folder or a hub id with config.json and a "
            f"tokenizer, or one of the presets {', '.join(PRESETS)}. {error}"
        ) from error
    fused = config.architectures is not None and "FusionT5" in config.architectures
    if patch_dim is not None and not fused:
        config.patch_dim = patch_dim
    if patch_dim is not None and config.patch_dim != patch_dim:
        raise TrainingError(
            f"{name} reads patch features of width {config.patch_dim}, the feature set has width "
            f"{patch_dim}: train on the feature set that the model was made for"
        )
    set_seed(seed)
    loaded: Any = FusionT5.from_pretrained(name, config=config, output_loading_info=True)
    model, loading = loaded
    missing = sorted(loading["missing_keys"])
    new = [] if fused else [key for key in missing if key.startswith(_FUSION_PREFIXES)]
    if unexplained := sorted(set(missing) - set(new)):
        raise TrainingError(f"{name} lacks the weights {', '.join(unexplained[:5])}")
    if new:
        logger.info("%s is a plain T5: its fusion layers start from seed %d", name, seed)
    return model, tokenizer


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
