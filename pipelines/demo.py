"""`make demo`: the whole way on the drawn sample, from pictures to a report, without a download.

Draws the sample, starts a Prefect server and worker of its own, runs the deployment
extract-features, trains with and without features, with and without rationales, and writes a
report. A second run keeps what is there; delete the folder to start over.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from mmcot_data.errors import MmcotError
from mmcot_data.sample import draw_sample
from mmcot_model.settings.recipes import RECIPES
from pipelines.local_prefect import local_prefect
from pipelines.report import write_report
from pipelines.reported_runs import accuracy_table, read_run, skill_table

__all__ = ["main"]

_NUM_AT_ONCE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    title: str
    name: str
    arguments: tuple[str, ...]


def _runs(artifacts: Path, max_steps: int | None) -> list[_Run]:
    """The comparison: the text alone against fusion, one stage against two.

    One stage gets as many passes over the data as the longer of two. The slowest come first, so
    that two processes end at about the same time.
    """
    steps = () if max_steps is None else ("--max-steps", str(max_steps))
    text = ("--artifacts", str(artifacts), *steps)
    fusion = ("--features", str(artifacts / "tiny"), *steps)
    passes = str(RECIPES["tiny"].rationale_epochs)
    one = ("--stage", "answer", "--prompt-format", "QCM-A", "--answer-epochs", passes)
    return [
        _Run(title="fusion, two stages", name="fusion-two-stages", arguments=fusion),
        _Run(title="text only, two stages", name="text-two-stages", arguments=text),
        _Run(title="fusion, one stage", name="fusion-one-stage", arguments=fusion + one),
        _Run(title="text only, one stage", name="text-one-stage", arguments=text + one),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: Arguments without the command's name; None for those of the process.

    Returns:
        The exit code: 0 done, 1 an error that is explained on stderr.
    """
    parser = argparse.ArgumentParser(prog="python -m pipelines.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder (default: demo)")
    parser.add_argument(
        "--num-questions", type=int, default=6000, help="of the sample (default: 6000)"
    )
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="train each stage for N steps only, for a look"
    )
    arguments = parser.parse_args(argv)
    try:
        _demo(arguments.out, arguments.num_questions, arguments.max_steps)
    except (MmcotError, OSError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped; the same command continues", file=sys.stderr)
        return 130
    return 0


def _demo(out: Path, num_questions: int, max_steps: int | None) -> None:
    start = time.monotonic()
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    data, artifacts = out / "data", out / "shards"

    console.rule("1. the sample: questions that need their picture")
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("drawing", total=None)
        draw_sample(
            data,
            num_questions=num_questions,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console.print(f"{num_questions} questions in ScienceQA's layout: {data}")

    console.rule("2. features: a Prefect server, a worker, the deployment extract-features")
    with (
        console.status("starting a server and a worker, deploying flows.yaml"),
        local_prefect(out / "prefect") as prefect,
    ):
        console.print(f"Prefect runs at {prefect.url} while this step lasts")
        parameters = (f"data={data.resolve()}", f"out={artifacts.resolve()}", "encoder=tiny")
        flags = [word for parameter in parameters for word in ("-p", parameter)]
        command = ("deployment", "run", "extract-features", "--watch", *flags)
        console.print(f"$ prefect {shlex.join(command)}", style="bold", soft_wrap=True)

        def show(line: str) -> None:
            if "prefect.artifact" not in line:  # all of them stand in commands.log
                console.print(f"  {line}", style="dim", markup=False, soft_wrap=True)

        prefect.run(*command, on_line=show)

    console.rule("3. training: with and without pictures, with and without rationales")
    runs = _runs(artifacts, max_steps)
    _train(console, out, runs)

    console.rule("4. results")
    finished = [read_run(run.title, out / "runs" / run.name) for run in reversed(runs)]
    console.print(_table("accuracy (%) on the test split", accuracy_table(finished)))
    console.print(_table("accuracy (%) by skill", skill_table(finished)))
    page = write_report(out / "report", finished, data)
    console.print("look at")
    for path, what in (
        (page, "tables, training curves, questions with rationales and answers"),
        (out / "report" / "contact-sheet.png", "the same questions as one picture"),
        (artifacts / "tiny", "the feature set: HDF5 shards, index.parquet, manifest.json"),
        (out / "runs" / "fusion-two-stages", "models, rationales.parquet, predictions.parquet"),
        (out / "prefect", "logs of Prefect's server, worker and commands"),
    ):
        console.print(f"  {path}  [dim]{what}[/dim]", soft_wrap=True, highlight=False)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    console.print(f"demo finished in {minutes} min {seconds} s")


def _train(console: Console, out: Path, runs: Sequence[_Run]) -> None:
    """Train all runs, a few at once with a core each; what is finished already is kept."""
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    num_at_once = min(_NUM_AT_ONCE, os.cpu_count() or 1)
    waiting, running = list(runs), dict[str, subprocess.Popen[bytes]]()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {
            run.name: progress.add_task(run.title, start=False, total=1, note="") for run in runs
        }
        try:
            while waiting or running:
                while waiting and len(running) < num_at_once:
                    run = waiting.pop(0)
                    progress.start_task(tasks[run.name])
                    running[run.name] = _start_training(run, out, num_at_once)
                time.sleep(0.5)
                for name, process in list(running.items()):
                    log = logs / f"{name}.log"
                    progress.update(tasks[name], note=_last_line(log))
                    if process.poll() is None:
                        continue
                    del running[name]
                    if process.returncode != 0:
                        raise MmcotError(
                            f"the training of {name} ended with exit code {process.returncode}; "
                            f"the end of {log}:\n{_tail(log)}"
                        )
                    progress.update(tasks[name], completed=1, note="")
                    progress.stop_task(tasks[name])
                    if not console.is_terminal:
                        console.print(f"{name} is trained")
        finally:
            for process in running.values():
                process.terminate()
                process.wait()


def _start_training(run: _Run, out: Path, num_at_once: int) -> subprocess.Popen[bytes]:
    command = [
        str(Path(sys.executable).with_name("mmcot-train")),
        *run.arguments,
        "--output",
        str(out / "runs" / run.name),
        "--resume",
    ]
    threads = max(1, (os.cpu_count() or 1) // num_at_once)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    log_path = out / "logs" / f"{run.name}.log"
    with log_path.open("wb") as log:
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )


def _last_line(log: Path) -> str:
    lines = [line for line in _tail(log).splitlines() if line.startswith("training ")]
    return lines[-1] if lines else "starting"


def _tail(log: Path, num_lines: int = 20) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-num_lines:])


def _table(title: str, rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    header, *body = rows
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place == 0 else "right")
    for row in body:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    sys.exit(main())
