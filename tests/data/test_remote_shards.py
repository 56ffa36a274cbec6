"""Remote files: what the real clients fetch from bad servers is right, or an error says why not."""

import hashlib
import multiprocessing
import pickle
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from local_storage_servers import Fault, serve_folder

from mmcot_data.errors import DiskFullError, ShardError
from mmcot_data.shards import remote
from mmcot_data.shards.remote import FileCache, is_remote, read_remote

BLOCK = 50_000
CONTENT = np.random.default_rng(0).bytes(4 * BLOCK + 1234)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEY = "bucket/shards/tiny/00000-of-00001.h5"
STORES = ("http", "s3", "gs")
FORK_WARNING = "ignore:This process .* is multi-threaded:DeprecationWarning"


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    """No credentials, configuration or proxy of the machine; small blocks and short delays."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MMCOT_CACHE", "XDG_CACHE_HOME", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(remote, "_BLOCK_NBYTES", BLOCK)
    monkeypatch.setattr(remote, "_DELAYS", (0.01, 0.02, 0.03, 0.04))


@pytest.fixture
def server(tmp_path, monkeypatch):
    file = tmp_path / "served" / KEY
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    with serve_folder(tmp_path / "served") as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


@pytest.fixture
def cache(tmp_path):
    return FileCache(tmp_path / "cache")


def find(server, store="http", key=KEY):
    """URL and options of a file in a store."""
    if store == "http":
        return f"{server.url}/{key}", {}
    options = {"endpoint_url": server.url} if store == "s3" else {"token": "anon"}
    return f"{store}://{key}", options


def fetch(cache, server, store="http", **changes):
    url, options = find(server, store)
    wanted = {"sha256": SHA256, "nbytes": len(CONTENT), "storage_options": options} | changes
    return cache.fetch(url, **wanted)


def files_in(cache):
    """The files of a cache; a lock means nothing."""
    return [path for path in cache.root.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("store", STORES)
def test_a_file_is_fetched_once(server, cache, store):
    """Would catch blocks in a wrong order, a wrong last block, and a cache that is not used."""
    arrived = []
    path = fetch(cache, server, store, on_progress=arrived.append)
    assert path == cache.root / "files" / SHA256[:2] / f"{SHA256}.h5"
    assert path.read_bytes() == CONTENT
    assert arrived == [BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK, len(CONTENT)]
    assert len(server.gets()) == 5

    server.requests.clear()
    assert fetch(cache, server, store) == path
    assert server.requests == []


def test_blocks_are_asked_for_at_a_time(server, cache):
    """Would catch a download that waits for the server before each block."""
    server.default = Fault(seconds=0.4)
    fetch(cache, server)
    assert server.most_waiting == 4


@pytest.mark.parametrize("store", STORES)
def test_a_small_file_is_read_anew(server, store):
    """Would catch a size or a content that the client keeps from the first reading."""
    url, options = find(server, store)
    for content in (b"one", b"a longer one", b"2"):
        (server.folder / KEY).write_bytes(content)
        assert read_remote(url, options) == content


def test_what_else_fsspec_knows(cache):
    """Would catch code that needs an asynchronous file system: hf:// is none either."""
    import fsspec

    fsspec.filesystem("memory").pipe("/a/b.h5", CONTENT)
    path = cache.fetch("memory://a/b.h5", sha256=SHA256, nbytes=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert read_remote("memory://a/b.h5") == CONTENT
    with pytest.raises(ShardError, match="no such file"):
        read_remote("memory://a/c.h5")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503),
        Fault(status=500),
        Fault(status=429, headers={"Retry-After": "soon"}),
        Fault(cut_after=1000),
        Fault(cut_after=0),
    ],
    ids=["503", "500", "429", "cut", "silent"],
)
def test_a_passing_fault_is_overcome(server, cache, fault):
    """Would catch a retry that starts over: of five blocks three are asked for again."""
    server.faults.extend([Fault(), fault, fault, Fault(), fault])
    assert fetch(cache, server).read_bytes() == CONTENT
    assert len(server.gets()) == 8


@pytest.mark.parametrize("fault", [Fault(cut_after=1000), Fault(status=503)], ids=["cut", "503"])
def test_a_passing_fault_of_s3_is_overcome(server, cache, fault):
    server.faults.append(fault)
    assert fetch(cache, server, "s3").read_bytes() == CONTENT


def test_the_server_says_how_long_to_wait(server, cache):
    server.faults.append(Fault(status=429, headers={"Retry-After": "1"}))
    start = time.monotonic()
    fetch(cache, server)
    assert time.monotonic() - start >= 1


def test_a_lasting_fault_is_an_error(server, cache):
    server.default = Fault(status=503)
    with pytest.raises(ShardError, match=r"cannot read http.*00000-of-00001\.h5: .*503"):
        fetch(cache, server)
    assert len(server.gets()) == 5
    assert files_in(cache) == []


