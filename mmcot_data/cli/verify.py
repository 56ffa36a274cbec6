"""``mmcot-data verify``: compare feature sets with their checksums."""

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcot_data.cli.subcommand import Subcommands, add_subcommand, progress_bar
from mmcot_data.errors import DataError, EncoderError, ExtractionError, ShardError

if TYPE_CHECKING:
    from mmcot_data.extraction.reextraction import ReextractionReport
    from mmcot_data.shards.shard_verification import Finding
    from mmcot_data.shards.verification import VerificationReport

__all__ = ["add_parser"]

_MEGABYTE = 10**6
_MAX_LISTED = 12

_MAX_SEED = 10**6

_EXAMPLES = """\
  one feature set:         mmcot-data verify shards/detr
  all of them:             mmcot-data verify shards
  of someone else:         mmcot-data verify s3://bucket/shards/detr
  for a script:            mmcot-data verify shards/detr --json report.json
  32 rows made anew:       mmcot-data verify shards/detr --reextract 32 --data data/scienceqa
  the same rows again:     mmcot-data verify shards/detr --reextract 32 --data data/scienceqa \\
                             --seed 7
  with a local model:      mmcot-data verify shards/clip --reextract 32 --data data/scienceqa \\
                             --model models/clip

Every byte is read once: the shards, their rows, the index, the manifest and the commit records are
compared with their checksums and with each other. All problems are listed: the file, what is wrong,
which rows and questions it concerns, and what to do. Exit code 0: no problem, 1: problems.

Checksums tell that features are what was written. --reextract tells that they are what the pictures
give: it loads the encoder that manifest.json describes, compares its weights and preprocessing, and
extracts random rows of all shards anew. Other versions of libraries and other devices are noted,
not refused; a difference that rounding can't explain is a problem. So is a model that isn't there;
that imported features can't be extracted anew is noted.
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "verify",
        _run,
        summary="Compare feature sets with their checksums, and list all that is wrong.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "dirs",
        nargs="+",
        metavar="DIR",
        help="feature set (folder or URL), or artifact root with several of them",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write what is printed, with all rows and questions",
    )
    anew = parser.add_argument_group("extract rows anew")
    anew.add_argument(
        "--reextract", type=int, metavar="N", help="rows to draw at random from each feature set"
    )
    anew.add_argument("--data", type=Path, help="data set of the extraction")
    anew.add_argument("--seed", type=int, help="of the draw (default: another one each time)")
    anew.add_argument(
        "--model", help="local folder or hub id instead of the model that manifest.json names"
    )
    anew.add_argument("--device", help="auto, cpu, cuda, cuda:1, … (default: auto)")


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.files import write_json
    from mmcot_data.shards.verification import verify_features

    _check_usage(arguments)
    num_problems = 0
    records = []
    for path in _feature_sets(arguments.dirs):
        start = time.perf_counter()
        with progress_bar(path, "MB") as report:
            found = verify_features(
                path, lambda done, total: report(_megabytes(done), _megabytes(total))
            )
        _print_report(found, time.perf_counter() - start)
        problems, notes = list(found.problems), list(found.notes)
        anew = None
        if arguments.reextract is not None:
            more_problems, more_notes, anew = _reextract(arguments, path, found)
            problems += more_problems
            notes += more_notes
        num_problems += len(problems)
        records.append(
            asdict(found)
            | {"problems": list(map(asdict, problems)), "notes": list(map(asdict, notes))}
            | {"reextraction": None if anew is None else _without_findings(anew)}
        )
    if arguments.json is not None:
        write_json(arguments.json, records)
    return 1 if num_problems else 0


def _check_usage(arguments: argparse.Namespace) -> None:
    """Refuse what has no meaning, and draw a seed if none is given."""
    options = ("data", "seed", "model", "device")
    if arguments.reextract is None:
        if given := [f"--{name}" for name in options if getattr(arguments, name) is not None]:
            arguments.fail(f"{', '.join(given)}: only with --reextract N")
        return
    if arguments.reextract < 1:
        arguments.fail(f"--reextract is {arguments.reextract}, expected at least 1")
    if arguments.data is None:
        arguments.fail("--reextract needs --data DATA: the data set of the extraction")
    if not arguments.data.exists():
        arguments.fail(f"--data {arguments.data} does not exist")
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(_MAX_SEED)


def _reextract(
    arguments: argparse.Namespace, path: str, found: "VerificationReport"
) -> tuple[Sequence["Finding"], Sequence["Finding"], "ReextractionReport | None"]:
    """Problems, notes, and what was found; nothing is if the feature set is damaged."""
    from mmcot_data.extraction.reextraction import reextract_features
    from mmcot_data.extraction.spec_encoder import NotReextractableError
    from mmcot_data.shards.shard_verification import Finding

    if found.problems:
        print("  no rows were extracted anew: repair the problems first")
        return [], [], None
    start = time.perf_counter()
    try:
        with progress_bar(f"{path}, anew", "rows") as report:
            anew = reextract_features(
                path,
                arguments.data,
                arguments.reextract,
                seed=arguments.seed,
                model=arguments.model,
                device=arguments.device or "auto",
                on_progress=report,
            )
    except (DataError, EncoderError, ExtractionError, ShardError) as error:
        finding = Finding(file="manifest.json", message=f"no rows were extracted anew: {error}")
        if isinstance(error, NotReextractableError):
            _print_finding("note", finding)
            return [], [finding], None
        _print_finding("PROBLEM", finding)
        return [finding], [], None
    _print_reextraction(anew, time.perf_counter() - start)
    return anew.problems, anew.notes, anew


def _without_findings(anew: "ReextractionReport") -> dict[str, Any]:
    return {k: v for k, v in asdict(anew).items() if k not in ("problems", "notes")}


def _feature_sets(dirs: Sequence[str]) -> list[str]:
    """The folders and URLs that were named, with the feature sets of each artifact root instead."""
    from mmcot_data.inspection.summary import find_feature_sets
    from mmcot_data.shards.remote import is_remote

    found = []
    for path in dirs:
        inside = [] if is_remote(path) else find_feature_sets(Path(path))
        found += [str(folder) for folder in inside] or [path]
    return found


def _megabytes(nbytes: int) -> int:
    return -(-nbytes // _MEGABYTE)


def _print_report(found: "VerificationReport", seconds: float) -> None:
    from rich.filesize import decimal

    print(
        f"{found.path}: {_result(found.problems)}; read {_count(found.num_shards, 'shard')}, "
        f"{_count(found.num_rows, 'row')}, {decimal(found.nbytes)} in {seconds:.1f} s "
        f"({found.nbytes / 1e9 / seconds:.2f} GB/s)"
    )
    _print_findings(found.problems, found.notes)


def _print_reextraction(anew: "ReextractionReport", seconds: float) -> None:
    text = (
        f"  extracted anew {_count(anew.num_compared, 'row')} of {anew.num_available} in "
        f"{seconds:.1f} s (--seed {anew.seed}): {_result(anew.problems)}"
    )
    if anew.max_error is not None:
        text += (
            f"; {anew.num_equal} equal to the bit, largest relative error {anew.max_error:.1e} "
            f"(question {anew.max_error_question}), rounding explains {anew.tolerance:.1e}"
        )
    print(text)
    _print_findings(anew.problems, anew.notes)


def _print_findings(problems: Sequence["Finding"], notes: Sequence["Finding"]) -> None:
    for problem in problems:
        _print_finding("PROBLEM", problem)
    for note in notes:
        _print_finding("note", note)


def _print_finding(kind: str, finding: "Finding") -> None:
    print(f"  {kind} {finding.file}: " + finding.message.replace("\n", "\n    "))
    for name, values in (("rows", finding.rows), ("questions", finding.question_ids)):
        if values:
            print(f"    {name}: {_shortened(values)}")


def _shortened(values: Sequence[object]) -> str:
    text = ", ".join(str(value) for value in values[:_MAX_LISTED])
    return f"{text}, … ({len(values)} in all)" if len(values) > _MAX_LISTED else text


def _result(problems: Sequence["Finding"]) -> str:
    return _count(len(problems), "problem") if problems else "no problem"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
