"""``mmcot-data rationales import``: those that another program wrote."""

import argparse
from pathlib import Path

from mmcot_data.cli.rationales.arguments import add_artifacts
from mmcot_data.cli.subcommand import Subcommands, add_subcommand
from mmcot_data.questions import split_names

__all__ = ["add_parser"]

_EXAMPLES = """\
  of Multimodal-CoT:  mmcot-data rationales import shards predictions_ans_test.json --split test \\
                        --prompt-format QCM-E --producer mm-cot
  of GPT-3:           mmcot-data rationales import shards final_test_QCM-ALE_2_seed_3.json \\
                        --prompt-format QCM-ALE --producer gpt-3
  of A-OKVQA:         mmcot-data rationales import shards data/aokvqa/rationales.jsonl \\
                        --prompt-format QCM-E --producer aokvqa
  your own:           mmcot-data rationales import shards mine.jsonl --prompt-format QCM-E \\
                        --producer mine

Files:
  .json    {"preds": [text, ...]} in the order of the split's official list (Multimodal-CoT),
           {"outputs": {question id: text}} (ScienceQA's GPT-3 files), {question id: text or texts}
  .jsonl   a line each: {"question_id": "7", "rationale": "...", "sample": 0, "answer": 1,
           "finish_reason": "stop", "prompt_format": "QCM-E"}; the first two are required
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    from mmcot_data.prompts import PROMPT_FORMATS

    parser = add_subcommand(
        commands,
        "import",
        _run,
        summary="Write rationales that another program made, keyed by question id.",
        examples=_EXAMPLES,
    )
    add_artifacts(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="see below")
    parser.add_argument(
        "--producer", required=True, metavar="NAME", help="writes rationales/NAME.parquet"
    )
    parser.add_argument(
        "--prompt-format",
        choices=[form for form in PROMPT_FORMATS if not form.endswith("-A")],
        help="what the texts answer: QCM-E a solution, QCM-LE lecture and solution, QCM-LEA these "
        "and the answer, QCM-ALE the answer first",
    )
    parser.add_argument(
        "--split", choices=split_names(), help="of a list without ids: the split that it is of"
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.files import file_sha256
    from mmcot_data.questions import read_questions
    from mmcot_data.rationale_imports import import_rationales
    from mmcot_data.rationales import write_rationales_once
    from mmcot_data.text_artifacts import artifact_path

    questions = read_questions(arguments.artifacts)
    path = artifact_path(arguments.artifacts, "rationales", arguments.producer)
    rationales = import_rationales(
        arguments.file,
        questions,
        prompt_format=arguments.prompt_format,
        split=arguments.split,
    )
    made_by = {
        "producer": "import",
        "file": arguments.file.name,
        "file_sha256": file_sha256(arguments.file),
        "prompt_format": arguments.prompt_format,
        "split": arguments.split,
    }
    is_new = write_rationales_once(path, rationales, made_by)
    num_questions = len({rationale.question_id for rationale in rationales})
    print(
        f"{path}: {len(rationales)} rationales of {num_questions} questions"
        f"{'' if is_new else '; all of it was there already'}"
    )
    return 0
