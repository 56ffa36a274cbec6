"""Training and generation in Multimodal-CoT's way and in ours, side by side.

Both train the same model on the same questions, in processes of their own that take turns. Tokens
are real ones, of sources and targets, whatever a batch is padded to; examples a second are these
at the mean length of all questions, so that it does not matter which batches were drawn. "times"
compares tokens a second with the reference's, "by CPU" tokens by second of the processor.
"bound" compares the operations that real tokens need with what a large matrix product does on the
same device in the same run and precision. Weights are random and features noise: times depend on
lengths and shapes alone.

  python -m benchmarks.train                       # a drawn sample
  mmcot-data questions data/scienceqa --out shards && python -m benchmarks.train --artifacts shards
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.measuring import print_table
from benchmarks.store_layouts import SHAPES
from benchmarks.train_rounds import Rounds, take_rounds
from benchmarks.train_task import SIZES, Request, prepare_features

__all__ = ["main"]

_PRECISIONS = ("fp32", "bf16")
_SAMPLE_QUESTIONS = 600


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print two tables, and write the numbers if asked."""
    arguments = _parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = arguments.artifacts or _draw_sample(Path(folder))
        features = Path(folder) / "features"
        prepare_features(artifacts, arguments.encoder, features)
        request = Request(
            artifacts=str(artifacts),
            features=str(features),
            prompt_format=arguments.prompt_format,
            size=arguments.size,
            batch_size=arguments.batch_size,
            max_source=arguments.max_source,
            max_target=arguments.max_target,
            device=arguments.device,
        )
        load = os.getloadavg()[0]
        rounds = take_rounds(
            request,
            arguments.precision or _PRECISIONS,
            num_rounds=arguments.rounds,
            num_steps=arguments.steps,
            num_writing_rounds=arguments.writing_rounds,
            num_texts=arguments.texts,
            num_tokens=arguments.tokens,
        )
    _print_rounds(request, rounds, load)
    if arguments.json is not None:
        found = {"request": asdict(request), "load": load, **rounds.to_json()}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def _print_rounds(request: Request, rounds: Rounds, load: float) -> None:
    title = (
        f"t5-{request.size}, {request.prompt_format}, batches of {request.batch_size}, "
        f"{request.device}"
    )
    print_table(
        f"{title}: training",
        ("", "tokens/s", "times", "by CPU", "examples/s", "padding", "waiting", "bound", "MiB"),
        [
            (
                name,
                f"{row.tokens_per_second:,.0f}",
                f"{row.speedup:.2f}",
                f"{row.cpu_speedup:.2f}",
                f"{row.examples_per_second:.2f}",
                f"{row.padding:.0%}",
                f"{row.waiting:.2%}",
                f"{row.of_bound:.0%}",
                f"{row.peak_mib:,.0f}",
            )
            for name, row in rounds.training.items()
        ],
    )
    if rounds.writing:
        print_table(
            f"{title}: generation",
            ("", "tokens/s", "times", "by CPU"),
            [
                (
                    name,
                    f"{row.tokens_per_second:,.1f}",
                    f"{row.speedup:.2f}",
                    f"{row.cpu_speedup:.2f}",
                )
                for name, row in rounds.writing.items()
            ],
        )
    for precision, flops in rounds.matmul_peak.items():
        print(f"matrix product, {precision}: {flops / 1e9:,.0f} GFLOP/s")
    print(f"load of the machine at the start: {load:.2f}")


def _draw_sample(folder: Path) -> Path:
    from mmcot_data.question_data import read_data
    from mmcot_data.sample import draw_sample
    from mmcot_data.tables import write_tables

    draw_sample(folder / "sample", num_questions=_SAMPLE_QUESTIONS)
    write_tables(read_data(folder / "sample"), folder / "shards")
    return folder / "shards"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--artifacts", type=Path, metavar="ROOT", help="artifact root")
    parser.add_argument("--encoder", choices=SHAPES, default="detr", help="shape of the features")
    parser.add_argument("--prompt-format", default="QCM-E", help="default: %(default)s")
    parser.add_argument("--size", choices=SIZES, default="small", help="default: %(default)s")
    parser.add_argument(
        "--precision", action="append", choices=_PRECISIONS, help="of ours (default: both)"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--max-source", type=int, default=512, help="default: %(default)s")
    parser.add_argument("--max-target", type=int, default=512, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of training (default: %(default)s)")
    parser.add_argument(
        "--steps",
        type=int,
        default=2,
        help="of the reference's way in a round; ours takes 8 times as many (default: %(default)s)",
    )
    parser.add_argument(
        "--writing-rounds", type=int, default=1, help="of generation (default: %(default)s)"
    )
    parser.add_argument("--texts", type=int, default=8, help="in a round (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=256, help="of a text (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
