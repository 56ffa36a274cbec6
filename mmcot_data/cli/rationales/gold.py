"""``mmcot-data rationales gold``: the data set's own."""

import argparse

from mmcot_data.cli.rationales.arguments import add_artifacts, add_producer
from mmcot_data.cli.subcommand import Subcommands, add_subcommand

__all__ = ["add_parser"]

_EXAMPLES = """\
  Solution: {solution}             mmcot-data rationales gold shards
  Solution: {lecture} {solution}   mmcot-data rationales gold shards --prompt-format QCM-LE \\
                                     --producer gold-le
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    from mmcot_data.prompts import RATIONALE_FORMATS

    parser = add_subcommand(
        commands,
        "gold",
        _run,
        summary="Write the data set's own rationales: solution, or lecture and solution.",
        examples=_EXAMPLES,
    )
    add_artifacts(parser)
    parser.add_argument(
        "--prompt-format",
        choices=RATIONALE_FORMATS,
        default="QCM-E",
        help="QCM-E: the solution; QCM-LE: lecture and solution (default: %(default)s)",
    )
    add_producer(parser, "gold")


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.questions import read_questions
    from mmcot_data.rationales import gold_rationales, write_rationales_once
    from mmcot_data.text_artifacts import artifact_path

    questions = read_questions(arguments.artifacts)
    path = artifact_path(arguments.artifacts, "rationales", arguments.producer)
    made_by = {"producer": "gold", "prompt_format": arguments.prompt_format}
    rationales = gold_rationales(questions, arguments.prompt_format)
    is_new = write_rationales_once(path, rationales, made_by)
    num_empty = sum(rationale.rationale == "Solution:" for rationale in rationales)
    print(
        f"{path}: {len(rationales)} rationales, {num_empty} of them empty"
        f"{'' if is_new else '; all of it was there already'}"
    )
    return 0
