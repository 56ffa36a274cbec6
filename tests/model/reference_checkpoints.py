"""Small checkpoints of the reference's two generations, and its model in plain torch.

Nothing here uses FusionT5 or transformers' T5: the names are spelt out, and the forward pass is the
one of the paper and of T5, in any precision.
"""

import json
import math

import torch
from torch.nn import functional as F

from mmcot_model.tokenizer import train_tokenizer

C, K, FF, HEADS, LAYERS = 16, 4, 24, 2, 2
BUCKETS, MAX_DISTANCE = 32, 128
TEXTS = ["Question: what attracts? Options: (A) a magnet (B) a shoe Answer: The answer is (A)."] * 4


def draw_state(generation, patch_dim, vocab_size):
    """Tensors by name, as the reference stores them: the embeddings three times."""
    draw = torch.Generator().manual_seed(generation)

    def matrix(*shape):
        return torch.randn(*shape, generator=draw) * (shape[-1] ** -0.5)

    shared = torch.randn(vocab_size, C, generator=draw)
    state = {"shared.weight": shared}
    for stack in ("encoder", "decoder"):
        state[f"{stack}.embed_tokens.weight"] = shared
        kinds = ["SelfAttention", "EncDecAttention"][: 1 + (stack == "decoder")]
        for block in range(LAYERS):
            prefix = f"{stack}.block.{block}.layer."
            for number, kind in enumerate(kinds):
                for name in "qkv":
                    state[f"{prefix}{number}.{kind}.{name}.weight"] = matrix(HEADS * K, C)
                state[f"{prefix}{number}.{kind}.o.weight"] = matrix(C, HEADS * K)
                if block == number == 0:
                    name = f"{prefix}0.SelfAttention.relative_attention_bias.weight"
                    state[name] = torch.randn(BUCKETS, HEADS, generator=draw)
            dense = f"{prefix}{len(kinds)}.DenseReluDense."
            for name in ["wi"] if generation == 1 else ["wi_0", "wi_1"]:
                state[f"{dense}{name}.weight"] = matrix(FF, C)
            state[f"{dense}wo.weight"] = matrix(C, FF)
            for number in range(len(kinds) + 1):
                state[f"{prefix}{number}.layer_norm.weight"] = 1 + matrix(C)
        state[f"{stack}.final_layer_norm.weight"] = 1 + matrix(C)
    state["lm_head.weight"] = shared if generation == 1 else matrix(vocab_size, C)
    fusion = {
        "image_dense.weight": matrix(C, patch_dim),
        "image_dense.bias": matrix(C),
        "mha_layer.in_proj_weight": matrix(3 * C, C),
        "mha_layer.in_proj_bias": matrix(3 * C),
        "mha_layer.out_proj.weight": matrix(C, C),
        "mha_layer.out_proj.bias": matrix(C),
        "gate_dense.weight": matrix(C, 2 * C),
        "gate_dense.bias": matrix(C),
    }
    prefix = "" if generation == 1 else "encoder."
    return state | {prefix + name: tensor for name, tensor in fusion.items()}


def make_config(generation, vocab_size):
    """config.json as the reference's library wrote it."""
    config = {
        "architectures": ["T5ForMultimodalGeneration"],
        "d_ff": FF,
        "d_kv": K,
        "d_model": C,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "relu" if generation == 1 else "gated-gelu",
        "is_encoder_decoder": True,
        "layer_norm_epsilon": 1e-06,
        "model_type": "t5",
        "num_decoder_layers": LAYERS,
        "num_heads": HEADS,
        "num_layers": LAYERS,
        "pad_token_id": 0,
        "relative_attention_max_distance": MAX_DISTANCE,
        "relative_attention_num_buckets": BUCKETS,
        "task_specific_params": {"summarization": {"num_beams": 4}},
        "torch_dtype": "float32",
        "transformers_version": "4.21.1",
        "vocab_size": vocab_size,
    }
    return config if generation == 1 else config | {"tie_word_embeddings": False}


def write_checkpoint(folder, generation, patch_dim=256, tokenizer=True, **changes):
    """A checkpoint folder with pytorch_model.bin; returns its tensors and configuration."""
    words = train_tokenizer(TEXTS, 160)
    folder.mkdir(parents=True)
    if tokenizer:
        words.save_pretrained(folder)
    vocab_size = len(words) + 4  # the reference's embeddings are longer than its vocabulary, too
    state = draw_state(generation, patch_dim, vocab_size)
    config = make_config(generation, vocab_size) | changes
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    return state, config


def draw_batch(patch_dim=256, num_patches=7):
    """Sources of two lengths; the last row has no picture: zero features."""
    draw = torch.Generator().manual_seed(9)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 5:] = 0
    ids = torch.randint(3, 60, (3, 9), generator=draw) * mask
    features = torch.randn(3, num_patches, patch_dim, generator=draw)
    features[2] = 0
    labels = torch.randint(3, 60, (3, 6), generator=draw)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "image_features": features,
        "labels": labels,
    }


