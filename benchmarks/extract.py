"""Extraction beside its limits and its peers, on real pictures, on the CPU.

All ways take turns in one process, with the same pictures and weights; what counts are the
ratios. The limits: computing alone ("forward"), on batches that are prepared already and put
together as the plan does it, and reading, decoding and resizing alone ("decode"). The peers:
Multimodal-CoT's loop and Hugging Face's pipeline. Loading the model is not counted, and neither is
de-duplication: the pictures are distinct. Ratios "by CPU" are of CPU-seconds a picture, which
other processes disturb less. Memory is the peak of a new process above what it has with the model
loaded. The differences of the features to the loop's are those of the norms, and the largest one
over the largest feature, stored in float32.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.extract_comparison import compare
from benchmarks.extract_models import ENCODERS, find_model, silence_transformers
from benchmarks.extract_ours import Request
from benchmarks.extract_pictures import Pictures, choose_pictures, list_pictures
from benchmarks.extract_rerun import time_second_run
from benchmarks.extract_timing import describe_machine, num_cores
from benchmarks.extract_ways import Way
from benchmarks.measuring import print_table
from mmcot_data.encoders.base import Backend, Precision
from mmcot_data.sample import draw_sample

__all__ = ["main"]

_MAX_SECOND_RUN = 2000
_NUM_QUESTIONS = 600


def main(argv: Sequence[str] | None = None) -> None:
    """Compare encoder by encoder, and print the tables."""
    arguments = _parse(argv)
    torch.set_num_threads(arguments.threads)
    silence_transformers()
    machine = describe_machine()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    report: dict[str, Any] = {"machine": machine, "encoders": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = list_pictures(arguments.pictures or _draw_sample(folder / "sample"))
        pictures = choose_pictures(found, arguments.num, folder / "pictures")
        report["pictures"] = _describe(pictures)
        for encoder in arguments.encoder:
            request = Request(
                model=find_model(
                    encoder,
                    arguments.model,
                    folder / encoder,
                    pictures.paths,
                    seed=arguments.random_weights,
                    tiny=arguments.tiny,
                ),
                pictures=pictures,
                batch_size=arguments.batch_size,
            )
            comparison = compare(
                request,
                [
                    Way(kind="ours", precision=precision, backend=backend)
                    for backend in arguments.backend
                    for precision in arguments.precision
                ],
                rounds=arguments.rounds,
                num_threads=arguments.threads,
                folder=folder,
            )
            comparison.print()
            report["encoders"][encoder] = comparison.as_json()
        many = choose_pictures(found, _MAX_SECOND_RUN, folder / "many")
        report["second_run"] = _compare_second_run(many, arguments.rounds, folder)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.extract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "pictures", type=Path, nargs="?", help="folder of pictures (default: drawn ones)"
    )
    parser.add_argument("--encoder", action="append", choices=ENCODERS, help="default: all")
    parser.add_argument("--num", type=int, default=96, help="pictures (default: 96)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--batch-size", type=int, default=8, help="default: 8")
    parser.add_argument("--threads", type=int, default=num_cores(), help="default: all cores")
    parser.add_argument(
        "--precision", nargs="+", choices=(*get_args(Precision), "auto"), default=["fp32", "auto"]
    )
    parser.add_argument(
        "--backend",
        nargs="+",
        choices=get_args(Backend),
        default=["torch", "openvino"] if find_spec("openvino") else ["torch"],
        help="default: torch, and openvino where it is installed; compile takes a minute a shape",
    )
    parser.add_argument(
        "--random-weights", type=int, default=0, metavar="SEED", help="of the weights (default: 0)"
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="ENCODER=MODEL",
        help="trained weights instead: a folder or a hub id",
    )
    parser.add_argument("--tiny", action="store_true", help="two layers: tries the script itself")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args(argv)
    arguments.encoder = arguments.encoder or list(ENCODERS)
    if arguments.pictures is not None and not arguments.pictures.is_dir():
        parser.error(f"{arguments.pictures} is no folder")
    return arguments


def _draw_sample(folder: Path) -> Path:
    print("Pictures: the drawn sample's. They are small, and quicker to decode than real ones.")
    draw_sample(folder, num_questions=_NUM_QUESTIONS)
    return folder


def _describe(pictures: Pictures) -> dict[str, Any]:
    print(
        f"Pictures: {len(pictures)} distinct ones of {pictures.mean_pixels / 1e6:.3f} Mpixel and "
        f"{pictures.mean_nbytes / 1e3:.1f} kB on average; {pictures.num_left_out} left out "
        "because Multimodal-CoT decodes them to other pixels"
    )
    return {
        "num": len(pictures),
        "mean_pixels": pictures.mean_pixels,
        "mean_nbytes": pictures.mean_nbytes,
        "left_out": pictures.num_left_out,
    }


def _compare_second_run(pictures: Pictures, rounds: int, folder: Path) -> dict[str, Any]:
    timings = time_second_run(pictures, rounds, folder)
    num = len(pictures)
    hashing = next(iter(timings.values())).cpu
    table = [
        (
            name,
            f"{t.rate(num):,.0f}",
            f"{t.best_rate(num):,.0f}",
            f"{1000 * min(t.seconds):.0f}",
            f"{t.cpu / hashing:.2f}",
        )
        for name, t in timings.items()
    ]
    columns = ("", "img/s", "best", "ms in all, best", "CPU-seconds of hashing")
    print_table(f"a second run over {num} unchanged pictures", columns, table)
    return {name: {"num": num, "seconds": t.seconds} for name, t in timings.items()}


if __name__ == "__main__":
    main()
