"""``mmcot-data inputs``: what the model will see."""

import argparse
from pathlib import Path

from mmcot_data.cli.subcommand import Subcommands, add_subcommand, local_path
from mmcot_data.questions import split_names

__all__ = ["add_parser"]

_EXAMPLES = """\
  stage 1, to rationales:   mmcot-data inputs shards --prompt-format QCM-LE --out stage1.jsonl
  stage 2, to answers:      mmcot-data inputs shards --prompt-format QCMG-A --out stage2.jsonl
  with others' texts:       mmcot-data inputs shards --prompt-format QCMG-A --split test \\
                              --captions scienceqa --rationales my-run --out stage2.parquet
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    from mmcot_data.prompts import PROMPT_FORMATS

    parser = add_subcommand(
        commands,
        "inputs",
        _run,
        summary="Write what the model will see: question_id, source and target.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "artifacts", type=Path, metavar="ARTIFACTS", help="artifact root, with questions.parquet"
    )
    parser.add_argument(
        "--prompt-format",
        required=True,
        choices=PROMPT_FORMATS,
        help="Q question, C context, M choices, G rationale -> L lecture, E solution, A answer",
    )
    parser.add_argument("--captions", metavar="PRODUCER", help="captions/PRODUCER.parquet")
    parser.add_argument(
        "--rationales",
        metavar="PRODUCER",
        help="rationales/PRODUCER.parquet, for QCMG-A (default: the data set's own)",
    )
    parser.add_argument("--split", choices=split_names(), help="only these questions")
    parser.add_argument(
        "--out", type=local_path, required=True, metavar="FILE", help=".parquet or .jsonl"
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.captions import read_captions
    from mmcot_data.inputs import model_inputs, write_inputs
    from mmcot_data.questions import read_questions, select_split
    from mmcot_data.rationales import kept_rationales, read_rationales
    from mmcot_data.text_artifacts import artifact_path

    root = arguments.artifacts
    questions = read_questions(root / "questions.parquet")
    captions = rationales = None
    if arguments.captions is not None:
        captions = read_captions(artifact_path(root, "captions", arguments.captions))
    if arguments.rationales is not None:
        path = artifact_path(root, "rationales", arguments.rationales)
        rationales = kept_rationales(read_rationales(path, questions))
    if arguments.split is not None:
        questions = select_split(questions, arguments.split)
    rows = model_inputs(questions, arguments.prompt_format, captions, rationales)
    write_inputs(arguments.out, rows)
    print(f"{arguments.out}: {len(rows)} questions as {arguments.prompt_format}")
    return 0
