"""Extraction on a GPU beside its limits, within a few minutes: a line of JSON for each result.

For every encoder and precision: the rate end to end; the limits, which are computing alone on
prepared batches and decoding alone on all cores; what each stage takes by itself, as a share of
the time end to end (stages overlap, so the shares need not add up to 1; "transfer" is a part of
"forward"); and the difference of the features to those of transformers' model in strict float32 on
the CPU. For DETR besides, whether a batch gives what single pictures give; and in the end, all
encoders together with one decoding. What no longer fits into the time is skipped, and said so.

There are as many distinct files as are asked for: copies of the given pictures that differ in
bytes which no decoder looks at. Weights are random unless --model names trained ones.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

__all__ = ["main"]

_NEEDED = {
    "filelock": "filelock",
    "h5py": "h5py",
    "numpy": "numpy",
    "PIL": "pillow",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "rich": "rich",
    "safetensors": "safetensors",
    "timm": "timm",
    "torch": "torch",
    "torchvision": "torchvision",
    "transformers": "transformers",
}
"""Packages by the module that is imported."""
_ENCODERS = ("clip", "detr", "vit")
_PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "auto")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what fits into the time.

    Returns:
        0, or 2 if packages, pictures or the GPU are missing.
    """
    arguments = _parse(argv)
    if problem := _find_problem(arguments):
        print(f"benchmarks.extract_gpu: {problem}", file=sys.stderr)
        return 2
    from benchmarks.extract_gpu_budget import Budget
    from benchmarks.extract_gpu_session import measure_all
    from benchmarks.extract_models import silence_transformers

    silence_transformers()
    lines = arguments.json.open("w") if arguments.json else nullcontext()
    with lines as file, tempfile.TemporaryDirectory() as folder:
        measure_all(arguments, Budget(arguments.seconds, file), Path(folder))
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.extract_gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pictures", type=Path, help="folder of pictures, a few hundred are enough")
    parser.add_argument("--encoder", action="append", choices=_ENCODERS, help="default: all")
    parser.add_argument("--precision", nargs="+", choices=_PRECISIONS, default=["fp32", "auto"])
    parser.add_argument(
        "--backend",
        nargs="+",
        choices=("torch", "compile"),
        default=["torch"],
        help="default: torch; compile takes a minute a setting",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="default: 64")
    parser.add_argument("--num", type=int, default=4096, help="files (default: 4096)")
    parser.add_argument("--seconds", type=float, default=450, help="time limit (default: 450)")
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--random-weights", type=int, default=0, metavar="SEED", help="default: 0")
    parser.add_argument(
        "--model", action="append", default=[], metavar="ENCODER=MODEL", help="folder or hub id"
    )
    parser.add_argument("--tiny", action="store_true", help="two layers: tries the script itself")
    parser.add_argument("--json", type=Path, help="write the lines into this file too")
    arguments = parser.parse_args(argv)
    arguments.encoder = arguments.encoder or list(_ENCODERS)
    return arguments


def _find_problem(arguments: argparse.Namespace) -> str | None:
    """Why nothing can be measured, with what to do about it."""
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        return (
            f"mmcot_data.extraction needs packages that are not installed: {', '.join(missing)}. "
            f"Run `pip install {' '.join(missing)}`; where nothing can be fetched, bring their "
            "wheels along: `pip download --only-binary=:all: -d wheels ...` elsewhere, "
            "`pip install --no-index --find-links wheels ...` here"
        )
    try:
        version("mmcot")
    except PackageNotFoundError:
        return (
            "mmcot itself is not installed, and shards record its version. Run "
            "`pip install --no-deps .` in the checkout; where nothing can be fetched, bring the "
            "wheel along that `pip wheel --no-deps .` makes elsewhere"
        )
    if not arguments.pictures.is_dir():
        return f"{arguments.pictures} is no folder; expected one with pictures in it"
    import torch

    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        return (
            "there is no CUDA device that torch can use. `python -m benchmarks.extract` measures "
            "on the CPU; `--device cpu --tiny --num 24` tries this script without a GPU"
        )
    return None


if __name__ == "__main__":
    sys.exit(main())
