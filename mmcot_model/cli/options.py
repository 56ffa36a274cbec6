"""Options that the commands share which train models."""

import argparse
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from mmcot_data.errors import MmcotError
from mmcot_data.questions import split_names
from mmcot_data.shards.remote import is_remote
from mmcot_model.config import RECIPES, TrainConfig, recipe_of

__all__ = [
    "add_model_option",
    "add_optimization_options",
    "add_reading_options",
    "config_from",
    "feature_set",
]


def add_reading_options(
    parser: argparse.ArgumentParser, *, with_artifacts: bool = True
) -> "argparse._ArgumentGroup":
    """What any training reads.

    Args:
        parser: Gets the options.
        with_artifacts: Whether the artifact root is one of them.
    """
    data = parser.add_argument_group("what it reads")
    data.add_argument(
        "--features",
        type=feature_set,
        metavar="DIR",
        help="feature set, as shards/detr, or its URL, as s3://bucket/shards/detr",
    )
    if with_artifacts:
        data.add_argument(
            "--artifacts",
            type=Path,
            metavar="DIR",
            help="artifact root with questions.parquet (default: the folder that holds --features)",
        )
    data.add_argument("--captions", metavar="PRODUCER", help="add captions/PRODUCER.parquet")
    data.add_argument(
        "--target-rationales",
        metavar="PRODUCER",
        help="rationales/PRODUCER.parquet, or a .parquet file, whose kept samples the model learns "
        "to write instead of gold ones, such as teacher; with QCM-LEA their answers too",
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
    return data


def add_model_option(group: "argparse._ArgumentGroup") -> None:
    """Which model is trained."""
    group.add_argument(
        "--model",
        default="tiny",
        help="`tiny` (trained from scratch, tokenizer included), or a folder or hub id of a T5 "
        "or FusionT5 (default: tiny)",
    )


def add_optimization_options(parser: argparse.ArgumentParser) -> None:
    """How it is trained."""
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


def feature_set(text: str) -> Path | str:
    """For ``type=``: a folder or the URL of a feature set."""
    try:
        return text if is_remote(text) else Path(text)
    except MmcotError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _name(features: Path | str) -> str:
    """``detr`` of shards/detr."""
    return PurePosixPath(features).name if isinstance(features, str) else features.resolve().name


def config_from(arguments: argparse.Namespace, prefix: str = "") -> TrainConfig:
    """The run that the options describe.

    Args:
        arguments: Of a parser with the options of this module.
        prefix: Of the default run folder's name.

    Raises:
        ValueError: If there is nothing to read, or options exclude each other.
    """
    known = TrainConfig.__dataclass_fields__
    values = {name: value for name, value in vars(arguments).items() if name in known}
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
        values["output"] = Path("runs") / f"{prefix}{name}-{Path(model).name}"
    for name, value in asdict(recipe_of(model)).items():
        if values[name] is None:
            values[name] = value
    values["image_roles"] = tuple(values["image_roles"])
    return TrainConfig(**values)
