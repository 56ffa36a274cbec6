"""Command mmcot-train."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from mmcot_data.errors import MmcotError, how_to_install
from mmcot_data.prompts import PROMPT_FORMATS
from mmcot_data.questions import split_names
from mmcot_data.shards.remote import is_remote
from mmcot_model.config import RECIPES, TrainConfig, recipe_of

__all__ = ["build_parser", "config_from", "main"]

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
    data = parser.add_argument_group("what it reads")
    data.add_argument(
        "--features",
        type=_feature_set,
        metavar="DIR",
        help="feature set, as shards/detr, or its URL, as s3://bucket/shards/detr",
    )
    data.add_argument(
        "--artifacts",
        type=Path,
        metavar="DIR",
        help="artifact root with questions.parquet (default: the folder that holds --features)",
    )
    data.add_argument("--captions", metavar="PRODUCER", help="add captions/PRODUCER.parquet")
    data.add_argument(
        "--rationales",
        metavar="PRODUCER",
        help="rationales/PRODUCER.parquet, or a .parquet file such as the rationales.parquet of a "
        "run, to answer from (--stage answer with QCMG-A)",
    )
    data.add_argument(
        "--image-roles",
        nargs="+",
        default=["question"],
        metavar="ROLE",
        help="the first role that a question has is its picture; `question choice_0` is the "
        "reference's rule (default: question)",
    )
    data.add_argument("--train-split", choices=split_names(), default="train")
    data.add_argument("--test-split", choices=split_names(), default="test")

    what = parser.add_argument_group("what it trains")
    what.add_argument("--stage", choices=["rationale", "answer", "both"], default="both")
    what.add_argument(
        "--prompt-format",
        choices=PROMPT_FORMATS,
        help="of the rationale stage, QCM-E (default) or QCM-LE; with --stage answer one of "
        "QCM-A (default), QCMG-A, QCM-LEA, QCM-ALE",
    )
    what.add_argument(
        "--model",
        default="tiny",
        help="`tiny` (trained from scratch, tokenizer included), or a folder or hub id of a T5 "
        "or FusionT5 (default: tiny)",
    )
    what.add_argument(
        "--output", type=Path, metavar="DIR", help="run folder (default: runs/FEATURES-MODEL)"
    )
    what.add_argument("--resume", action="store_true", help="go on with the run in --output")

    how = parser.add_argument_group("how it trains (defaults: tiny / any other model)")
    tiny, default = RECIPES["tiny"], RECIPES["default"]

    def option(flag: str, kind: type, text: str) -> None:
        name = flag.lstrip("-").replace("-", "_")
        values = f"{getattr(tiny, name)} / {getattr(default, name)}"
        how.add_argument(flag, type=kind, help=f"{text} ({values})")

    option("--rationale-epochs", float, "passes of stage 1 over the training split")
    option("--answer-epochs", float, "passes of stage 2")
    option("--batch-size", int, "questions a step and device")
    option("--learning-rate", float, "of AdamW at its peak; it falls to 0 linearly")
    option("--warmup", float, "share of the steps in which the learning rate rises")
    option("--length-window", int, "batches that are sorted by length together; 1: none")
    fields = TrainConfig.__dataclass_fields__
    for flag, kind, text in (
        ("--max-steps", int, "steps of each stage instead of the epochs"),
        ("--eval-batch-size", int, "questions at once in generation"),
        ("--weight-decay", float, "of AdamW"),
        ("--max-source", int, "tokens of a source"),
        ("--max-rationale", int, "tokens of a rationale"),
        ("--max-answer", int, "tokens of an answer"),
        ("--vocab-size", int, "most pieces of the tokenizer that is trained for `tiny`"),
        ("--seed", int, "of weights, data order and dropout"),
    ):
        value = fields[flag.lstrip("-").replace("-", "_")].default
        how.add_argument(flag, type=kind, default=value, help=f"{text} (default: {value})")
    return parser


def _feature_set(text: str) -> Path | str:
    try:
        return text if is_remote(text) else Path(text)
    except MmcotError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _name(features: Path | str) -> str:
    """``detr`` of shards/detr."""
    return PurePosixPath(features).name if isinstance(features, str) else features.resolve().name


def config_from(arguments: argparse.Namespace) -> TrainConfig:
    """The run that the options describe.

    Raises:
        ValueError: If there is nothing to read, or options exclude each other.
    """
    values = vars(arguments).copy()
    del values["resume"]
    features, model = arguments.features, arguments.model
    if values["artifacts"] is None:
        if features is None:
            raise ValueError(
                "nothing to train on: give --features DIR (a feature set), or --artifacts DIR "
                "(the folder of questions.parquet) for a run on the text alone"
            )
        if isinstance(features, str):
            raise ValueError(
                f"--features {features} is a URL: give --artifacts DIR too, a local folder with "
                "questions.parquet"
            )
        values["artifacts"] = features.resolve().parent
    if values["prompt_format"] is None:
        values["prompt_format"] = "QCM-A" if arguments.stage == "answer" else "QCM-E"
    if values["output"] is None:
        name = "text" if features is None else _name(features)
        values["output"] = Path("runs") / f"{name}-{Path(model).name}"
    for name, value in asdict(recipe_of(model)).items():
        if values[name] is None:
            values[name] = value
    values["image_roles"] = tuple(values["image_roles"])
    return TrainConfig(**values)


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
