"""``mmcot-data rationales vote``: the answers of most samples."""

import argparse

from mmcot_data.cli.rationales.arguments import add_artifacts
from mmcot_data.cli.subcommand import Subcommands, add_subcommand, local_path

__all__ = ["add_parser"]

_EXAMPLES = """\
  mmcot-data rationales vote shards teacher --out votes.parquet
  mmcot-evaluate --predictions votes.parquet --artifacts shards
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "vote",
        _run,
        summary="Answer each question as most samples of its rationales do (self-consistency).",
        examples=_EXAMPLES,
    )
    add_artifacts(parser)
    parser.add_argument("producer", metavar="PRODUCER", help="rationales/PRODUCER.parquet")
    parser.add_argument(
        "--out",
        type=local_path,
        required=True,
        metavar="FILE",
        help=".parquet or .jsonl, for mmcot-evaluate: question_id, answer and rationale, the first "
        "that gives the answer",
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.questions import read_questions
    from mmcot_data.rationale_votes import vote, write_votes
    from mmcot_data.rationales import read_rationales
    from mmcot_data.text_artifacts import artifact_path

    questions = read_questions(arguments.artifacts)
    path = artifact_path(arguments.artifacts, "rationales", arguments.producer)
    votes = vote(read_rationales(path, questions))
    write_votes(arguments.out, votes)
    gold = {question.question_id: question.answer for question in questions}
    known = [each for each in votes if gold[each.question_id] is not None]
    num_correct = sum(each.answer == gold[each.question_id] for each in known)
    text = f"{arguments.out}: {len(votes)} questions"
    if known:
        text += f", {num_correct} of {len(known)} answered correctly"
    print(f"{text}, {sum(each.answer is None for each in votes)} without a vote")
    return 0
