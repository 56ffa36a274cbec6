"""``python -m benchmarks.download``: the download of a full-size stand-in of ScienceQA.

Three parquet files of the published sizes, with the published numbers of questions and pictures,
come from local hosts that cut every connection after 4 MB. The command runs as users run it, in a
process of its own. A second data set with a quarter of the questions, and a third with pictures of
a quarter of the bytes, show what memory depends on. ``--scale 0.05`` is a quick look.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.download_host import serve
from benchmarks.download_stand_in import StandIn, make_stand_in
from benchmarks.measuring import print_table

__all__ = ["main"]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What one command did."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    """Resident memory of the process, at its largest."""
    peak_disk: int
    """Bytes on the disk under the folder, at most."""
    output: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the stand-ins, download them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of questions")
    parser.add_argument("--cut-after", type=float, default=4.0, metavar="MB")
    parser.add_argument("--folder", type=Path, help="for all files; a temporary one by default")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="mmcot-download-") as folder:
        columns = [
            _measure(Path(folder), options.scale * share, picture_share, options.cut_after)
            for share, picture_share in ((1.0, 1.0), (0.25, 1.0), (1.0, 0.25))
        ]
    names = list(columns[0])
    print_table(
        f"mmcot-data download scienceqa, a cut every {options.cut_after:g} MB",
        ("", "all", "1/4 of the questions", "1/4 of each picture"),
        [(name, *(column[name] for column in columns)) for name in names],
    )


def _measure(folder: Path, scale: float, picture_scale: float, cut_after: float) -> dict[str, str]:
    stand_in = make_stand_in(folder / "hosts", scale, picture_scale)
    out = folder / "out"
    with serve(int(cut_after * 1e6)) as main_host, serve(int(cut_after * 1e6)) as cdn:
        stand_in.offer(main_host, cdn)
        command = _command(folder, stand_in, out, main_host.url)
        first = _run(command, out)
        requests = main_host.num_requests + cdn.num_requests
        again = _run([*command, "--verify"], out)
        asked_again = main_host.num_requests + cdn.num_requests - requests
        cuts, sent = main_host.num_cuts + cdn.num_cuts, main_host.num_sent + cdn.num_sent
    record = json.loads((out / "download.json").read_bytes())
    row = {
        "parquet files, MB": f"{stand_in.nbytes / 1e6:.1f}",
        "seconds": f"{first.seconds:.1f}",
        "of which on the CPU": f"{first.cpu_seconds:.1f}",
        "MB/s": f"{record['nbytes_fetched'] / 1e6 / first.seconds:.0f}",
        "connections cut": f"{cuts}",
        "sent more than the files have, bytes": f"{sent - record['nbytes_fetched']}",
        "peak memory of the process, MiB": f"{first.peak_mib:.0f}",
        "peak on the disk, MB (as the command says)": f"{first.peak_disk / 1e6:.0f} "
        f"({record['peak_nbytes'] / 1e6:.0f})",
        "on the disk in the end, MB": f"{_disk_nbytes(out) / 1e6:.0f}",
        "questions": f"{record['counts']['questions']}",
        "pictures, equal to the hosts' bytes": f"{_count_equal(stand_in, out)}",
        "rows that rest on their order": f"{record['proof']['by row order']}",
        "--verify again: seconds, requests": f"{again.seconds:.1f}, {asked_again}",
    }
    _remove(folder)
    return row


def _command(folder: Path, stand_in: StandIn, out: Path, mirror: str) -> list[str]:
    published = folder / "published.json"
    digest = next(d for path, d in stand_in.sha256.items() if path.startswith("data/train"))
    published.write_text(json.dumps({"counts": stand_in.counts, "train_sha256": digest}))
    command = [sys.executable, "-m", "benchmarks.download_command", str(published)]
    return [*command, "download", "scienceqa", str(out), "--mirror", mirror]


def _run(command: Sequence[str], out: Path) -> _Run:
    environment = os.environ | {"HF_HUB_CACHE": str(out.parent / "cache")}
    environment.pop("HF_HUB_OFFLINE", None)
    watched = _Watched()
    log = out.parent / "log.txt"
    with log.open("wb") as file:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        watcher = threading.Thread(target=watched.watch, args=(process.pid, out))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    watched.stop.set()
    watcher.join()
    output = log.read_text(errors="replace")
    if process.returncode:
        raise SystemExit(f"the command ended with {process.returncode}:\n{output[-4000:]}")
    return _Run(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mib=watched.peak_kib / 1024,
        peak_disk=watched.peak_disk,
        output=output,
    )


class _Watched:
    """Peaks of a process, looked at four times a second."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.peak_kib = 0
        self.peak_disk = 0

    def watch(self, pid: int, folder: Path) -> None:
        """Look until told to stop. What wait4 tells would count this process's memory too."""
        while not self.stop.wait(0.25):
            self.peak_kib = max(self.peak_kib, _most_memory_kib(pid))
            self.peak_disk = max(self.peak_disk, _disk_nbytes(folder))


def _most_memory_kib(pid: int) -> int:
    """The most resident memory that a process has had so far; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _disk_nbytes(folder: Path) -> int:
    """Blocks of all files under a folder that may change meanwhile, in bytes."""
    total, folders = 0, [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def _count_equal(stand_in: StandIn, out: Path) -> int:
    """Pictures whose bytes are those of the row that the official list says, all compared."""
    lists = json.loads((stand_in.folder / "pid_splits.json").read_bytes())
    count = 0
    for (split, ids), path in zip(lists.items(), stand_in.parquet.values(), strict=True):
        row = 0
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(64, columns=["image"]):
                for image in batch.column(0).to_pylist():
                    file = out / "images" / split / ids[row] / "image.png"
                    if image is None:
                        wrong = file.exists()
                    else:
                        wrong = file.read_bytes() != image["bytes"]
                        count += 1
                    if wrong:
                        raise SystemExit(f"{file} is not the picture of row {row} of {path.name}")
                    row += 1
    return count


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