def test_a_server_that_is_gone_is_an_error(tmp_path, cache):
    with serve_folder(tmp_path) as server:
        pass
    with pytest.raises(ShardError, match=r"cannot read .*Cannot connect"):
        fetch(cache, server)


def test_a_server_that_does_not_answer_is_an_error(server, cache, monkeypatch):
    monkeypatch.setattr(remote, "_LONGEST_READ", 0.05)
    server.default = Fault(seconds=0.5)
    with pytest.raises(ShardError, match=r"cannot read .*TimeoutError"):
        fetch(cache, server)


@pytest.mark.parametrize("store", STORES)
def test_absent_and_refused_are_explained(server, cache, store):
    """Would catch a retry of what cannot succeed, too: each client asks at most three times."""
    url, options = find(server, store, key="bucket/shards/absent.h5")
    with pytest.raises(ShardError, match="no such file"):
        read_remote(url, options)
    with pytest.raises(ShardError, match="no such file"):
        cache.fetch(url, sha256=SHA256, nbytes=10, storage_options=options)
    assert len(server.requests) <= 3
    server.default = Fault(status=403)
    with pytest.raises(ShardError, match=r"access is refused .*credentials"):
        fetch(cache, server, store)
    assert len(server.requests) <= 4
    assert files_in(cache) == []


def test_credentials_of_the_environment_are_enough(server, cache, monkeypatch):
    server.access_key = "environment"
    assert fetch(cache, server, "s3").read_bytes() == CONTENT
    server.access_key = "another"
    url, options = find(server, "s3")
    with pytest.raises(ShardError, match="access is refused"):
        read_remote(url, options)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ShardError, match=r"access is refused .*credentials.*'anon': True"):
        read_remote(url, options)
    server.access_key = None
    assert read_remote(url, options | {"anon": True}) == CONTENT


def test_options_reach_the_client(server):
    url, _ = find(server)
    read_remote(url, {"headers": {"Authorization": "Bearer token"}})
    assert server.requests[-1].authorization == "Bearer token"


@pytest.mark.parametrize("store", STORES)
def test_another_file_is_refused(server, cache, store):
    """Would catch a file that is kept although its digest is wrong."""
    other = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    (server.folder / KEY).write_bytes(other)
    found = hashlib.sha256(other).hexdigest()
    with pytest.raises(ShardError, match=f"expected sha256 {SHA256}, found {found}"):
        fetch(cache, server, store)
    assert files_in(cache) == []
    (server.folder / KEY).write_bytes(CONTENT)
    assert fetch(cache, server, store).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(content=CONTENT[:-1]), f"expected {len(CONTENT)} bytes, found {len(CONTENT) - 1}"),
        (Fault(content=CONTENT[: 3 * BLOCK]), "shorter than expected"),
        (Fault(content=CONTENT[:-1], without_ranges=True), "bytes, found"),
        (Fault(content=CONTENT + b"1", without_ranges=True), "bytes, found"),
        (Fault(cut_after=BLOCK // 2, without_length=True), f"bytes, found {BLOCK // 2}"),
        (Fault(content=CONTENT[1:] + b"12"), "expected sha256"),
    ],
)
def test_another_length_is_refused(server, cache, fault, message):
    server.default = fault
    with pytest.raises(ShardError, match=message):
        fetch(cache, server)
    assert files_in(cache) == []


def test_a_server_without_ranges_sends_the_file_once(server, cache):
    """Would catch as many downloads of the whole file as it has blocks."""
    server.default = Fault(without_ranges=True)
    assert fetch(cache, server).read_bytes() == CONTENT
    assert len(server.gets()) == 1


def test_an_empty_file(server, cache):
    sha256 = hashlib.sha256().hexdigest()
    assert fetch(cache, server, sha256=sha256, nbytes=0).read_bytes() == b""


def test_a_truncated_copy_is_replaced(server, cache):
    path = fetch(cache, server)
    path.write_bytes(CONTENT[:-1])
    assert fetch(cache, server).read_bytes() == CONTENT


def start_fetching(cache, server):
    process = multiprocessing.get_context("fork").Process(target=fetch, args=(cache, server))
    process.start()
    return process


@pytest.mark.filterwarnings(FORK_WARNING)
def test_two_processes_download_once(server, cache):
    """Would catch a lock that does not exclude, and one behind which nobody looks again."""
    server.default = Fault(seconds=0.2)
    processes = [start_fetching(cache, server) for _ in range(2)]
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.read_bytes() for path in files_in(cache)] == [CONTENT]
    assert len(server.gets()) == 5


@pytest.mark.filterwarnings(FORK_WARNING)
def test_a_killed_process_leaves_nothing_in_the_way(server, cache):
    """Would catch a lock that outlives its process, and half files that gather in the cache."""
    server.default = Fault(seconds=60.0)
    process = start_fetching(cache, server)
    while not files_in(cache):
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    server.default = Fault()
    path = fetch(cache, server)
    assert path.read_bytes() == CONTENT
    assert files_in(cache) == [path]


