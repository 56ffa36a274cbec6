"""Small DETR models whose frozen norms have seen pictures and have biases, as trained ones do."""

import torch
from transformers import DetrConfig, DetrForObjectDetection
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d

NUM_QUERIES, WIDTH = 7, 32


def detr_config(backbone="resnet18", *, dc5=False):
    return DetrConfig(
        backbone_config={
            "model_type": "timm_backbone",
            "backbone": backbone,
            "use_pretrained_backbone": False,
            "features_only": True,
            "out_indices": [1, 2, 3, 4],
            **({"output_stride": 16} if dc5 else {}),
        },
        dilation=dc5,
        num_queries=NUM_QUERIES,
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    )


def save_detr(folder, config):
    """Norms standardise what they meet on noise; without that activations grow beyond measure.

    Biases come from N(0, 0.3): without any, padding would do less harm than it does in truth.
    """
    torch.manual_seed(0)
    model = DetrForObjectDetection(config).eval()
    torch.nn.init.normal_(model.model.query_position_embeddings.weight, std=10)
    norms = [layer for layer in model.modules() if type(layer) is DetrFrozenBatchNorm2d]

    def standardise(norm, inputs):
        norm.running_var.copy_(inputs[0].var((0, 2, 3)) + 1e-3)
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.3)

    hooks = [norm.register_forward_pre_hook(standardise) for norm in norms]
    coarse_noise = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        model(pixel_values=torch.nn.functional.interpolate(coarse_noise, size=(128, 128)))
    for hook in hooks:
        hook.remove()
    model.save_pretrained(folder)
    return folder


def random_pictures(sizes, seed=0):
    """uint8 (3, height, width) for each (height, width): coarse patterns."""
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for height, width in sizes:
        coarse = torch.rand(1, 3, 2 + height // 16, 2 + width // 16, generator=generator) * 255
        fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
        pictures.append(fine[0].to(torch.uint8))
    return pictures


def pad(pictures, multiple=32):
    """(B, 3, H, W) with zeros at the right and bottom."""
    height, width = (
        -(-max(picture.shape[axis] for picture in pictures) // multiple) * multiple
        for axis in (1, 2)
    )
    batch = torch.zeros(len(pictures), 3, height, width, dtype=pictures[0].dtype)
    for row, picture in zip(batch, pictures, strict=True):
        row[:, : picture.shape[1], : picture.shape[2]] = picture
    return batch


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())
