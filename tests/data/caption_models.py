"""Small image-to-text models with random weights, saved as their authors save the large ones."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = (
    "a the one two three of on in at near with and picture map chart magnet leaf frog bottle bar "
    "north south east west red blue green grey left right top small large round write detailed "
    "describe image this user assistant : . <image>"
)
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
VOCABULARY = [*SPECIAL, *WORDS.split()]
PAD, START, END, IMAGE = 0, 1, 2, len(VOCABULARY) - 1
NUM_TOKENS = len(VOCABULARY)
SIDE = 16
_TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {% for part in m.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)


def tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """Whole words; ``[CLS]`` and ``[SEP]`` around them as BERT's."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]" if options.pop("closed", True) else "[CLS] $A",
        special_tokens=[("[CLS]", START), ("[SEP]", END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        **options,
    )


def _drawn(model: Any, seed: int) -> Any:
    """Weights that are large enough for the text to depend on the picture."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            if weight.ndim > 1:
                weight.normal_(0, 0.6, generator=generator)
    return model.eval()


def _vision(**options: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
    } | options


_TOKENS = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
_TEXT = {
    "vocab_size": NUM_TOKENS,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    **_TOKENS,
}


def save_encoder_decoder(folder: Path, seed: int = 0) -> Any:
    """ViT + GPT-2, saved as nlpconnect/vit-gpt2-image-captioning: without a processor's file."""
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**_vision()),
        transformers.GPT2Config(
            vocab_size=NUM_TOKENS, n_positions=64, n_embd=16, n_layer=1, n_head=2, **_TOKENS
        ),
        decoder_start_token_id=START,
        **_TOKENS,
    )
    model = _drawn(transformers.VisionEncoderDecoderModel(config=config), seed)
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return model


def save_blip(folder: Path, seed: int = 1) -> Any:
    config = transformers.BlipConfig(
        text_config=_TEXT | {"encoder_hidden_size": 16, "sep_token_id": END, "is_decoder": True},
        vision_config=_vision(),
    )
    model = _drawn(transformers.BlipForConditionalGeneration(config), seed)
    model.save_pretrained(folder)
    transformers.BlipProcessor(_blip_pictures(), tokenizer()).save_pretrained(folder)
    return model


def save_blip2(folder: Path, seed: int = 2) -> Any:
    config = transformers.Blip2Config(**_qformer_configs(), image_token_index=IMAGE)
    model = _drawn(transformers.Blip2ForConditionalGeneration(config), seed)
    model.save_pretrained(folder)
    transformers.Blip2Processor(
        _blip_pictures(), tokenizer(closed=False), num_query_tokens=3
    ).save_pretrained(folder)
    return model


def save_instructblip(folder: Path, seed: int = 3) -> Any:
    config = transformers.InstructBlipConfig(
        **_qformer_configs(vocab_size=NUM_TOKENS), image_token_index=IMAGE
    )
    model = _drawn(transformers.InstructBlipForConditionalGeneration(config), seed)
    model.save_pretrained(folder)
    transformers.InstructBlipProcessor(
        _blip_pictures(), tokenizer(closed=False), tokenizer(), num_query_tokens=3
    ).save_pretrained(folder)
    return model


def save_llava(folder: Path, seed: int = 4) -> Any:
    """CLIP + Llama with a chat template."""
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**_vision(projection_dim=16)),
        text_config=transformers.LlamaConfig(**_TEXT),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
    )
    model = _drawn(transformers.LlavaForConditionalGeneration(config), seed)
    model.save_pretrained(folder)
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(
            size={"height": SIDE, "width": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer(closed=False, extra_special_tokens={"image_token": "<image>"}),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    ).save_pretrained(folder)
    return model


def save_qwen2_vl(folder: Path, seed: int = 5) -> Any:
    """Pictures keep their proportions: the patches of a batch stand one after another."""
    config = transformers.Qwen2VLConfig(
        text_config=_TEXT
        | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
        | {"num_key_value_heads": 1, "max_position_embeddings": 128},
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2}
        | {"mlp_ratio": 2, "patch_size": 4},
        image_token_id=IMAGE,
        vision_start_token_id=IMAGE - 1,
        **_TOKENS,
    )
    model = _drawn(transformers.Qwen2VLForConditionalGeneration(config), seed)
    model.save_pretrained(folder)
    transformers.Qwen2VLProcessor(
        transformers.Qwen2VLImageProcessor(
            patch_size=4, size={"shortest_edge": 256, "longest_edge": 1024}
        ),
        tokenizer(closed=False, extra_special_tokens={"image_token": "<image>"}),
        transformers.Qwen2VLVideoProcessor(),
        chat_template=_TEMPLATE,
    ).save_pretrained(folder)
    return model


def _qformer_configs(**options: Any) -> dict[str, Any]:
    return {
        "vision_config": _vision(),
        "qformer_config": {
            "hidden_size": 16,
            "encoder_hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "cross_attention_frequency": 1,
        }
        | options,
        "text_config": {
            "model_type": "opt",
            "word_embed_proj_dim": 16,
            "ffn_dim": 24,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
            "vocab_size": NUM_TOKENS,
            **_TOKENS,
        },
        "num_query_tokens": 3,
    }


def _blip_pictures() -> Any:
    return transformers.BlipImageProcessor(size={"height": SIDE, "width": SIDE})


SAVE = {
    "vit-gpt2": save_encoder_decoder,
    "blip": save_blip,
    "blip2": save_blip2,
    "instructblip": save_instructblip,
    "llava": save_llava,
    "qwen2-vl": save_qwen2_vl,
}