class FetchedFiles:
    """A data set whose worker processes fetch."""

    def __init__(self, fetches):
        self.fetches = fetches

    def __len__(self):
        return len(self.fetches)

    def __getitem__(self, index):
        cache, url, options = self.fetches[index]
        path = cache.fetch(url, sha256=SHA256, nbytes=len(CONTENT), storage_options=options)
        return path.read_bytes() == CONTENT


@pytest.mark.filterwarnings(FORK_WARNING)
def test_forked_workers_fetch(server, tmp_path):
    """Would hang with an event loop or a connection of the parent, which has fetched before."""
    from torch.utils.data import DataLoader

    fetches = [(FileCache(tmp_path / store), *find(server, store)) for store in STORES]
    assert all(FetchedFiles(fetches))
    for cache, *_ in fetches:
        shutil.rmtree(cache.root)
    loader = DataLoader(
        FetchedFiles(fetches * 2),
        batch_size=1,
        num_workers=2,
        multiprocessing_context="fork",
        collate_fn=all,
        timeout=60,
    )
    assert list(loader) == [True] * 6
    for cache, *_ in fetches:
        shutil.rmtree(cache.root)
    assert all(FetchedFiles(fetches))


def test_a_cache_is_pickled(server, cache):
    assert fetch(pickle.loads(pickle.dumps(cache)), server) == fetch(cache, server)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert FileCache().root == tmp_path / "home/.cache/mmcot"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert FileCache().root == tmp_path / "xdg/mmcot"
    monkeypatch.setenv("MMCOT_CACHE", "~/own")
    assert FileCache().root == tmp_path / "home/own"
    assert FileCache(tmp_path / "given").root == tmp_path / "given"
    assert list(tmp_path.iterdir()) == []


def test_room_is_looked_for_first(server, cache, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=len(CONTENT) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFullError, match=f"{len(CONTENT)} bytes.*MMCOT_CACHE"):
        fetch(cache, server)
    assert server.requests == []


def test_a_full_disk_is_explained(server, cache):
    """The limit of a file's size stands for the end of the disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK, limits[1]))
    try:
        with pytest.raises(DiskFullError, match="make room"):
            fetch(cache, server)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_in(cache) == []


def test_a_cache_that_cannot_be_written_is_explained(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ShardError, match=r"cannot be written .*MMCOT_CACHE"):
        fetch(FileCache(tmp_path / "file"), server)


ABSENT = """
import sys
import mmcot_data.shards.remote as remote
assert not {"fsspec", "aiohttp", "s3fs", "gcsfs"} & set(sys.modules)
for module, url in (
    ("fsspec", "http://127.0.0.1/a"),
    ("aiohttp", "http://127.0.0.1/a"),
    ("s3fs", "s3://bucket/a"),
    ("gcsfs", "gs://bucket/a"),
):
    sys.modules[module] = None
    try:
        remote.read_remote(url)
    except remote.ShardError as error:
        assert url in str(error) and "pip install 'mmcot[cloud]'" in str(error), error
    else:
        sys.exit(f"{url} was read without {module}")
    del sys.modules[module]
"""


def test_absent_packages_are_explained():
    """In a process of its own, where none of them is imported. The module needs none."""
    subprocess.run([sys.executable, "-c", ABSENT], check=True)


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", SHA256.upper(), SHA256 + "\n"])
def test_a_digest_that_is_none_is_refused(server, cache, sha256):
    """Would catch a manifest that makes the cache write outside of its folder."""
    with pytest.raises(ShardError, match="64 hex digits"):
        fetch(cache, server, sha256=sha256)


def test_an_unknown_scheme_is_explained():
    with pytest.raises(ShardError, match="Protocol not known: nowhere"):
        read_remote("nowhere://bucket/a")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://bucket/shards/detr", True),
        ("gs://bucket/shards/detr", True),
        ("https://host/shards/detr", True),
        ("hf://datasets/name/set/detr", True),
        ("memory://detr", True),
        ("shards/detr", False),
        ("/data/shards/detr", False),
        ("shards/a:b/c", False),
        (Path("shards/detr"), False),
        ("", False),
    ],
)
def test_what_is_remote(path, expected):
    assert is_remote(path) is expected


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (Path("s3://bucket/shards/detr"), "give the string s3://bucket/shards/detr$"),
        ("https:/host/shards", "give the string https://host/shards$"),
        ("file:///data/shards", "give /data/shards$"),
        (Path("file:///data/shards"), "give /data/shards$"),
    ],
)
def test_what_is_nearly_a_url_is_explained(path, message):
    with pytest.raises(ShardError, match=message):
        is_remote(path)


def test_a_folder_may_look_like_a_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run:/detr").mkdir(parents=True)
    assert not is_remote(Path("run:/detr"))
