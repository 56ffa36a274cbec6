"""``mmcot-data rationales stage1-kfold``: by models that have not seen the questions."""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from mmcot_data.cli.rationales.arguments import add_artifacts, add_producer
from mmcot_data.cli.subcommand import Subcommands, add_subcommand
from mmcot_data.prompts import RATIONALE_FORMATS
from mmcot_model.cli.options import add_setting_options, config_from
from mmcot_model.runs.reporters import check_reporters

__all__ = ["add_parser"]

_EXAMPLES = """\
  five models:      mmcot-data rationales stage1-kfold shards --features shards/detr
  and stage 2:      mmcot-train --features shards/detr --train-rationales stage1-kfold
  without pictures: mmcot-data rationales stage1-kfold shards --producer text-kfold

The training questions are divided by a hash of their ids; a stage 1 is trained for each fold on the
others, and writes the rationales of the fold. That takes as long as training stage 1 as many times
as there are folds. Stopped, the same command goes on. The models stay in --output; they can be
deleted when the table is written.
"""

_OTHER_SETTINGS = (
    "answer_epochs",
    "answer_model",
    "artifacts",
    "failures",
    "hub_private",
    "max_answer",
    "output",
    "prompt_format",
    "push_to_hub",
    "rationale_model",
    "rationales",
    "stage",
    "test_split",
    "train_rationales",
    "val_rationales",
)
"""Settings of a run that say nothing of a fold, or that this command has its own option for."""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "stage1-kfold",
        _run,
        summary="Write rationales of the training questions by models that have not seen them.",
        examples=_EXAMPLES,
    )
    add_artifacts(parser)
    add_producer(parser, "stage1-kfold")
    parser.add_argument(
        "--folds", type=int, default=5, metavar="K", help="models (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="folder of the folds' runs (default: runs/PRODUCER-FEATURES-MODEL)",
    )
    parser.add_argument(
        "--prompt-format",
        choices=RATIONALE_FORMATS,
        default="QCM-E",
        help="of the rationales (default: %(default)s)",
    )
    add_setting_options(parser, leave_out=_OTHER_SETTINGS)


def _run(arguments: argparse.Namespace) -> int:
    check_reporters(getattr(arguments, "report_to", ()))
    import transformers

    from mmcot_model.producers.kfold import KFoldConfig, write_kfold_rationales

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    arguments.stage = "rationale"
    try:
        train = config_from(arguments, prefix=f"{arguments.producer}-")
        train = replace(train, test_split=train.train_split)
        config = KFoldConfig(train=train, folds=arguments.folds, producer=arguments.producer)
    except ValueError as error:
        arguments.fail(str(error))
    summary = write_kfold_rationales(
        config, lambda done, folds: print(f"fold {done} of {folds} is done", file=sys.stderr)
    )
    print(
        f"{summary.path}: {summary.num_rows} rationales by {config.folds} models, "
        f"{summary.num_cut_off} cut off at the limit of tokens"
        f"{'' if summary.is_new else '; all of it was there already'}"
    )
    if summary.is_new:
        options = (
            f"--features {' '.join(map(str, train.features))}"
            if train.features
            else f"--artifacts {train.artifacts}"
        )
        print(f"next: mmcot-train {options} --train-rationales {config.producer}")
    return 0
