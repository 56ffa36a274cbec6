"""``mmcot-data rationales stage1``: a trained stage 1 writes."""

import argparse
from pathlib import Path

from mmcot_data.cli.rationales.arguments import add_artifacts, add_producer
from mmcot_data.cli.subcommand import Subcommands, add_subcommand, progress_bar
from mmcot_data.questions import split_names
from mmcot_model.cli.options import feature_set

__all__ = ["add_parser"]

_EXAMPLES = """\
  all questions:              mmcot-data rationales stage1 shards --run runs/detr-tiny
  one split:                  mmcot-data rationales stage1 shards --run runs/detr-tiny --split test
  several of each question:   mmcot-data rationales stage1 shards --run runs/detr-tiny \\
                                --samples 4 --temperature 0.7 --producer stage1-x4
  on to stage 2:              mmcot-train --features shards/detr --stage answer \\
                                --prompt-format QCMG-A --rationales stage1

Rationales are generated from question and picture alone. Those of the questions that the model was
trained on are better than it deserves: `mmcot-data rationales stage1-kfold` makes honest ones.
More samples or splits can be added later by the same command with other values.
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "stage1",
        _run,
        summary="Let the trained rationale stage of a run write rationales for any split.",
        examples=_EXAMPLES,
    )
    add_artifacts(parser)
    parser.add_argument(
        "--run", dest="folder", type=Path, required=True, metavar="RUN", help="of mmcot-train"
    )
    add_producer(parser, "stage1")
    parser.add_argument(
        "--split",
        action="append",
        choices=split_names(),
        help="only these questions; may be given several times (default: all)",
    )
    parser.add_argument(
        "--samples", type=int, default=1, help="rationales a question (default: %(default)s)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="0 writes what is most probable; several samples need more (default: %(default)s)",
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        help="draw from the most probable tokens of this probability (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=42, help="of sampling (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=64, help="texts at once (default: %(default)s)"
    )
    parser.add_argument(
        "--features",
        nargs="+",
        type=feature_set,
        metavar="DIR",
        help="the feature sets, where they are not where the run had them",
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_model.producers.stage1 import Stage1Config, write_stage1_rationales

    try:
        config = Stage1Config(
            artifacts=arguments.artifacts,
            run=arguments.folder,
            producer=arguments.producer,
            splits=tuple(arguments.split or ()),
            samples=arguments.samples,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            features=tuple(arguments.features or ()),
        )
    except ValueError as error:
        arguments.fail(str(error))
    with progress_bar("writing rationales", "rationales") as report:
        summary = write_stage1_rationales(config, report)
    new = f"{summary.num_new} of them new" if summary.num_new else "all of it was there already"
    print(
        f"{summary.path}: {summary.num_rows} rationales, {new}, {summary.num_cut_off} cut off at "
        "the limit of tokens"
    )
    return 0
