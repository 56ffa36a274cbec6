"""Whether a picture's features depend on what is batched with it, on real pictures.

Each picture is encoded alone, and then in batches that are put together in several ways. Printed is
the largest difference from the picture alone: of the norms, and of single values over the largest
feature. Beside it stands how far two different pictures are apart, and what padding costs.

Shape suffixes: N = pictures, B = batch, C = channels, H, W = pixels, P = patches, D = width.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.extract_pictures import list_pictures
from benchmarks.measuring import print_table
from mmcot_data.encoders import Encoder, EncoderConfig, load_encoder
from mmcot_data.errors import ImageError
from mmcot_data.extraction.batches import Batch, plan_batches
from mmcot_data.extraction.shard import stack_pictures
from mmcot_data.images import decode_rgb

__all__ = ["main"]


@dataclass(frozen=True)
class _Way:
    name: str
    batch_size: int
    pad_to: int = 1
    shuffled: bool = False


_WAYS = (
    _Way("batches of 8", 8),
    _Way("batches of 3, other neighbours", 3, shuffled=True),
    _Way("batches of 16, padded to multiples of 32", 16, pad_to=32),
    _Way("batches of 8, padded to multiples of 128", 8, pad_to=128, shuffled=True),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each encoder."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batches",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pictures", type=Path, help="folder of pictures")
    parser.add_argument("--encoder", action="append", help="default: detr, clip, vit")
    parser.add_argument("--num", type=int, default=64, help="pictures (default: 64)")
    parser.add_argument("--random-weights", type=int, default=0, metavar="SEED")
    arguments = parser.parse_args(argv)
    for name in arguments.encoder or ["detr", "clip", "vit"]:
        encoder = load_encoder(EncoderConfig(name=name, random_weights=arguments.random_weights))
        _print(encoder, _open_different_shapes(arguments.pictures, arguments.num))


def _open_different_shapes(folder: Path, num: int) -> list[tuple[Path, tuple[int, int]]]:
    """Pictures with their (width, height): first one of each size, then whatever there is."""
    sizes: dict[Path, tuple[int, int]] = {}
    for path in list_pictures(folder):
        try:
            sizes[path] = decode_rgb(path.read_bytes(), str(path)).size
        except ImageError as error:
            print(f"left out: {error}")
    first = {size: path for path, size in reversed(sizes.items())}
    chosen = [*first.values(), *(path for path in sizes if path not in set(first.values()))]
    return [(path, sizes[path]) for path in chosen[:num]]


def _print(encoder: Encoder, pictures: Sequence[tuple[Path, tuple[int, int]]]) -> None:
    prepared = [encoder.prepare(decode_rgb(path.read_bytes(), str(path))) for path, _ in pictures]
    alone_NPD = torch.cat([encoder.start(pixels_CHW[None])() for pixels_CHW in prepared])
    rows = [("another picture", "", "", *_differences(alone_NPD.roll(1, 0), alone_NPD))]
    for way in _WAYS:
        if way.pad_to > 1 and not encoder.pads:
            continue
        order = list(range(len(pictures)))
        if way.shuffled:
            random.Random(0).shuffle(order)
        batches = plan_batches(
            [pictures[number][1] for number in order],
            encoder.input_size,
            batch_size=way.batch_size,
            pad_to=way.pad_to,
        )
        found_NPD = torch.empty_like(alone_NPD)
        for batch in batches:
            numbers = [order[position] for position in batch.positions]
            pixels_BCHW, sizes = stack_pictures([prepared[number] for number in numbers], batch)
            found_NPD[numbers] = encoder.start(pixels_BCHW, sizes)()
        waste = f"{_num_pixels(batches) / sum(item[0].numel() for item in prepared):.3f}"
        rows.append((way.name, str(len(batches)), waste, *_differences(found_NPD, alone_NPD)))
    shapes = len({tuple(item.shape) for item in prepared})
    title = f"{encoder.name}: {len(pictures)} pictures of {shapes} shapes, each beside itself alone"
    print_table(title, ("", "batches", "pixels", "norm", "value", "equal bits"), rows)


def _num_pixels(batches: Sequence[Batch]) -> int:
    return sum(len(batch.positions) * batch.height * batch.width for batch in batches)


def _differences(found_NPD: torch.Tensor, alone_NPD: torch.Tensor) -> tuple[str, str, str]:
    """The largest ones over all pictures, and how many pictures have none."""
    difference_NPD = found_NPD - alone_NPD
    norms_N = difference_NPD.flatten(1).norm(dim=1) / alone_NPD.flatten(1).norm(dim=1)
    values_N = difference_NPD.flatten(1).abs().amax(1) / alone_NPD.flatten(1).abs().amax(1)
    equal = int((norms_N == 0).sum())
    return f"{norms_N.max():.1e}", f"{values_N.max():.1e}", f"{equal} of {len(alone_NPD)}"


if __name__ == "__main__":
    with torch.inference_mode():
        main()
