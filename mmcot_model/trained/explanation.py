"""What a model looked at in a picture while it read a question, and how much of it it let in.

Shape suffixes: S = source tokens, P = patches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from mmcot_model.fusion import FusionEncoder, FusionT5

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explanation:
    """The weights with which one question and its picture were mixed."""

    tokens: tuple[str, ...]
    """The source as the tokenizer cut it, S pieces."""
    attention_SP: npt.NDArray[np.float32]
    """Share of each patch in what a token attended to; a row adds up to 1."""
    gate_S: npt.NDArray[np.float32]
    """How far each token's gate was open, 0 to 1: the mean over the channels of its state."""

    @property
    def mean_gate(self) -> float:
        """Mean over the tokens."""
        return float(self.gate_S.mean())

    def by_patch(self) -> npt.NDArray[np.float32]:
        """Share of each of the P patches in what was let in.

        A token counts as far as its gate was open: what it attended to behind a shut gate never
        reached the model. The shares add up to 1; all are 0 if every gate was shut.
        """
        weights_S = self.gate_S / (self.gate_S.sum() or 1)
        return np.asarray(weights_S @ self.attention_SP, np.float32)


def explain(
    model: FusionT5, tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, torch.Tensor]
) -> Explanation | None:
    """Look into the fusion of one question and its picture.

    Args:
        model: In evaluation mode.
        tokenizer: The model's.
        batch: Arguments of ``FusionT5.forward`` for one question, on the model's device.

    Returns:
        The weights; None if the question has no picture.
    """
    features_BPD, mask_BP = batch.get("image_features"), batch.get("image_mask")
    if features_BPD is None or (mask_BP is not None and not mask_BP.any()):
        return None
    encoder = cast(FusionEncoder, model.encoder)
    with torch.inference_mode():
        text_BSC = encoder(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
        weights = encoder.explain(text_BSC, features_BPD, mask_BP)
    is_token_S = batch["attention_mask"][0].bool()
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0, is_token_S].tolist())
    return Explanation(
        tokens=tuple(tokens),
        attention_SP=weights.attention_BSP[0, is_token_S].float().cpu().numpy(),
        gate_S=weights.gate_BSC[0, is_token_S].float().mean(-1).cpu().numpy(),
    )
