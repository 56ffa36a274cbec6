"""mmcot-evaluate: score the predictions of a run or of any model."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcot_data.errors import DataError, MmcotError
from mmcot_data.files import write_json
from mmcot_data.prompts import RATIONALE_FORMATS
from mmcot_data.questions import read_questions, select_split, split_names
from mmcot_model.evaluation import evaluate, read_predictions, render_table
from mmcot_model.run_folder import read_run

__all__ = ["main"]

_DESCRIPTION = """\
Score predictions: accuracy in ScienceQA's nine buckets with the number of
questions in each, and BLEU-1, BLEU-4 and ROUGE-L of the rationales.

The predictions are those of a run of mmcot-train, or a file that any model may
have written: .parquet or .jsonl (one JSON object a line) with

  question_id          the id in questions.parquet, a string
  answer               index of the chosen choice, or null
  rationale            text or null (may be left out)
  reference_rationale  what to score it against (may be left out; without it,
                       the data set's own: see --rationale-format)

A question of the split without a prediction, or with a null answer, counts as
wrong; nothing is guessed.
"""

_EXAMPLES = """\
examples:
  mmcot-evaluate runs/detr
  mmcot-evaluate runs/detr --json scores.json
  mmcot-evaluate --predictions mine.jsonl --artifacts shards
  mmcot-evaluate --predictions mine.jsonl --artifacts shards --split minitest

exit codes: 0 done; 1 an error, explained; 2 wrong usage
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    predictions: Path
    artifacts: Path
    split: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the command's name; None for those of the process.

    Returns:
        The exit code: 0 done, 1 an error that is explained on stderr.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.run is None) == (args.predictions is None):
        parser.error("give either RUN or --predictions FILE")
    if args.predictions is not None and args.artifacts is None:
        parser.error("--predictions needs --artifacts DIR, the folder with questions.parquet")
    try:
        _evaluate(args)
    except (MmcotError, OSError) as error:
        print(f"mmcot-evaluate: error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmcot-evaluate",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", nargs="?", type=Path, help="a run of mmcot-train")
    parser.add_argument(
        "--predictions", metavar="FILE", type=Path, help="predictions, instead of RUN"
    )
    parser.add_argument(
        "--artifacts",
        metavar="DIR",
        type=Path,
        help="artifact root with questions.parquet (default: the one that RUN was trained on)",
    )
    parser.add_argument(
        "--split", choices=split_names(), help="questions to score (default: RUN's own, or test)"
    )
    parser.add_argument(
        "--rationale-format",
        choices=RATIONALE_FORMATS,
        default="QCM-LE",
        help="prompt format of the data set's own rationales (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the scores to FILE, too")
    return parser


def _evaluate(args: argparse.Namespace) -> None:
    request = _request(args)
    all_questions = read_questions(request.artifacts / "questions.parquet")
    questions = select_split(all_questions, request.split)
    predictions = read_predictions(request.predictions, all_questions)
    chosen = {question.question_id for question in questions}
    outside = sum(prediction.question_id not in chosen for prediction in predictions)
    if predictions and outside == len(predictions):
        raise DataError(
            f"{request.predictions}: none of its {outside} predictions is for a question of the "
            f"split {request.split}: expected predictions of that split, choose another --split"
        )
    if outside:
        print(
            f"mmcot-evaluate: {outside} of {len(predictions)} predictions are for questions "
            f"outside of the split {request.split} and are left out",
            file=sys.stderr,
        )
    scores = evaluate(questions, predictions, rationale_format=args.rationale_format)
    print(render_table(scores))
    if args.json is not None:
        write_json(args.json, scores.to_json())


def _request(args: argparse.Namespace) -> _Request:
    if args.predictions is not None:
        return _Request(
            predictions=args.predictions, artifacts=args.artifacts, split=args.split or "test"
        )
    run = read_run(args.run)
    return _Request(
        predictions=args.run / "predictions.parquet",
        artifacts=args.artifacts or args.run / run["artifacts"],
        split=args.split or run["test_split"],
    )
