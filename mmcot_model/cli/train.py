"""Command mmcot-train."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mmcot_data.errors import MmcotError, how_to_install
from mmcot_data.prompts import PROMPT_FORMATS
from mmcot_data.questions import split_names
from mmcot_model.cli.options import (
    add_model_option,
    add_optimization_options,
    add_reading_options,
    config_from,
)
from mmcot_model.config import TrainConfig

__all__ = ["build_parser", "main"]

_EPILOG = """\
examples:
  mmcot-train --features shards/detr
      both stages with DETR features and the tiny model, into runs/detr-tiny; tests them
  mmcot-train --features shards/vit --model declare-lab/flan-alpaca-base --captions instructblip
      the paper's base model
  mmcot-train --artifacts shards --output runs/text
      the same without pictures, for comparison
  mmcot-train --features shards/detr --stage answer --prompt-format QCM-A
      one stage: the answer without a rationale
  mmcot-train --features shards/detr --train-rationales stage1-kfold
      stage 2 learns from generated rationales, as it is tested (mmcot-data rationales stage1-kfold)
  mmcot-train --features shards/detr --target-rationales teacher
      stage 1 learns what a teacher wrote (mmcot-data rationales teacher), not the gold rationales
  mmcot-train --features shards/detr --resume
      go on with a run that was stopped

A run folder holds the two models, rationales.parquet, predictions.parquet and scores.json;
`mmcot-evaluate RUN` prints the table again.
"""


def build_parser() -> argparse.ArgumentParser:
    """The options of mmcot-train."""
    parser = argparse.ArgumentParser(
        prog="mmcot-train",
        description="Train the two stages of Multimodal-CoT on precomputed patch features: "
        "stage 1 writes a rationale, stage 2 answers from it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = add_reading_options(parser)
    data.add_argument(
        "--rationales",
        metavar="PRODUCER",
        help="rationales/PRODUCER.parquet, or a .parquet file such as the rationales.parquet of a "
        "run, to answer from (--stage answer with QCMG-A)",
    )
    data.add_argument(
        "--train-rationales",
        metavar="PRODUCER",
        help="a table as above, that the answer stage learns from, such as stage1-kfold (default: "
        "gold ones of the form of the tested ones)",
    )
    data.add_argument("--test-split", choices=split_names(), default="test")

    what = parser.add_argument_group("what it trains")
    what.add_argument("--stage", choices=["rationale", "answer", "both"], default="both")
    what.add_argument(
        "--prompt-format",
        choices=PROMPT_FORMATS,
        help="of the rationale stage, QCM-E (default) or QCM-LE; with --stage answer one of "
        "QCM-A (default), QCMG-A, QCM-LEA, QCM-ALE",
    )
    add_model_option(what)
    what.add_argument(
        "--output", type=Path, metavar="DIR", help="run folder (default: runs/FEATURES-MODEL)"
    )
    what.add_argument("--resume", action="store_true", help="go on with the run in --output")

    add_optimization_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the command's name; None for those of the process.

    Returns:
        The exit code: 0 done, 1 an error that is explained on stderr, 130 stopped by Ctrl-C.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        config = config_from(arguments)
    except (ValueError, MmcotError) as error:
        parser.error(str(error))
    try:
        _run(config, resume=arguments.resume)
    except (MmcotError, OSError) as error:
        print(f"mmcot-train: error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(
            f"mmcot-train: error: {error.name} is not installed; training needs "
            f"{how_to_install('train')}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("mmcot-train: stopped; the same command with --resume goes on", file=sys.stderr)
        return 130
    return 0


def _run(config: TrainConfig, *, resume: bool) -> None:
    import transformers

    from mmcot_model.evaluation import render_table
    from mmcot_model.runs import train_run

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    scores = train_run(config, resume=resume)
    if scores is None:
        print(f"{config.output / 'rationales.parquet'}: rationales of {config.test_split}")
        return
    print(render_table(scores))
    print(f"\n{config.output}: models, predictions.parquet, scores.json")
