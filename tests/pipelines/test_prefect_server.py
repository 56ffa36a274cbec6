"""The commands of the documentation, literally, with a real server and a real worker.

This also notices a version of a dependency with which Prefect's server does not start, and a
process that asks for a host elsewhere.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lookups import read_lookups, record_lookups

from mmcot_data.shards import open_features
from pipelines.local_prefect import LocalPrefectError, local_prefect

PROC = Path("/proc/self/environ")


def processes_of(home):
    """Command lines of the running processes whose environment names this Prefect's folder."""
    marker = f"PREFECT_HOME={home}\0".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return found


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return result


@pytest.mark.server
@pytest.mark.skipif(not PROC.exists(), reason="looks at processes in /proc")
def test_flow_runs_by_its_short_name_and_everything_ends(sample, tmp_path):
    """Would catch commands that fail, processes that are left, and look-ups of other hosts."""
    home, out = tmp_path / "prefect", tmp_path / "shards"
    run = ["deployment", "run", "extract-features"]
    parameters = ["-p", "encoder=tiny", "-p", f"data={sample}", "-p", f"out={out}"]
    with local_prefect(home, record_lookups(tmp_path)) as prefect:
        output = prefect.run(*run, "--watch", *parameters)
        assert "Flow run finished successfully in 'Completed'." in output
        assert f"mmcot-train --features {out}/tiny" in output, "the log is shown too"
        features = open_features(out / "tiny")
        assert features[features.question_ids[0]].shape == (50, 192)

        prefect.run(*run, *parameters)
        wait_until(lambda: any("prefect.engine" in line for line in processes_of(home)), 30)
    wait_until(lambda: not processes_of(home), 5)

    lookups = set(read_lookups(tmp_path))
    assert not [lookup for lookup in lookups if lookup.is_outside]
    for command in ("server start", "worker start", "deploy ", "deployment run", "prefect.engine"):
        assert any(command in lookup.command for lookup in lookups), f"{command} was not watched"


FAKE_PREFECT = """\
import http.server, os, signal, subprocess, sys, time

class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

match sys.argv[1:]:
    case ["server", "start", "--host", host, "--port", port]:
        http.server.HTTPServer((host, int(port)), Healthy).serve_forever()
    case ["worker", "start", *_]:
        # like Prefect's: the flow run has a session of its own, and SIGTERM is made a SIGINT
        signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        ends = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # until it can be told of its flow run
        flow_run = subprocess.Popen(["sleep", "600"], start_new_session=True)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
            flow_run.wait()
        except KeyboardInterrupt:
            flow_run.kill()
    case ["deployment", "run", "slow"]:
        print("running", flush=True)
        time.sleep(600)
    case ["deployment", "run", "broken"]:
        sys.exit("this is why")
"""

SCRIPT = """\
import signal, sys
from pathlib import Path
from pipelines.local_prefect import local_prefect

# whatever the shell that started the tests has set
ignored = sys.argv[3] == "ignore"
signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
sys.executable = sys.argv[1]
with local_prefect(Path(sys.argv[2])) as prefect:
    prefect.run("deployment", "run", sys.argv[4], on_line=lambda line: print(line, flush=True))
"""


@pytest.fixture
def start_script(tmp_path):
    """Starts a script that uses a Prefect of sleeping processes, as quick as it is silly."""
    fake = tmp_path / "prefect"
    fake.write_text(f"#!{sys.executable}\n{FAKE_PREFECT}")
    fake.chmod(0o755)
    started = []

    def start(sigint, deployment):
        command = [sys.executable, "-c", SCRIPT, tmp_path / "python", tmp_path / "home"]
        script = subprocess.Popen(
            [*command, sigint, deployment],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(script)
        return script

    yield start
    for script in started:
        script.kill()
        script.communicate()


@pytest.mark.parametrize(
    ("sent", "sigint", "returncode"),
    [
        (signal.SIGTERM, "default", 128 + signal.SIGTERM),
        (signal.SIGHUP, "default", 128 + signal.SIGHUP),
        (signal.SIGINT, "default", -signal.SIGINT),
        # as in `script &` in a shell: a worker that inherits this can't end its flow run
        (signal.SIGTERM, "ignore", 128 + signal.SIGTERM),
    ],
)
@pytest.mark.skipif(not PROC.exists(), reason="looks at processes in /proc")
def test_signal_ends_everything_that_was_started(sent, sigint, returncode, start_script, tmp_path):
    home = tmp_path / "home"
    script = start_script(sigint, "slow")
    assert script.stdout.readline() == "running\n"
    wait_until(lambda: any(line.startswith("sleep") for line in processes_of(home)), 10)
    os.kill(script.pid, sent)
    assert script.wait(20) == returncode
    assert processes_of(home) == []


@pytest.mark.skipif(not PROC.exists(), reason="looks at processes in /proc")
def test_failed_command_is_shown_and_ends_everything(start_script, tmp_path):
    script = start_script("default", "broken")
    output, errors = script.communicate(timeout=20)
    assert script.returncode == 1
    assert output == "this is why\n"
    assert "`prefect deployment run broken` ended with exit code 1" in errors
    assert processes_of(tmp_path / "home") == []


def test_server_that_does_not_start_is_explained(tmp_path, monkeypatch):
    broken = tmp_path / "prefect"
    broken.write_text("#!/bin/sh\necho 'no such option'\nexit 2\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with (
        pytest.raises(LocalPrefectError, match=r"(?s)ended with 2.*no such option"),
        local_prefect(tmp_path / "home"),
    ):
        pass
