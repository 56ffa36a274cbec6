"""Settings that go together: by size of the model, and as the reference has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["RECIPES", "REFERENCE", "Keep", "Recipe", "is_local_model", "recipe_of"]

Keep = Literal["best", "last"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Hyperparameters that depend on the size of the model."""

    rationale_epochs: float
    answer_epochs: float
    batch_size: int
    learning_rate: float
    warmup: float
    """Share of the steps in which the learning rate rises."""
    length_window: int
    keep: Keep
    """Which weights a stage ends with."""


RECIPES = {
    "tiny": Recipe(
        rationale_epochs=20,
        answer_epochs=8,
        batch_size=32,
        learning_rate=2e-3,
        warmup=0.05,
        length_window=1,
        keep="last",
    ),
    # The paper's: section 5.2 and the reference's training script, base model.
    "default": Recipe(
        rationale_epochs=20,
        answer_epochs=20,
        batch_size=8,
        learning_rate=8e-5,
        warmup=0.0,
        length_window=50,
        keep="best",
    ),
}

REFERENCE: Mapping[str, Any] = {
    "absent_image": "zeros",
    "label_padding": "counted",
    "truncation": "right",
    "padding": "fixed",
    "failures": "random",
    "image_roles": ("question", "choice_0"),
    "length_window": 1,
    "precision": "fp32",
}
"""Settings with which a run behaves like Multimodal-CoT's released code. Where the answer stage
reads rationales, ``train_rationales`` is ``gold-le`` besides, whatever stage 1 writes."""


def is_local_model(model: str) -> bool:
    """Whether a model is a folder, and neither a preset nor on the hub."""
    return model not in RECIPES and Path(model).is_dir()


def recipe_of(model: str) -> Recipe:
    """The recipe of a preset, or the default for any other model."""
    return RECIPES.get(model, RECIPES["default"])
