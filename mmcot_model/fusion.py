"""Fusion T5: a T5 whose encoder state is gated with attention over patch features.

The model of Multimodal-CoT (arXiv 2302.00923, section 3.3), with the parameter names of the
published checkpoints of its second generation (``encoder.image_dense``, ``encoder.mha_layer``,
``encoder.gate_dense``).

Shape suffixes: B = batch, S = source tokens, T = target tokens, P = patches, D = feature width,
C = model width, V = vocabulary.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.t5.modeling_t5 import T5Stack

__all__ = ["FusionEncoder", "FusionT5", "FusionT5Config", "FusionWeights"]


class FusionT5Config(T5Config):
    """T5's configuration and what the fusion adds.

    Args:
        patch_dim: Width D of one patch feature: 256 (DETR), 768 (CLIP), 1024 (ViT-L).
        absent_image: What a question without a picture gets. ``text``: its text state, unchanged.
            ``zeros``: zero features through all fusion layers and no mask, as the published
            checkpoints were trained.
        encoders: Names of the encoders whose features the model was trained on; None: unknown.
        num_patches: Patches P of a picture in those features; None: unknown.
    """

    model_type = "mmcot-fusion-t5"

    patch_dim: int = 256
    absent_image: Literal["text", "zeros"] = "text"
    encoders: list[str] | None = None
    num_patches: int | None = None


class FusionWeights(NamedTuple):
    """What the fusion looks at and how much of it it lets in."""

    attention_BSP: torch.Tensor
    """Share of each patch in what a source token attends to; a row adds up to 1."""
    gate_BSC: torch.Tensor
    """0: the text state alone goes on; 1: what was attended to alone."""


class FusionEncoder(T5Stack):
    """T5's encoder, followed by the fusion with patch features."""

    def __init__(self, config: FusionT5Config) -> None:
        super().__init__(config)
        width = config.d_model
        self.image_dense = nn.Linear(config.patch_dim, width)
        self.mha_layer = nn.MultiheadAttention(width, num_heads=1, batch_first=True)
        self.gate_dense = nn.Linear(2 * width, width)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # transformers would draw every nn.Linear that T5 does not know from N(0, 1), which
        # saturates the gate; the fusion layers keep torch's own initialisation instead.
        attention = getattr(self, "mha_layer", None)
        linears = [getattr(self, name, None) for name in ("image_dense", "gate_dense")]
        projection = getattr(attention, "out_proj", None)
        if not any(module is linear for linear in (*linears, projection)):
            super()._init_weights(module)
            return
        assert isinstance(module, nn.Linear)
        bound = module.in_features**-0.5
        init.uniform_(module.weight, -bound, bound)
        if module is projection:
            init.zeros_(module.bias)
        else:
            init.uniform_(module.bias, -bound, bound)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode the text and fuse it with the picture; arguments as in ``FusionT5.forward``."""
        outputs: Any = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        if image_features is not None:
            outputs.last_hidden_state = self.fuse(
                outputs.last_hidden_state, image_features, image_mask
            )
        return outputs

    def fuse(
        self,
        text_BSC: torch.Tensor,
        features_BPD: torch.Tensor,
        image_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Gate the text state with what it attends to in the picture (equations 4 to 6).

        Args:
            text_BSC: Output of the T5 encoder.
            features_BPD: Patch features, any float dtype.
            image_mask: (B,) presence of a picture or (B, P) presence of each patch; None: all.

        Returns:
            ``(1 - gate) * text + gate * attended``, (B, S, C). With ``absent_image="text"`` a row
            without any patch is ``text_BSC`` bit for bit.
        """
        attended_BSC, gate_BSC, _ = self._attend(text_BSC, features_BPD, image_mask)
        return (1 - gate_BSC) * text_BSC + gate_BSC * attended_BSC

    def explain(
        self,
        text_BSC: torch.Tensor,
        features_BPD: torch.Tensor,
        image_mask: torch.Tensor | None = None,
    ) -> FusionWeights:
        """The weights with which ``fuse`` mixes text and picture.

        Args:
            text_BSC: As for ``fuse``; ``forward`` without ``image_features`` gives it.
            features_BPD: As for ``fuse``.
            image_mask: As for ``fuse``.

        Returns:
            Attention and gate. With ``absent_image="text"`` the gate of a row without any patch
            is 0, and its attention means nothing.
        """
        _, gate_BSC, attention_BSP = self._attend(
            text_BSC, features_BPD, image_mask, need_weights=True
        )
        assert attention_BSP is not None
        return FusionWeights(attention_BSP, gate_BSC)

    def _attend(
        self,
        text_BSC: torch.Tensor,
        features_BPD: torch.Tensor,
        image_mask: torch.Tensor | None,
        *,
        need_weights: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """What the text attends to in the picture, the gate, and the attention if it is needed.

        Attention that gives its weights is another, slower kernel.
        """
        image_BPC = self.image_dense(features_BPD.to(self.image_dense.weight.dtype))
        padding_BP = present_B = None
        if image_mask is not None and self.config.absent_image == "text":
            mask_BP = image_mask.bool()
            if mask_BP.dim() == 1:
                mask_BP = mask_BP[:, None].expand(-1, image_BPC.shape[1])
            present_B = mask_BP.any(dim=1)
            padding_BP = ~(mask_BP | ~present_B[:, None])  # no row is masked whole: that is NaN
        attended_BSC, attention_BSP = self.mha_layer(
            text_BSC, image_BPC, image_BPC, key_padding_mask=padding_BP, need_weights=need_weights
        )
        gate_BSC = torch.sigmoid(self.gate_dense(torch.cat([text_BSC, attended_BSC], dim=-1)))
        if present_B is not None:
            gate_BSC = gate_BSC * present_B[:, None, None].to(gate_BSC.dtype)
        return attended_BSC, gate_BSC, attention_BSP


class FusionT5(T5ForConditionalGeneration):
    """T5 for conditional generation that reads patch features.

    ``from_pretrained`` takes folders of this model and of a plain T5 (the fusion layers are then
    new; give ``patch_dim``). ``generate`` takes ``image_features`` and ``image_mask`` like
    ``forward`` and encodes the picture once.
    """

    config_class = FusionT5Config
    config: FusionT5Config

    def __init__(self, config: FusionT5Config) -> None:
        super().__init__(config)
        # Modules of a class outside transformers miss T5's own initialisation rules (v5), so the
        # fusion encoder takes over the weights of the stock encoder that is built already.
        stock: Any = self.encoder
        self.encoder = FusionEncoder(stock.config)
        self.encoder.load_state_dict(stock.state_dict(), strict=False)
        self.post_init()

    # transformers' generate() accepts only arguments that are named in this signature.
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Run the model.

        Args:
            input_ids: (B, S) source tokens.
            attention_mask: (B, S), 1 at real tokens.
            image_features: (B, P, D) patch features; None for a text-only batch.
            image_mask: (B,) or (B, P), true where there is a picture or patch; None: everywhere.
            decoder_input_ids: (B, T) target tokens, shifted right; made from ``labels`` if absent.
            decoder_attention_mask: (B, T).
            encoder_outputs: A fused encoder state that was computed before.
            past_key_values: The decoder's cache.
            inputs_embeds: (B, S, C) instead of ``input_ids``.
            decoder_inputs_embeds: (B, T, C) instead of ``decoder_input_ids``.
            labels: (B, T) target tokens; -100 is not counted.
            use_cache: Whether the decoder returns its cache.
            num_items_in_batch: Number of target tokens that the loss is averaged over, where the
                batch is one of several of a step; None: those of this batch.
            **kwargs: Passed on to T5.

        Returns:
            T5's output; ``encoder_last_hidden_state`` is the fused state, (B, S, C).
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                image_features=image_features,
                image_mask=image_mask,
                **{k: v for k, v in kwargs.items() if k.startswith("output_")},
            )
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        outputs: Any = super().forward(
            attention_mask=attention_mask,
            encoder_outputs=encoder_outputs,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            past_key_values=past_key_values,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        if labels is not None:
            total = F.cross_entropy(
                outputs.logits.flatten(0, 1).float(), labels.flatten(), reduction="sum"
            )
            count = num_items_in_batch if num_items_in_batch is not None else labels.ne(-100).sum()
            outputs.loss = total / count
        return outputs


AutoConfig.register("mmcot-fusion-t5", FusionT5Config)
AutoModelForSeq2SeqLM.register(FusionT5Config, FusionT5)
