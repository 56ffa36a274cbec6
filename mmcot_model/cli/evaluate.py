"""mmcot-evaluate: score the predictions of a run or of any model."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mmcot_data.errors import MmcotError, how_to_install
from mmcot_data.prompts import RATIONALE_FORMATS
from mmcot_data.questions import split_names
from mmcot_model.cli.evaluate_scores import print_scores
from mmcot_model.cli.options import feature_set
from mmcot_model.evaluation.failures import FAILURES
from mmcot_model.evaluation.subsets import SUBSET_FIELDS, Condition

__all__ = ["main"]

_SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

_DESCRIPTION = """\
Score predictions: accuracy in ScienceQA's nine buckets with the number of
questions and a 95% interval (Wilson) of each, and BLEU-1, BLEU-4 and ROUGE-L of
the rationales as Multimodal-CoT computes them.

The predictions are those of a run of mmcot-train, or a file that any model may
have written: .parquet or .jsonl (one JSON object a line) with

  question_id          the id in questions.parquet, a string
  answer               index of the chosen choice, or null
  rationale            text or null (may be left out)
  reference_rationale  what to score it against (may be left out; without it,
                       the data set's own: see --rationale-format)

or predictions_ans_*.json of Multimodal-CoT, a list of texts in the official order
of a split; rationales of its first stage are recognised.

A question of the split without a prediction, or with a null answer, counts as
wrong; nothing is guessed unless --failures random asks for it.
"""

_EXAMPLES = """\
examples:
  mmcot-evaluate runs/detr
  mmcot-evaluate runs/detr --json scores.json --paper
  mmcot-evaluate runs/detr --where subject="social science" --where grade=grade3
  mmcot-evaluate runs/detr --similarity
  mmcot-evaluate runs/detr --error-analysis
  mmcot-evaluate runs/detr --export-reference predictions_ans_test.json
  mmcot-evaluate --predictions mine.jsonl --artifacts shards --split minitest
  mmcot-evaluate --predictions predictions_ans_test.json --artifacts shards --failures random

What each figure means, and what it doesn't: docs/evaluation.md.

exit codes: 0 done; 1 an error, explained; 2 wrong usage; 130 stopped by Ctrl-C
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the command's name; None for those of the process.

    Returns:
        The exit code: 0 done, 1 an error that is explained on stderr, 130 stopped by Ctrl-C.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    _check_usage(parser, args)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # where it is imported
    try:
        print_scores(args)
    except (MmcotError, OSError) as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(
            f"{error.name} is not installed; --similarity, --teacher-forced and --error-analysis "
            f"need {how_to_install('train')}"
        )
    except KeyboardInterrupt:
        print("mmcot-evaluate: stopped", file=sys.stderr)
        return 130
    return 0


def _fail(message: str) -> int:
    print(f"mmcot-evaluate: error: {message}", file=sys.stderr)
    return 1


def _check_usage(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if (args.run is None) == (args.predictions is None):
        parser.error("give either RUN or --predictions FILE")
    if args.predictions is not None and args.artifacts is None:
        parser.error("--predictions needs --artifacts DIR, the folder with questions.parquet")
    models = {"--teacher-forced": args.teacher_forced, "--error-analysis": args.error_analysis}
    for flag, given in models.items():
        if given and args.run is None:
            parser.error(f"{flag} asks a model: it needs RUN, not --predictions")
    if args.features and not any(models.values()):
        parser.error(f"--features goes with {' or '.join(models)}")
    if args.error_analysis and (args.where or args.split):
        parser.error(
            "--error-analysis is of RUN's whole test split, and has a row for each skill: it goes "
            "with neither --where nor --split"
        )
    if args.export_reference is not None and args.where:
        parser.error(
            "--export-reference writes a list without question ids, which must be of a whole "
            "split: leave out --where"
        )


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
    which = parser.add_argument_group("which questions")
    which.add_argument(
        "--split", choices=split_names(), help="questions to score (default: RUN's own, or test)"
    )
    which.add_argument(
        "--where",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        type=_condition,
        help="only questions with this value; several of one field are alternatives, those of "
        f"different fields must all hold; fields: {', '.join(SUBSET_FIELDS)}",
    )
    how = parser.add_argument_group("how they are scored")
    how.add_argument(
        "--rationale-format",
        choices=RATIONALE_FORMATS,
        default="QCM-LE",
        help="prompt format of the data set's own rationales (default: %(default)s)",
    )
    how.add_argument(
        "--failures",
        choices=FAILURES,
        help="what a question without a readable answer counts as: wrong, or one of five options, "
        "drawn at random as in the reference (default: RUN's own, or wrong)",
    )
    how.add_argument(
        "--seed",
        type=int,
        help="of these draws, each of which depends on it and the question alone (default: RUN's "
        "own, or 42)",
    )
    more = parser.add_argument_group("more figures")
    more.add_argument(
        "--paper",
        action="store_true",
        help="print the published figures of Multimodal-CoT and others beside these",
    )
    more.add_argument(
        "--similarity",
        metavar="MODEL",
        nargs="?",
        const=_SENTENCE_MODEL,
        help="cosine of sentence embeddings of rationales and references (the reference's "
        "`similariry`); MODEL: folder or hub id of a model of sentence-transformers that averages "
        "token states (default: %(const)s, 90 MB from the hub)",
    )
    more.add_argument(
        "--teacher-forced",
        action="store_true",
        help="also score what RUN's stage 1 guesses for each word after the gold words before it, "
        "as the reference's first version did: higher than what it writes, and not comparable",
    )
    more.add_argument(
        "--error-analysis",
        action="store_true",
        help="answer RUN's test split again, from the gold rationale and without the picture, and "
        "count by skill which answers change; writes RUN/error_analysis.parquet and .json. "
        "Captions stay. A rationale that differs from the gold one need not be wrong, and a model "
        "that was trained without pictures is another one",
    )
    more.add_argument(
        "--features",
        metavar="DIR",
        nargs="+",
        type=feature_set,
        default=[],
        help="RUN's feature sets, where they are no longer where it had them",
    )
    files = parser.add_argument_group("files")
    files.add_argument("--json", metavar="FILE", type=Path, help="write the scores to FILE, too")
    files.add_argument(
        "--export-reference",
        metavar="FILE",
        type=Path,
        help="write the predictions as Multimodal-CoT's predictions_ans_test.json: texts in the "
        "official order of the split",
    )
    return parser


def _condition(text: str) -> Condition:
    try:
        return Condition.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
