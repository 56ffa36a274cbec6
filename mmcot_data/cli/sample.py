"""``mmcot-data sample``: draw the embedded sample."""

import argparse

from mmcot_data.cli.subcommand import Subcommands, add_subcommand, local_path, progress_bar

__all__ = ["add_parser"]

_EXAMPLES = """\
  mmcot-data sample sample
  mmcot-data sample small --num-questions 300 --seed 1
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "sample",
        _run,
        summary="Draw a data set of questions and pictures in ScienceQA's official layout.",
        examples=_EXAMPLES,
    )
    parser.add_argument("out", type=local_path, metavar="OUT", help="folder to make")
    parser.add_argument("--num-questions", type=int, default=6000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other questions")
    parser.add_argument(
        "--workers", type=int, default=2, help="processes that draw (default: %(default)s)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.sample import draw_sample

    with progress_bar("drawing", "questions") as report:
        draw_sample(
            arguments.out,
            num_questions=arguments.num_questions,
            seed=arguments.seed,
            num_workers=arguments.workers,
            on_progress=report,
        )
    print(f"{arguments.out}: a sample of {arguments.num_questions} questions")
    return 0