def forward(state, config, batch, decoder_input_ids=None, dtype=torch.float64):
    """The reference's logits, and the encoder's state after the fusion."""
    model = _Reference(state, config, dtype)
    return model(batch, decoder_input_ids)


class _Reference:
    def __init__(self, state, config, dtype):
        self.weights = {name.removesuffix(".weight"): t.to(dtype) for name, t in state.items()}
        self.config = config
        self.dtype = dtype

    def __call__(self, batch, decoder_input_ids):
        mask = batch["attention_mask"]
        text = self.stack("encoder", batch["input_ids"], mask)
        fused = self.fuse(text, batch["image_features"].to(self.dtype))
        if decoder_input_ids is None:
            labels = batch["labels"]
            decoder_input_ids = torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1]], 1)
        out = self.stack("decoder", decoder_input_ids, mask, fused)
        if self.config.get("tie_word_embeddings", True):
            out = out * self.config["d_model"] ** -0.5
        return out @ self.weights["lm_head"].T, fused

    def stack(self, name, ids, source_mask, memory=None):
        causal = name == "decoder"
        length = ids.shape[1]
        x = self.weights["shared"][ids]
        position = torch.arange(length)
        buckets = _buckets(position[None] - position[:, None], two_sided=not causal)
        table = self.weights[f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias"]
        bias = table[buckets].permute(2, 0, 1)[None]
        hidden = (~source_mask.bool())[:, None, None]
        if causal:
            bias = bias.masked_fill(position[None] > position[:, None], -math.inf)
        else:
            bias = bias.masked_fill(hidden, -math.inf)
        for block in range(self.config["num_layers"]):
            prefix = f"{name}.block.{block}.layer."
            normed = self.norm(x, f"{prefix}0.layer_norm")
            x = x + self.attend(f"{prefix}0.SelfAttention", normed, normed, bias)
            last = 1
            if memory is not None:
                normed = self.norm(x, f"{prefix}1.layer_norm")
                zeros = torch.zeros(1, 1, 1, 1, dtype=self.dtype).masked_fill(hidden, -math.inf)
                x = x + self.attend(f"{prefix}1.EncDecAttention", normed, memory, zeros)
                last = 2
            normed = self.norm(x, f"{prefix}{last}.layer_norm")
            x = x + self.feed_forward(f"{prefix}{last}.DenseReluDense", normed)
        return self.norm(x, f"{name}.final_layer_norm")

    def norm(self, x, name):
        scale = x.pow(2).mean(-1, keepdim=True).add(self.config["layer_norm_epsilon"]).rsqrt()
        return x * scale * self.weights[name]

    def attend(self, name, queries, memory, bias):
        def heads(x, which):
            x = x @ self.weights[f"{name}.{which}"].T
            return x.unflatten(-1, (self.config["num_heads"], -1)).transpose(1, 2)

        scores = heads(queries, "q") @ heads(memory, "k").transpose(2, 3) + bias
        out = torch.softmax(scores, -1) @ heads(memory, "v")
        return out.transpose(1, 2).flatten(2) @ self.weights[f"{name}.o"].T

    def feed_forward(self, name, x):
        if self.config["feed_forward_proj"] == "relu":
            hidden = (x @ self.weights[f"{name}.wi"].T).relu()
        else:
            gate = x @ self.weights[f"{name}.wi_0"].T
            tanh = torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))
            hidden = 0.5 * gate * (1 + tanh) * (x @ self.weights[f"{name}.wi_1"].T)
        return hidden @ self.weights[f"{name}.wo"].T

    def fuse(self, text, features):
        weights = {name.removeprefix("encoder."): t for name, t in self.weights.items()}
        width = text.shape[-1]
        image = features @ weights["image_dense"].T + weights["image_dense.bias"]
        into, bias = weights["mha_layer.in_proj_weight"], weights["mha_layer.in_proj_bias"]
        q = text @ into[:width].T + bias[:width]
        k = image @ into[width : 2 * width].T + bias[width : 2 * width]
        v = image @ into[2 * width :].T + bias[2 * width :]
        attended = torch.softmax(q @ k.transpose(1, 2) / width**0.5, -1) @ v
        attended = attended @ weights["mha_layer.out_proj"].T + weights["mha_layer.out_proj.bias"]
        both = torch.cat([text, attended], -1)
        gate = torch.sigmoid(both @ weights["gate_dense"].T + weights["gate_dense.bias"])
        return (1 - gate) * text + gate * attended


def _buckets(distance, two_sided):
    """T5's buckets: half of them exact, half logarithmic."""
    buckets = BUCKETS
    base = torch.zeros_like(distance)
    if two_sided:
        buckets //= 2
        base = (distance > 0).long() * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    far = torch.log(distance.clamp(min=1).float() / exact) / math.log(MAX_DISTANCE / exact)
    far = (exact + (far * (buckets - exact)).long()).clamp(max=buckets - 1)
    return base + torch.where(distance < exact, distance, far)


def cross_entropy(logits, labels):
    """Mean over all targets that are not -100."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
