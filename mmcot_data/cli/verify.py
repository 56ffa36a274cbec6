"""``mmcot-data verify``: compare feature sets with their checksums."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mmcot_data.cli.subcommand import Subcommands, add_subcommand, progress_bar

if TYPE_CHECKING:
    from mmcot_data.shards.shard_verification import Finding
    from mmcot_data.shards.verification import VerificationReport

__all__ = ["add_parser"]

_MEGABYTE = 10**6
_MAX_LISTED = 12

_EXAMPLES = """\
  one feature set:         mmcot-data verify shards/detr
  all of them:             mmcot-data verify shards
  of someone else:         mmcot-data verify s3://bucket/shards/detr
  for a script:            mmcot-data verify shards/detr --json report.json

Every byte is read once: the shards, their rows, the index, the manifest and the commit records are
compared with their checksums and with each other. All problems are listed: the file, what is wrong,
which rows and questions it concerns, and what to do. Exit code 0: no problem, 1: problems.
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


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.files import write_json
    from mmcot_data.shards.verification import verify_features

    reports = []
    for path in _feature_sets(arguments.dirs):
        start = time.perf_counter()
        with progress_bar(path, "MB") as report:
            found = verify_features(
                path, lambda done, total: report(_megabytes(done), _megabytes(total))
            )
        _print_report(found, time.perf_counter() - start)
        reports.append(found)
    if arguments.json is not None:
        write_json(arguments.json, [asdict(found) for found in reports])
    return 1 if any(found.problems for found in reports) else 0


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

    result = _count(len(found.problems), "problem") if found.problems else "no problem"
    print(
        f"{found.path}: {result}; read {_count(found.num_shards, 'shard')}, "
        f"{_count(found.num_rows, 'row')}, {decimal(found.nbytes)} in {seconds:.1f} s "
        f"({found.nbytes / 1e9 / seconds:.2f} GB/s)"
    )
    for problem in found.problems:
        _print_finding("PROBLEM", problem)
    for note in found.notes:
        _print_finding("note", note)


def _print_finding(kind: str, finding: "Finding") -> None:
    print(f"  {kind} {finding.file}: " + finding.message.replace("\n", "\n    "))
    for name, values in (("rows", finding.rows), ("questions", finding.question_ids)):
        if values:
            print(f"    {name}: {_shortened(values)}")


def _shortened(values: Sequence[object]) -> str:
    text = ", ".join(str(value) for value in values[:_MAX_LISTED])
    return f"{text}, … ({len(values)} in all)" if len(values) > _MAX_LISTED else text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
