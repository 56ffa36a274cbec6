"""Fetching, against a real server on this machine that misbehaves as the test says."""

import hashlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import httpx2
import pytest
from download_server import Behaviour, DownloadServer, noise_file, serve_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmcot_data.downloads.addresses import find_places
from mmcot_data.downloads.channel import Channel
from mmcot_data.downloads.exchange import ask
from mmcot_data.downloads.failures import RefusedError
from mmcot_data.downloads.fetch import fetch_files
from mmcot_data.downloads.fetch_settings import FetchSettings
from mmcot_data.downloads.remote_file import RemoteFile
from mmcot_data.errors import DiskFullError, DownloadError

FAST = FetchSettings(
    connect_timeout=2.0,
    read_timeout=0.15,
    num_tries=4,
    num_connect_tries=2,
    first_delay=0.001,
    longest_delay=0.002,
    longest_asked_delay=0.2,
    resumable_nbytes=0,
)
PATIENT = FetchSettings(read_timeout=30.0, first_delay=0.001, resumable_nbytes=0)
CONTENT = noise_file(10_000).read(0, 10_000)
USUAL = Behaviour()
ABSURD_DATE = "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"
OTHER = noise_file(10_000, seed=1).read(0, 10_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[DownloadServer]:
    with serve_files({"/a.zip": CONTENT, "/b.zip": OTHER}) as server:
        yield server


def remote(server, name="a.zip", *, nbytes=None, sha256=None) -> RemoteFile:
    return RemoteFile(name=name, url=f"{server.url}/{name}", nbytes=nbytes, sha256=sha256)


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def fail(server, folder, match, file=None, **options) -> str:
    """Fetch one file, which must fail and leave nothing at its final place."""
    with pytest.raises(DownloadError, match=match) as caught:
        fetch_files([file or remote(server)], folder, settings=FAST, **options)
    assert not (folder / "a.zip").exists()
    return str(caught.value)


# Well-behaved servers


def test_files_arrive_in_parallel_and_are_reported(server, tmp_path):
    """Would catch files fetched one after the other, mixed up, or left under temporary names."""
    contents = {f"/{i}": noise_file(1000 * i, seed=i) for i in range(9)}
    server.files.update(contents)
    server.behaviour = Behaviour(seconds=0.05)
    files = [RemoteFile(name=f"x/{i}", url=f"{server.url}/{i}") for i in range(9)]
    arrived, progress = [], []
    fetched = fetch_files(
        files,
        tmp_path / "new",
        num_parallel=3,
        on_file=arrived.append,
        on_progress=lambda *numbers: progress.append(numbers),
    )
    assert server.most_at_once == 3
    assert [file.name for file in fetched] == [file.name for file in files]
    assert sorted(arrived, key=lambda file: file.name) == fetched
    for i, file in enumerate(fetched):
        expected = contents[f"/{i}"].read(0, 1000 * i)
        assert (tmp_path / "new" / file.name).read_bytes() == expected
        assert file.sha256 == hashlib.sha256(expected).hexdigest()
        assert (file.nbytes, file.etag) == (1000 * i, contents[f"/{i}"].etag)
        assert (file.url, file.verified) == (files[i].url, False)
    assert progress[-1] == (36_000, 36_000)
    assert progress[0][1] is None
    assert progress == sorted(progress, key=lambda numbers: numbers[0])
    assert names_in(tmp_path / "new") == ["x", *(f"x/{i}" for i in range(9))]
    assert {request.headers["accept-encoding"] for request in server.gets()} == {"identity"}


def test_large_file_is_never_in_memory(tmp_path):
    """Would catch a body, or a part of it, that is collected before it is written."""
    file = noise_file(60_000_000)
    with serve_files({"/large": file}) as server:
        tracemalloc.start()
        fetch_files([RemoteFile(name="large", url=f"{server.url}/large")], tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (tmp_path / "large").stat().st_size == file.nbytes
    assert peak < 8_000_000


def test_nothing_to_fetch(tmp_path):
    assert fetch_files([], tmp_path) == []
    assert names_in(tmp_path) == []


def test_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    fetch_files([RemoteFile(name="a.zip", url="http://files.invalid/a.zip")], tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


# Resuming


def test_file_that_is_cut_again_and_again_comes_through(server, tmp_path):
    """Would catch a limit on all failures together, and bytes that are fetched twice."""
    server.behaviours["/a.zip"] = Behaviour(cut_after=300)
    said = []
    fetch_files([remote(server)], tmp_path, settings=FAST, say=said.append)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    etag = f'"{hashlib.md5(CONTENT).hexdigest()}"'
    assert [(request.range, request.if_range) for request in server.gets()] == [
        (None, None),
        *((f"bytes={start}-", etag) for start in range(300, 10_000, 300)),
    ]
    assert server.num_sent["/a.zip"] == 10_000
    assert len(said) == 33
    assert "a.zip from 127.0.0.1: the connection was cut" in said[0]


@pytest.mark.parametrize(
    ("behaviour", "sha256", "expected"),
    [
        (Behaviour(), None, ("bytes=4000-", "the tag")),
        (Behaviour(etag=None), None, ("bytes=4000-", Behaviour().last_modified)),
        (Behaviour(etag="weak"), None, ("bytes=4000-", Behaviour().last_modified)),
        (Behaviour(etag="weak", last_modified=None), None, (None, None)),
        (Behaviour(etag="weak", last_modified=None), SHA256, ("bytes=4000-", None)),
        (Behaviour(etag=None, last_modified="Tue, 05 Mar 2999 10:20:30 GMT"), None, (None, None)),
        (Behaviour(etag=None, last_modified=None), None, (None, None)),
        (Behaviour(without_ranges=True), None, ("bytes=4000-", "the tag")),
    ],
)
def test_rest_is_asked_for_only_with_a_proof_that_it_belongs(
    server, tmp_path, behaviour, sha256, expected
):
    """Would catch weak tags and dates in If-Range, and parts continued without any proof."""
    server.queue("/a.zip", replace(behaviour, cut_after=4000))
    server.behaviours["/a.zip"] = behaviour
    fetch_files([remote(server, sha256=sha256)], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    _, second = server.gets()
    tag = f'"{hashlib.md5(CONTENT).hexdigest()}"'
    assert (second.range, second.if_range) == tuple(
        tag if text == "the tag" else text for text in expected
    )


@pytest.mark.parametrize("later", [{}, {"without_if_range": True}], ids=str)
@pytest.mark.parametrize(
    "named",
    [{}, {"etag": None}, {"etag": "weak"}, {"etag": None, "last_modified": None}],
    ids=str,
)
def test_file_that_changes_meanwhile_is_begun_anew(server, tmp_path, named, later):
    """Would catch a file that is half of one version, half of another."""
    old = {"content": OTHER, "last_modified": "Mon, 04 Mar 2024 00:00:00 GMT"} | named
    server.queue("/a.zip", Behaviour(**old, cut_after=4000), Behaviour(**named, **later))
    fetch_files([remote(server)], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_rest_of_a_file_of_another_size_is_not_used(server, tmp_path):
    """A server without validators, and a digest that was published for another version."""
    old = Behaviour(content=OTHER[:9000], etag=None, last_modified=None, cut_after=4000)
    server.queue("/a.zip", old)
    fetch_files([remote(server, sha256=SHA256)], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [request.range for request in server.gets()] == [None, "bytes=4000-", None]


@pytest.mark.parametrize("told", ["bytes 4000-4999/*", "bytes 0-999/*"])
def test_part_of_a_file_of_unknown_length_is_never_the_end(server, tmp_path, told):
    """A proxy answers for a thousand bytes, and nobody knows how many there should be: would catch
    a truncated file at its final place."""
    server.queue(
        "/a.zip",
        Behaviour(framing="chunked", cut_after=4000),
        Behaviour(most_nbytes=1000, headers={"Content-Range": told}),
    )
    fetch_files([remote(server)], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [request.range for request in server.gets()] == [None, "bytes=4000-", None]


@pytest.mark.parametrize(
    "told", ["bytes 4000-4999/10000", "bytes 4000-3999/10000", "bytes 4000-10000/10000"]
)
def test_body_that_is_not_the_range_it_claims_is_not_used(server, tmp_path, told):
    """Six thousand wrong bytes behind a range that says something else."""
    tag = f'"{hashlib.md5(CONTENT).hexdigest()}"'
    server.queue(
        "/a.zip",
        Behaviour(framing="chunked", cut_after=4000),
        Behaviour(content=OTHER, etag=tag, headers={"Content-Range": told}),
    )
    fetch_files([remote(server)], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize(("age", "is_strong"), [(0, False), (1, True), (-1, False)])
def test_date_is_strong_a_second_after_it(age, is_strong):
    """A file may change twice within the second of its date: would catch a rest of another one."""
    now = 1_700_000_000
    headers = {"Date": formatdate(now, usegmt=True)}
    headers["Last-Modified"] = formatdate(now - age, usegmt=True)
    answers = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers))
    (place,) = find_places(RemoteFile(name="a", url="http://h.invalid/a"), [])
    with (
        httpx2.Client(transport=answers) as client,
        ask(client, place, Channel([0], [None]), headers={}) as answer,
    ):
        assert answer.origin.validator == (headers["Last-Modified"] if is_strong else None)


def test_another_run_continues(server, tmp_path):
    """Would catch what is known of a part being lost with the process."""
    server.behaviours["/a.zip"] = Behaviour(status=500)
    server.queue("/a.zip", Behaviour(cut_after=4000))
    message = fail(server, tmp_path, "4000 bytes stay beside it")
    assert "HTTP 500" in message
    assert names_in(tmp_path) == [".a.zip.part", ".a.zip.part.json"]
    assert (tmp_path / ".a.zip.part").read_bytes() == CONTENT[:4000]
    server.behaviours.clear()
    fetch_files([remote(server)], tmp_path, settings=FAST)
    assert server.gets()[-1].range == "bytes=4000-"
    assert names_in(tmp_path) == ["a.zip"]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("damage", ["missing", "cut", "of another kind"])
def test_part_of_unknown_origin_is_not_used(server, tmp_path, damage):
    (tmp_path / ".a.zip.part").write_bytes(OTHER[:4000])
    if damage != "missing":
        text = '{"url": "http:/' if damage == "cut" else '{"nbytes": 3}'
        (tmp_path / ".a.zip.part.json").write_text(text)
    fetch_files([remote(server)], tmp_path)
    assert server.gets()[0].range is None
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_rest_of_a_whole_part_is_empty(server, tmp_path):
    """All bytes came, their end did not: 416 then means that the part is whole."""
    server.queue("/a.zip", Behaviour(framing="chunked", cut_after=len(CONTENT)))
    fetch_files([remote(server)], tmp_path, settings=FAST)
    assert [request.range for request in server.gets()] == [None, "bytes=10000-"]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_part_longer_than_the_file_is_not_used(server, tmp_path):
    (tmp_path / ".a.zip.part").write_bytes(CONTENT + b"more")
    fetch_files([remote(server, nbytes=len(CONTENT), sha256=SHA256)], tmp_path)
    fetch_files([RemoteFile(name="b.zip", url=f"{server.url}/b.zip")], tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [request.range for request in server.gets()] == [None, None]


_PROCESS = """
import sys
from pathlib import Path
from mmcot_data.downloads.fetch import fetch_files
from mmcot_data.downloads.remote_file import RemoteFile
url, folder = sys.argv[1:]
fetch_files([RemoteFile(name="a.bin", url=url)], Path(folder))
"""


@contextmanager
def fetching_process(url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", _PROCESS, url, str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_part(path: Path, nbytes: int, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < nbytes:
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.005)


def test_killed_process_is_continued(tmp_path):
    """Would catch bytes that are fetched again, or trusted though they are not on the disk."""
    file = noise_file(4_000_000)
    with serve_files({"/a.bin": file}) as server:
        server.queue("/a.bin", Behaviour(stall_after=2_500_000))
        part = tmp_path / ".a.bin.part"
        with fetching_process(f"{server.url}/a.bin", tmp_path) as process:
            wait_for_part(part, 2_500_000, process)
            process.kill()
        fetch_files([RemoteFile(name="a.bin", url=f"{server.url}/a.bin")], tmp_path)
    assert [(request.range, request.if_range) for request in server.gets()] == [
        (None, None),
        ("bytes=2500000-", file.etag),
    ]
    assert server.num_sent["/a.bin"] == file.nbytes
    assert (tmp_path / "a.bin").read_bytes() == file.read(0, file.nbytes)
    assert names_in(tmp_path) == ["a.bin"]  # the lock of the killed process, too, is gone


def test_control_c_ends_a_stalled_process_at_once(tmp_path):
    """Would catch an interrupt that waits for the network, or deletes the part."""
    with serve_files({"/a.bin": noise_file(4_000_000)}) as server:
        server.queue("/a.bin", Behaviour(stall_after=1_500_000))
        with fetching_process(f"{server.url}/a.bin", tmp_path) as process:
            wait_for_part(tmp_path / ".a.bin.part", 1_500_000, process)
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
            assert time.monotonic() - begin < 2
    assert errors.rstrip().endswith(b"KeyboardInterrupt")
    assert names_in(tmp_path) == [".a.bin.part", ".a.bin.part.json"]


# Busy and broken servers


@pytest.mark.parametrize(
    "behaviour",
    [
        *(Behaviour(status=status) for status in (408, 429, 500, 502, 503, 504)),
        Behaviour(stall_after=0),
        Behaviour(stall_after=5000),
        Behaviour(cut_after=0),
        Behaviour(cut_after=5000, reset=True),
        Behaviour(declared_nbytes=20_000),
        Behaviour(framing="chunked", cut_after=5000),
    ],
    ids=lambda behaviour: str(
        {name: value for name, value in vars(behaviour).items() if value != getattr(USUAL, name)}
    ),
)
def test_what_may_pass_is_tried_again(server, tmp_path, behaviour):
    server.queue("/a.zip", behaviour, behaviour)
    fetch_files([remote(server)], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_it_gives_up_after_tries_without_a_new_byte(server, tmp_path):
    """Would catch endless tries; the part stays for a better day."""
    server.behaviours["/a.zip"] = Behaviour(status=503)
    server.queue("/a.zip", *[Behaviour(cut_after=1000)] * 3)
    message = fail(server, tmp_path, "HTTP 503 Service Unavailable, the last of 4 tries")
    assert "3000 bytes stay" in message
    # The third cut, which brought bytes, is the first failure in a row.
    assert len(server.gets()) == 3 + 3


def test_server_without_ranges_is_not_tried_forever(server, tmp_path):
    """Bytes that are fetched anew each time are no progress."""
    server.behaviours["/a.zip"] = Behaviour(without_ranges=True, cut_after=5000)
    fail(server, tmp_path, "the last of 4 tries")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 451])
def test_refusals_are_final(server, tmp_path, status):
    """Would catch requests that are repeated though the answer will be the same."""
    server.behaviours["/a.zip"] = Behaviour(status=status)
    message = fail(server, tmp_path, f"HTTP {status}")
    assert f"{server.url}/a.zip" in message
    assert ("HF_TOKEN" in message) == (status in (401, 403))
    assert len(server.gets()) == 1
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("status", [204, 206, 304, 416])
def test_answers_that_make_no_sense_are_refused(server, tmp_path, status):
    server.behaviours["/a.zip"] = Behaviour(status=status)
    fail(server, tmp_path, f"HTTP {status}")


@pytest.mark.parametrize(
    "told", ["bytes 0-5999/10000", "bytes 5000-9999/10000", "bytes */*", "pages 1-2/3", ""]
)
def test_another_range_than_the_one_asked_for_is_not_used(server, tmp_path, told):
    """Would catch bytes that are put where they don't belong."""
    server.queue(
        "/a.zip",
        Behaviour(cut_after=4000),
        Behaviour(status=206, headers={"Content-Range": told}, framing="chunked"),
    )
    fetch_files([remote(server)], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("asked", ["7200", "date", "-3", "soon", "9" * 400, ABSURD_DATE])
def test_retry_after_is_honoured_up_to_a_limit(server, tmp_path, asked):
    """Would catch the header being ignored, misread, or obeyed for hours."""
    text = formatdate(time.time() + 3600, usegmt=True) if asked == "date" else asked
    server.queue("/a.zip", Behaviour(status=429, headers={"Retry-After": text}))
    said = []
    begin = time.monotonic()
    fetch_files([remote(server)], tmp_path, settings=FAST, say=said.append)
    elapsed = time.monotonic() - begin
    found = re.search(r"HTTP 429 Too Many Requests, trying again in (.*) s", said[0])
    assert found[1] == ("0.2" if asked in ("7200", "date", "9" * 400) else "0.0")
    assert elapsed >= float(found[1])


@pytest.mark.parametrize("date", [ABSURD_DATE, "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_dates_that_no_calendar_has_count_as_absent(server, tmp_path, date):
    """Would catch an OverflowError from a header that nothing depends on."""
    server.queue("/a.zip", Behaviour(etag=None, last_modified=date, cut_after=4000))
    fetch_files([remote(server)], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [request.range for request in server.gets()] == [None, None]


def test_slow_server_is_not_a_stalled_one(server, tmp_path):
    server.files["/a.zip"] = CONTENT[:4000]
    server.behaviours["/a.zip"] = Behaviour(bytes_per_second=10_000)
    fetch_files([remote(server)], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[:4000]
    assert len(server.gets()) == 1


def test_server_that_is_not_there(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a.zip"
    said = []
    with pytest.raises(DownloadError, match=r"cannot be reached .*last of 2 tries"):
        fetch_files([RemoteFile(name="a", url=url)], tmp_path, settings=FAST, say=said.append)
    assert len(said) == 1


def test_one_failure_stops_the_others_at_once(server, tmp_path):
    """Would catch a wait for transfers whose files are not wanted any more, and lost parts."""
    server.queue("/a.zip", Behaviour(stall_after=4000))
    server.behaviours["/missing"] = Behaviour(status=404, seconds=0.2)
    begin = time.monotonic()
    with pytest.raises(DownloadError, match="missing cannot be fetched"):
        fetch_files([remote(server), remote(server, "missing")], tmp_path, settings=PATIENT)
    assert time.monotonic() - begin < 2
    assert names_in(tmp_path) == [".a.zip.part", ".a.zip.part.json"]


def test_stopped_fetch_leaves_the_files_of_the_next_one_alone(server, tmp_path):
    """A thread of the first call still waits for its server when the second call writes the same
    file: would catch the part being deleted under it."""
    server.files["/a.zip"] = noise_file(200_000)
    server.queue("/a.zip", Behaviour(seconds=0.4), Behaviour(bytes_per_second=250_000))
    with pytest.raises(DownloadError, match="missing cannot be fetched"):
        fetch_files([remote(server), remote(server, "missing")], tmp_path, settings=PATIENT)
    (tmp_path / ".gone.zip.part.json").write_text("{}")  # what a stopped thread may leave
    (fetched,) = fetch_files([remote(server)], tmp_path, settings=PATIENT)
    assert fetched.nbytes == 200_000
    assert len(server.gets("/a.zip")) == 2
    assert names_in(tmp_path) == ["a.zip"]


def test_error_of_a_callback_stops_everything(server, tmp_path):
    server.queue("/a.zip", Behaviour(stall_after=4000))

    def interrupt(file: object) -> None:
        raise KeyboardInterrupt

    begin = time.monotonic()
    files = [remote(server), remote(server, "b.zip")]
    with pytest.raises(KeyboardInterrupt):
        fetch_files(files, tmp_path, settings=PATIENT, on_file=interrupt)
    assert time.monotonic() - begin < 2
    assert "b.zip" in names_in(tmp_path)


# Wrong content


@pytest.mark.parametrize("published", ["sha256", "size"])
def test_wrong_content_is_fetched_once_more_and_then_refused(server, tmp_path, published):
    """Would catch a wrong file at the final place, and a damaged part that would be continued."""
    wrong = OTHER if published == "sha256" else CONTENT[:-1]
    server.files["/a.zip"] = wrong
    file = remote(server, sha256=SHA256) if published == "sha256" else remote(server, nbytes=10_000)
    message = fail(server, tmp_path, "expected", file)
    if published == "sha256":
        assert SHA256 in message
        assert hashlib.sha256(wrong).hexdigest() in message
    else:
        assert "expected 10000 bytes, found 9999" in message
    assert [request.headers.get("cache-control") for request in server.gets()] == [None, "no-cache"]
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("content", [OTHER, CONTENT[:5000], CONTENT + b"more", b""])
def test_content_that_is_wrong_once(server, tmp_path, content):
    """A proxy that corrupts, a replica that lags."""
    server.queue("/a.zip", Behaviour(content=content, framing="chunked"))
    file = remote(server, nbytes=len(CONTENT), sha256=SHA256)
    (fetched,) = fetch_files([file], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert fetched.verified


def test_endless_body_is_not_fetched_to_its_end(server, tmp_path):
    """Would catch a disk that is filled though the size was published."""
    server.files["/a.zip"] = noise_file(200_000_000)
    server.behaviours["/a.zip"] = Behaviour(framing="chunked")
    fail(server, tmp_path, "expected 10000 bytes, found more", remote(server, nbytes=10_000))
    assert server.num_sent["/a.zip"] < 100_000_000


def test_damaged_part_does_not_damage_the_file(server, tmp_path):
    server.queue("/a.zip", Behaviour(cut_after=4000), *[Behaviour(status=500)] * 8)
    fail(server, tmp_path, "HTTP 500", remote(server, sha256=SHA256))
    (tmp_path / ".a.zip.part").write_bytes(OTHER[:4000])
    server._queued.clear()
    fetch_files([remote(server, sha256=SHA256)], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_login_page_is_not_the_file(server, tmp_path, sha256):
    """What captive portals and gated hosts answer with 200."""
    page = Behaviour(content=b"<html>Log in</html>", headers={"Content-Type": "text/html"})
    server.behaviours["/a.zip"] = page
    fail(server, tmp_path, "HTML page|expected sha256", remote(server, sha256=sha256))
    assert names_in(tmp_path) == []


def test_encoded_content_of_an_unknown_file_is_refused(server, tmp_path):
    server.behaviours["/a.zip"] = Behaviour(headers={"Content-Encoding": "gzip"})
    fail(server, tmp_path, "another encoding .gzip.")
    file = remote(server, sha256=SHA256)  # a server that calls a .gz so sends the file itself
    fetch_files([file], tmp_path, settings=FAST)


@pytest.mark.parametrize("known", ["nothing", "size", "sha256"])
def test_body_without_a_length_is_never_taken_for_whole_unseen(server, tmp_path, known):
    """Would catch a cut body that looks whole because nothing says where it ends."""
    server.queue("/a.zip", Behaviour(framing="close", cut_after=6000))
    server.behaviours["/a.zip"] = Behaviour(framing="close")
    if known == "nothing":
        fail(server, tmp_path, "doesn't say how long the file is")
        assert names_in(tmp_path) == []
        return
    published = {"nbytes": len(CONTENT)} if known == "size" else {"sha256": SHA256}
    fetch_files([remote(server, **published)], tmp_path, settings=FAST)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


_FAULTS = st.one_of(
    st.sampled_from(
        [
            Behaviour(status=503),
            Behaviour(status=429, headers={"Retry-After": "0"}),
            Behaviour(status=404),
            Behaviour(status=416),
            Behaviour(framing="chunked"),
            Behaviour(framing="close"),
            Behaviour(without_ranges=True),
            Behaviour(etag="weak", last_modified=None),
            Behaviour(etag='"changed"'),
            Behaviour(status=206, headers={"Content-Range": "bytes 3-9/10"}),
            Behaviour(headers={"Content-Type": "text/html"}),
        ]
    ),
    st.builds(
        Behaviour,
        cut_after=st.integers(0, 3000),
        reset=st.booleans(),
        framing=st.sampled_from(["length", "length", "chunked", "close"]),
        etag=st.sampled_from(["strong", "strong", "weak", None]),
    ),
    st.builds(Behaviour, most_nbytes=st.integers(1, 3000)),
    st.builds(lambda extra: Behaviour(declared_nbytes=3000 + extra), st.integers(1, 100)),
    # Another version of the file, at once or from some byte on.
    st.builds(
        Behaviour,
        content=st.just(b""),
        last_modified=st.just("Wed, 06 Mar 2024 00:00:00 GMT"),
        cut_after=st.none() | st.integers(0, 3000),
    ),
)


@pytest.fixture(scope="module")
def long_server() -> Iterator[DownloadServer]:
    with serve_files({}) as server:
        yield server


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    nbytes=st.integers(0, 3000),
    faults=st.lists(_FAULTS, max_size=6),
    published=st.sampled_from(["nothing", "size", "sha256", "both"]),
)
def test_whatever_happens_a_file_is_whole_or_not_there(
    long_server, tmp_path_factory, nbytes, faults, published
):
    """Would catch mixtures of versions, holes, repeated and missing bytes: any wrong final file."""
    folder = tmp_path_factory.mktemp("any")
    path = f"/{folder.name}"
    content, other = CONTENT[:nbytes], OTHER[:nbytes]
    long_server.files[path] = content
    for fault in faults:
        is_other = fault.content is not None
        long_server.queue(path, replace(fault, content=other if is_other else None))
    file = RemoteFile(
        name="file",
        url=long_server.url + path,
        nbytes=nbytes if published in ("size", "both") else None,
        sha256=hashlib.sha256(content).hexdigest() if published in ("sha256", "both") else None,
    )
    try:
        (fetched,) = fetch_files([file], folder, settings=FAST)
    except DownloadError:
        assert not (folder / "file").exists()
    else:
        found = (folder / "file").read_bytes()
        assert found == content or (found == other and file.sha256 is None)
        assert fetched.sha256 == hashlib.sha256(found).hexdigest()
        assert names_in(folder) == ["file"]
    finally:
        del long_server.files[path]
        long_server._queued.pop(path, None)


# Files that are there


def test_file_that_is_there_is_verified_and_not_fetched(server, tmp_path):
    """Would catch a second download, and one that trusts whatever has the right name."""
    (tmp_path / "a.zip").write_bytes(CONTENT)
    for file in (
        remote(server),
        remote(server, nbytes=10_000),
        remote(server, sha256=SHA256.upper()),
    ):
        (fetched,) = fetch_files([file], tmp_path)
        assert (fetched.nbytes, fetched.sha256) == (10_000, SHA256)
        assert fetched.url is None  # a mirror may have given it
        assert fetched.verified == (file.sha256 is not None)
    assert server.requests == []


@pytest.mark.parametrize("published", [{"nbytes": 9_999}, {"sha256": "0" * 64}])
def test_wrong_file_that_is_there_is_not_overwritten(server, tmp_path, published):
    (tmp_path / "a.zip").write_bytes(CONTENT)
    with pytest.raises(DownloadError, match="delete it to fetch it anew"):
        fetch_files([remote(server, **published)], tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.requests == []


def test_folder_in_the_place_of_a_file(server, tmp_path):
    (tmp_path / "a.zip").mkdir()
    with pytest.raises(DownloadError, match="should be a file"):
        fetch_files([remote(server)], tmp_path)


@pytest.mark.parametrize(
    "name", ["../a", "/a", "x/../../a", "a/", "", ".", "x//a", "C:a", "x\\a", "a\0", "a" * 256]
)
def test_names_that_lead_elsewhere_are_refused(server, tmp_path, name):
    with pytest.raises(DownloadError, match="is to be named"):
        fetch_files([RemoteFile(name=name, url=server.url)], tmp_path)
    with pytest.raises(DownloadError, match="another file has the same name"):
        fetch_files([remote(server), remote(server)], tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("url", ["ftp://h/a", "/a", "http://", "http://u:hush@h:x/a", "file:///a"])
def test_urls_that_are_none(tmp_path, url):
    with pytest.raises(DownloadError, match="expected a URL that begins with http") as caught:
        fetch_files([RemoteFile(name="a", url=url)], tmp_path)
    assert "hush" not in str(caught.value)


def test_two_downloads_into_one_folder(server, tmp_path):
    """Would catch two processes that write into one part."""
    server.queue("/a.zip", Behaviour(seconds=1.0))
    thread = threading.Thread(target=fetch_files, args=([remote(server)], tmp_path))
    thread.start()
    while not server.requests:
        time.sleep(0.005)
    with pytest.raises(DownloadError, match="another process fetches files into"):
        fetch_files([remote(server, "b.zip")], tmp_path)
    server.ending.set()
    thread.join()
    assert names_in(tmp_path) == ["a.zip"]
    fetch_files([remote(server, "b.zip")], tmp_path)


# Places


def test_mirrors_are_asked_first_and_in_order(server, tmp_path):
    """Would catch mirrors that are ignored, asked with the wrong path, or given credentials."""
    with serve_files({"/base/a.zip": CONTENT}) as second, serve_files({}) as first:
        said = []
        files = [
            RemoteFile(name=name, url=f"{server.url}/{name}?download=true")
            for name in ("a.zip", "b.zip")
        ]
        fetched = fetch_files(
            files,
            tmp_path,
            mirrors=[first.url, f"{second.url}/base/"],
            headers={"Authorization": "Bearer hush"},
            say=said.append,
            num_parallel=1,
        )
    assert [file.url for file in fetched] == [
        f"{second.url}/base/a.zip?…",
        f"{server.url}/b.zip?…",
    ]
    assert len(said) == 3
    assert f"a.zip: not from {first.url}/a.zip" in said[0]
    assert "HTTP 404" in said[0]
    requests = [*first.gets(), *second.gets(), *server.gets()]
    assert [(request.path, request.query) for request in requests] == [
        ("/a.zip", "download=true"),
        ("/b.zip", "download=true"),
        ("/base/a.zip", "download=true"),
        ("/base/b.zip", "download=true"),
        ("/b.zip", "download=true"),
    ]
    assert [request.authorization for request in requests] == [None] * 4 + ["Bearer hush"]


def test_part_of_one_place_is_continued_at_another_only_with_a_digest(server, tmp_path):
    """Would catch halves of two files that are called the same at two places."""
    server.behaviours["/a.zip"] = Behaviour(last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
    for sha256, expected in ((None, None), (SHA256, "bytes=4000-")):
        folder = tmp_path / str(sha256)
        with serve_files({"/a.zip": OTHER if sha256 is None else CONTENT}) as mirror:
            mirror.behaviours["/a.zip"] = Behaviour(status=500)
            mirror.queue("/a.zip", Behaviour(cut_after=4000))
            file = remote(server, sha256=sha256)
            fetch_files([file], folder, mirrors=[mirror.url], settings=FAST)
        assert (folder / "a.zip").read_bytes() == CONTENT
        assert (server.gets()[-1].range, server.gets()[-1].if_range) == (expected, None)


def test_redirect_is_followed_without_credentials(server, tmp_path):
    """As the hub sends clients to its storage: a token must not go there, a range must."""
    with serve_files({}) as hub:
        hub.behaviours["/resolve/a.zip"] = Behaviour(redirect="/renamed/a.zip", status=307)
        hub.behaviours["/renamed/a.zip"] = Behaviour(redirect=f"{server.url}/a.zip?signed=hush")
        server.queue("/a.zip", Behaviour(cut_after=4000))
        file = RemoteFile(name="a.zip", url=f"{hub.url}/resolve/a.zip", sha256=SHA256)
        tokens = {"Authorization": "Bearer hush", "X-Token": "hush"}
        (fetched,) = fetch_files([file], tmp_path, headers=tokens, settings=FAST)
    assert fetched.url == file.url
    assert [request.headers.get("x-token") for request in hub.gets()] == ["hush"] * 4
    assert [request.authorization for request in hub.gets()] == ["Bearer hush"] * 4
    assert [request.range for request in server.gets()] == [None, "bytes=4000-"]
    for request in server.gets():
        assert not {"authorization", "x-token"} & request.headers.keys()


def test_endless_redirects(server, tmp_path):
    server.behaviours["/a.zip"] = Behaviour(redirect="/a.zip")
    fail(server, tmp_path, "redirects more than 10 times")
    assert len(server.gets()) == 11


@pytest.mark.parametrize("target", ["http://h.invalid/a", "ftp://h.invalid/a"])
def test_redirect_to_what_is_not_safe_is_refused(target):
    answers = httpx2.MockTransport(lambda _: httpx2.Response(302, headers={"Location": target}))
    (place,) = find_places(RemoteFile(name="a", url="https://h.invalid/a"), [])
    with (
        httpx2.Client(transport=answers) as client,
        pytest.raises(RefusedError, match="redirects from https to"),
        ask(client, place, Channel([0], [None]), headers={}),
    ):
        pass


def test_secrets_of_urls_are_used_and_not_shown(server, tmp_path):
    """Would catch passwords and signatures in messages, in records, or in what lies on the disk."""
    url = server.url.replace("http://", "http://user:hush@")
    file = RemoteFile(name="a.zip", url=f"{url}/a.zip?token=hush", sha256="0" * 64)
    said = []
    server.queue("/a.zip", Behaviour(cut_after=10), Behaviour(stall_after=0))
    message = fail(server, tmp_path, "expected sha256", file, say=said.append)
    file = RemoteFile(name="a.zip", url=f"{url}/a.zip?token=hush")
    server.queue("/a.zip", Behaviour(cut_after=10), Behaviour(status=404))
    message += fail(server, tmp_path, "HTTP 404", file, say=said.append)
    message += (tmp_path / ".a.zip.part.json").read_text()
    (fetched,) = fetch_files([file], tmp_path)
    assert len(said) >= 3
    assert "hush" not in f"{message}{said}{fetched}"
    assert {request.authorization for request in server.gets()} == {"Basic dXNlcjpodXNo"}
    assert {request.query for request in server.gets()} == {"token=hush"}


# The disk


@pytest.mark.parametrize("published", [True, False])
def test_free_space_is_checked_first(server, tmp_path, monkeypatch, published):
    """Would catch a disk that is filled though the sizes were known; parts count as there."""
    usage = namedtuple("usage", "total used free")

    def leave_free(nbytes: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, nbytes))

    leave_free(9_000)
    files = [remote(server, nbytes=len(CONTENT) if published else None)]
    with pytest.raises(DiskFullError, match=r"needs 0\.00 GB in .* where 0\.00 GB are free"):
        fetch_files(files, tmp_path, settings=FAST)
    assert len(server.requests) == (0 if published else 1)
    assert names_in(tmp_path) == []
    server.queue("/a.zip", Behaviour(cut_after=4000), Behaviour(status=404))
    leave_free(10_000)
    with pytest.raises(DownloadError):
        fetch_files(files, tmp_path, settings=FAST)
    leave_free(6_000)
    fetch_files(files, tmp_path, settings=FAST)


def test_full_disk_is_explained_and_the_part_stays(server, tmp_path):
    """The limit of a file's size stands for the disk's."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))"
        + _PROCESS
    )
    server.files["/a.bin"] = noise_file(4_000_000)
    url = f"{server.url}/a.bin"
    process = subprocess.run(
        [sys.executable, "-c", code, url, str(tmp_path)], capture_output=True, text=True
    )
    assert "DiskFullError" in process.stderr
    assert "could not be written: File too large" in process.stderr
    assert (tmp_path / ".a.bin.part").stat().st_size == 1_500_000
    fetch_files([RemoteFile(name="a.bin", url=url)], tmp_path)
    assert server.gets()[-1].range == "bytes=1500000-"
    assert (tmp_path / "a.bin").stat().st_size == 4_000_000


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_handles_stay_open(server, tmp_path):
    """Would catch sockets and files that are left to the garbage collector."""

    def num_open() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = num_open()
    for number in range(5):
        server.queue("/a.zip", Behaviour(cut_after=10), Behaviour(redirect="/a.zip"))
        fetch_files([remote(server)], tmp_path / str(number), settings=FAST)
    limit = time.monotonic() + 10
    while num_open() > before:  # the server closes its own ends
        assert time.monotonic() < limit
        time.sleep(0.01)
