"""``mmcot-data download``: fetch a data set, verify it, and know what is in the folder."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mmcot_data.cli.subcommand import Subcommands, add_subcommand, local_path, progress_bar
from mmcot_data.questions import SPLITS

if TYPE_CHECKING:
    from mmcot_data.downloads.run import DownloadSummary

__all__ = ["add_parser"]

_EXAMPLES = """\
  ScienceQA (0.7 GB):      mmcot-data download scienceqa data/scienceqa
  with choice pictures:    mmcot-data download scienceqa data/scienceqa --source official
  the test split alone:    mmcot-data download scienceqa data/test --split test
  prove the pictures too:  mmcot-data download scienceqa data/scienceqa --prove-pictures images
  A-OKVQA (about 4 GB):    mmcot-data download aokvqa data/aokvqa --parallel 16
  from a mirror:           mmcot-data download scienceqa data/scienceqa \\
                             --mirror https://mirror.example/prefix
  look at it again:        mmcot-data download scienceqa data/scienceqa --verify

sources of ScienceQA:
  hub       The texts of the official repository and the pictures of derek-thomas/ScienceQA on
            Hugging Face's hub. Its rows have no question ids; each row is proved to be the question
            that it should be. It has image.png of every question, but no choice pictures and no
            image_2.png. Files in Hugging Face's cache are used from there.
  official  The same texts and the authors' zips, which have all pictures.

Nothing stands at its final place before it is whole and verified. Interrupted, the same command
continues; finished, it compares the files' sizes, or with --verify their sha256, and fetches
nothing. OUT/download.json says where every file came from.

licences: ScienceQA is CC BY-NC-SA 4.0, whatever a copy's card says. A-OKVQA's annotations: see its
repository; COCO's pictures: the terms of their owners on Flickr.
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "download",
        _run,
        summary="Fetch a data set with its pictures, verify it, and write it in a known layout.",
        examples=_EXAMPLES,
    )
    parser.add_argument("dataset", choices=("scienceqa", "aokvqa"), help="what to fetch")
    parser.add_argument(
        "out", type=local_path, metavar="OUT", help="folder to make: new, empty, or begun before"
    )
    parser.add_argument(
        "--source",
        choices=("hub", "official"),
        help="where from: see below (default: hub for scienceqa, official for aokvqa)",
    )
    parser.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="URL",
        help="server that has the same files under the same paths, asked first; may be given "
        "several times",
    )
    parser.add_argument(
        "--revision",
        help="branch, tag or commit, of the hub's repository or with --source official of the one "
        "on GitHub (default: a pinned commit of the hub's; main)",
    )
    parser.add_argument(
        "--split",
        action="append",
        choices=SPLITS,
        help="only the pictures of this split; may be given several times",
    )
    parser.add_argument(
        "--parallel",
        type=int,
        default=4,
        metavar="N",
        help="files fetched at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--prove-pictures",
        type=Path,
        metavar="FOLDER",
        help="official images folder, or any part of it: compare the pixels of the hub's pictures "
        "with it",
    )
    parser.add_argument(
        "--keep-archives",
        action="store_true",
        help="keep what the pictures were taken from, in OUT/archives",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="of a finished download compare the sha256 of every file, not the sizes alone",
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.downloads.config import DownloadConfig
    from mmcot_data.downloads.job import DownloadReports
    from mmcot_data.downloads.run import download

    try:
        config = DownloadConfig(
            dataset=arguments.dataset,
            out=arguments.out,
            source=arguments.source,
            mirrors=tuple(arguments.mirror),
            revision=arguments.revision,
            splits=tuple(arguments.split) if arguments.split else None,
            num_parallel=arguments.parallel,
            keep_archives=arguments.keep_archives,
            prove_pictures=arguments.prove_pictures,
        )
    except ValueError as error:
        arguments.fail(str(error))
    with _byte_bars() as fetched, progress_bar("files", "files") as written:
        reports = DownloadReports(say=_say, fetched=fetched, written=written)
        summary = download(config, reports, verify=arguments.verify)
    _print_summary(summary, is_verified=arguments.verify)
    return 0


def _say(text: str) -> None:
    print(f"mmcot-data: {text}", file=sys.stderr)


@contextmanager
def _byte_bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """Progress bars on stderr, one for each thing that is fetched."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tasks: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int | None) -> None:
        if what not in tasks:
            progress.start()
            tasks[what] = progress.add_task(f"fetching {what}", total=total, completed=done)
        progress.update(tasks[what], completed=done, total=total)

    try:
        yield report
    finally:
        progress.stop()


def _print_summary(summary: "DownloadSummary", *, is_verified: bool) -> None:
    counts = ", ".join(f"{count} {what}" for what, count in summary.counts.items())
    revision = f", revision {summary.revision}" if summary.revision else ""
    print(
        f"{summary.out}: {summary.dataset} from {summary.source}{revision}; "
        f"{summary.num_files} files, {summary.nbytes / 1e6:.1f} MB"
    )
    print(f"holds: {counts}")
    if summary.proof:
        print("proof: " + ", ".join(f"{count} {what}" for what, count in summary.proof.items()))
        if by_order := summary.proof.get("by row order", 0):
            print(
                f"       {by_order} rows have the texts of other questions and another picture: "
                "which is which rests on the order of the rows (--prove-pictures FOLDER proves it)"
            )
    if summary.was_there:
        what = "sha256" if is_verified else "sizes"
        print(f"it was there already; the {what} of all files are as recorded")
    else:
        print(
            f"fetched: {summary.nbytes_fetched / 1e6:.1f} MB; of {summary.num_fetched} texts and "
            f"archives the digests of {summary.num_verified} were known before and compared, the "
            f"others are recorded; {summary.peak_nbytes / 1e6:.1f} MB on the disk at the peak"
        )
    print(f"licence: {summary.licence}")
    print(f"next: mmcot-data extract {summary.out} --encoder detr --out shards")
    if summary.dataset == "aokvqa":
        print(
            f"      mmcot-data rationales import shards {summary.out / 'rationales.jsonl'} "
            "--prompt-format QCM-E --producer aokvqa"
        )
