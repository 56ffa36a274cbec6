"""Nothing outside this machine is asked for. The flow is watched in test_prefect_server.py."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from lookups import read_lookups, record_lookups

from pipelines import local_prefect

BIN = Path(sys.executable).parent
CHECKOUT = Path(local_prefect.__file__).parents[1]


def outside(folder):
    return [lookup for lookup in read_lookups(folder) if lookup.is_outside]


def test_what_is_looked_up_is_noted(tmp_path):
    """Would catch a hook that notes nothing: all other tests would pass with it."""
    code = (
        "import contextlib, socket, subprocess, sys\n"
        "for ask in (socket.gethostbyname, lambda host: socket.create_connection((host, 1))):\n"
        "    with contextlib.suppress(OSError): ask('nobody.invalid')\n"
        "with contextlib.suppress(OSError): socket.create_connection(('127.0.0.1', 1))\n"
        "if len(sys.argv) == 1: subprocess.run([sys.executable, *sys.orig_argv[1:], 'child'])\n"
    )
    environment = os.environ | record_lookups(tmp_path)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    lookups = list(read_lookups(tmp_path))
    assert [lookup.host for lookup in outside(tmp_path)] == ["nobody.invalid"] * 4
    assert sum(lookup.command.endswith("child") for lookup in lookups) == len(lookups) / 2
    assert {lookup.host for lookup in lookups} == {"nobody.invalid", "127.0.0.1"}


def run_in_terminal(command, environment):
    """Run a command whose output is a terminal, and return the output and the exit code."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    output = b""
    try:
        while block := os.read(ours, 4096):
            output += block
    except OSError:  # Linux: the other end was closed
        pass
    os.close(ours)
    return output.decode(), process.wait(60)


def test_the_first_command_ever_in_a_terminal_looks_nothing_up(tmp_path):
    """Would catch Prefect's usage data, sent from terminals outside of CI: "first import" and more.

    Only the settings of the checkout apply; a fresh home makes this the first command of a user.
    """
    hidden = ("PREFECT_", "DO_NOT_TRACK", "CI")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment = kept | record_lookups(tmp_path) | {"PREFECT_HOME": str(tmp_path / "home")}
    output, code = run_in_terminal([BIN / "prefect", "version"], environment)
    assert code == 0
    assert "Version:" in output
    assert outside(tmp_path) == []


@pytest.mark.slow
def test_commands_without_prefect_look_nothing_up(sample, tmp_path):
    """Would catch a model, a tokenizer or a setting that is fetched though nothing needs it."""
    environment = os.environ | record_lookups(tmp_path)
    shards, run = tmp_path / "shards", tmp_path / "run"
    extract = [BIN / "mmcot-data", "extract", sample, "--encoder", "tiny", "--out", shards]
    train = [BIN / "mmcot-train", "--features", shards / "tiny", "--output", run]
    for command in (extract, [*train, "--max-steps", "2"]):
        subprocess.run(command, env=environment, check=True, cwd=tmp_path)
    assert (run / "predictions.parquet").is_file()
    assert list(read_lookups(tmp_path)) == []
