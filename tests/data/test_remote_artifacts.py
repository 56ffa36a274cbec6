"""A bucket as artifact root: written over HTTP to a real S3 server (moto), by the real client."""

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import time
from base64 import b64encode

import extract_into_bucket
import pytest
from fake_encoder import FakeEncoder, make_data, picture_path

from mmcot_data import cli
from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.errors import (
    DataError,
    ExtractionError,
    ShardError,
    SpecMismatchError,
)
from mmcot_data.extraction import (
    ExtractionConfig,
    Reports,
    begin_extraction,
    extract_feature_sets,
    extract_features,
    extract_shard,
    finish_extraction,
    open_pictures,
    prepare_extraction,
    scan_source,
    wait_for_others,
)
from mmcot_data.scienceqa import read_scienceqa
from mmcot_data.shards import open_features, uploads
from mmcot_data.shards.manifest import commit_name
from mmcot_data.shards.object_folder import ObjectFolder
from mmcot_data.shards.object_store import ObjectStore
from mmcot_data.shards.persistence import StoreError
from mmcot_data.tables import write_tables

NUM = 24
FILES = [f"{number:05d}-of-00003.h5" for number in range(3)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return make_data(folder, num_questions=NUM, captions={"3": "a colour"})


@pytest.fixture(scope="module")
def local(data, tmp_path_factory):
    """The files of a local artifact root by name; commit records without what made the shard."""
    out = tmp_path_factory.mktemp("local")
    extract(data, out)
    return files_of(out)


def files_of(root):
    """What an artifact root holds, by name, but for locks."""
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return {name: (root / name).read_bytes() for name in names if "/." not in name}


def extract(data, out, encoder=None, **changes):
    settings = {"shard_size": 8, "batch_size": 3} | changes
    config = ExtractionConfig(data=data, out=out, encoder=EncoderConfig(name="fake"), **settings)
    return extract_features(config, encoder=encoder or FakeEncoder())


@pytest.fixture(scope="module")
def finished(served):
    """The name of a bucket that a finished extraction is kept in; made once, over HTTP."""
    served.make_bucket("finished")
    return "finished"


@pytest.fixture
def full(server, bucket, data, finished):
    """A bucket with a finished extraction."""
    if not server.objects(finished):
        extract(data, f"s3://{finished}/shards")
        server.asked.clear()
    name = f"full-{bucket}"
    server.copy(finished, name)
    return name


def without_makers(files):
    """Commit records as what they say of the shard, which is the same wherever it is written."""

    def plain(name, content):
        if not name.endswith((".h5.json", ".arrow.json")):
            return content
        record = json.loads(content)
        del record["made_by"], record["self_sha256"]
        return record

    return {name: plain(name, content) for name, content in files.items()}


def assert_equal(server, bucket, local):
    assert without_makers(server.objects(bucket, "shards/")) == without_makers(local)
    assert server.uploads(bucket) == []


@pytest.mark.parametrize("container", ["hdf5", pytest.param("arrow", marks=pytest.mark.slow)])
def test_a_bucket_holds_what_a_folder_would(
    server, bucket, data, local, tmp_path, monkeypatch, container
):
    """Every byte, also of what is uploaded in parts. Catches parts that are mixed up or lost."""
    monkeypatch.setattr(uploads, "PART_NBYTES", 2500)
    if container == "arrow":
        extract(data, tmp_path / "local", format=container)
        local = files_of(tmp_path / "local")
    summary = extract(data, f"s3://{bucket}/shards", format=container)
    assert_equal(server, bucket, local)
    assert (str(summary.folder), summary.folder.name) == (f"s3://{bucket}/shards/fake", "fake")
    assert summary.num_extracted == NUM
    shards = [name for name in local if name.endswith((".h5", ".arrow"))]
    for name in shards:
        parts = {a.query["partNumber"][0] for a in server.asked if a.is_part and name in a.key}
        assert len(parts) == -(-len(local[name]) // 2500) > 1
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "cache").exists()
    stored = open_features(summary.folder.url)
    assert len(stored) == NUM
    assert cli.main(["verify", summary.folder.url]) == 0


def test_what_is_sent_carries_its_checksum(server, bucket):
    """Against a digest computed here. Catches a damaged upload that the store takes for whole."""
    content = bytes(range(256))
    ObjectStore(f"s3://{bucket}/a").put("b", [content[:100], memoryview(content)[100:]])
    (asked,) = [each for each in server.asked if each.method == "PUT"]
    assert asked.headers["content-md5"] == b64encode(hashlib.md5(content).digest()).decode()
    assert server.objects(bucket) == {"a/b": content}


def test_a_finished_set_is_found_finished_by_one_listing(server, full, data, local):
    """Catches a request for each shard, and shards that are made or written again."""
    server.asked.clear()
    encoder = FakeEncoder()
    assert extract(data, f"s3://{full}/shards", encoder).num_extracted == 0
    assert encoder.batches == []
    written = {a.key.rpartition("/")[2] for a in server.asked if a.method in ("PUT", "DELETE")}
    assert written == {".lock"}
    looked_at = [a for a in server.asked if a.method == "HEAD" and a.key.endswith(".h5")]
    assert looked_at == []
    assert_equal(server, full, local)


def test_only_what_is_missing_is_made(server, full, data, local):
    """What is complete is decided by the bucket: a new process knows nothing else."""
    server.remove(full, f"shards/fake/{FILES[1]}")
    server.remove(full, f"shards/fake/{commit_name(FILES[2])}")
    server.put(full, f"shards/fake/{FILES[0]}", b"cut off")
    server.remove(full, "shards/fake/manifest.json")
    assert extract(data, f"s3://{full}/shards").num_extracted == 24
    assert_equal(server, full, local)


def test_a_shard_of_one_writer_with_the_record_of_another_is_made_again(server, full, data, local):
    """Of the same size, as rounding differs between machines. Catches comparing sizes alone."""
    key = f"shards/fake/{FILES[1]}"
    content = bytearray(server.objects(full)[key])
    content[4096] ^= 1
    server.put(full, key, bytes(content))
    server.remove(full, "shards/fake/manifest.json")
    assert extract(data, f"s3://{full}/shards").num_extracted == 8
    assert_equal(server, full, local)


@pytest.mark.slow
def test_a_shard_that_is_changed_before_the_end_is_found(server, full, data):
    server.remove(full, "shards/fake/manifest.json")
    content = server.objects(full)[f"shards/fake/{FILES[2]}"][::-1]

    def change(asked):
        if asked.key.endswith(".lock") and asked.method == "DELETE":
            server.put(full, f"shards/fake/{FILES[2]}", content)

    server.fail = change
    with pytest.raises(ExtractionError, match="1 of 3 shards are not complete"):
        extract(data, f"s3://{full}/shards")


@pytest.mark.slow
def test_a_copy_of_a_bucket_is_complete(server, full, data, local):
    """The store may call the bytes of a copy otherwise; catches making everything anew."""
    other = f"{full}-copy"
    server.make_bucket(other)
    store = ObjectStore(f"s3://{other}/shards")
    uploads_in_parts = pytest.MonkeyPatch()
    uploads_in_parts.setattr(uploads, "PART_NBYTES", 2000)
    for name, content in server.objects(full, "shards/").items():
        store.put(name, [content])
    uploads_in_parts.undo()
    server.remove(other, "shards/fake/manifest.json")
    assert extract(data, f"s3://{other}/shards").num_extracted == 0
    assert_equal(server, other, local)


@pytest.mark.slow
def test_repaired_pictures_replace_their_shard(server, bucket, data, tmp_path):
    """Catches a shard that stays because there is one, or one without a row's digest."""
    copy = tmp_path / "copy"
    copy.mkdir()
    make_data(copy, num_questions=NUM)
    whole = picture_path(copy, 9).read_bytes()
    picture_path(copy, 9).write_bytes(b"no picture")
    assert extract(copy, f"s3://{bucket}/shards", max_failures="1").num_failed == 1
    picture_path(copy, 9).write_bytes(whole)
    summary = extract(copy, f"s3://{bucket}/shards")
    assert (summary.num_failed, summary.num_extracted) == (0, 8)
    assert "9" in open_features(f"s3://{bucket}/shards/fake")


@pytest.mark.slow
def test_another_request_is_refused(server, full, data):
    with pytest.raises(SpecMismatchError, match=r"s3://full.*\n.*layer"):
        extract(data, f"s3://{full}/shards", FakeEncoder(layer="other"))
    with pytest.raises(ShardError, match="shard_size"):
        extract(data, f"s3://{full}/shards", shard_size=4)
    with pytest.raises(DataError, match="is a feature set, expected an artifact root"):
        extract(data, f"s3://{full}/shards/fake")


def test_tables_are_those_of_the_same_data_set(server, bucket, data, tmp_path):
    """Also if another process writes them at the same moment."""
    (tmp_path / "other").mkdir()
    other = read_scienceqa(make_data(tmp_path / "other", num_questions=9))
    first = read_scienceqa(data)

    def race(asked):
        if asked.method == "PUT":
            server.fail = lambda _: None
            write_tables(first, f"s3://{bucket}/shards")

    server.fail = race
    written = write_tables(first, f"s3://{bucket}/shards")
    root = f"s3://{bucket}/shards"
    assert written == [f"{root}/questions.parquet", f"{root}/captions/scienceqa.parquet"]
    with pytest.raises(DataError, match=rf"^{root}/questions.parquet holds other questions"):
        write_tables(other, root)


def test_transient_errors_pass(server, bucket, data, local, monkeypatch, caplog):
    """Each kind of request fails once with 503. Catches a request without a second try."""
    monkeypatch.setattr(uploads, "PART_NBYTES", 3000)
    seen = set()

    def fail_once(asked):
        kind = (asked.method, tuple(sorted(asked.query.keys() - {"partNumber", "uploadId"})))
        if kind in seen:
            return None
        seen.add(kind)
        return 503, "SlowDown"

    server.fail = fail_once
    extract(data, f"s3://{bucket}/shards")
    server.fail = lambda _: None
    assert {"PUT", "POST", "GET", "HEAD", "DELETE"} <= {method for method, _ in seen}
    assert_equal(server, bucket, local)
    assert "again in" in caplog.text


def test_an_answer_that_is_lost_is_no_refusal(server, bucket, data, local, monkeypatch):
    """The second attempt finds what the first one wrote. Catches taking that for another's."""
    monkeypatch.setattr(uploads, "PART_NBYTES", 3000)
    seen = set()

    def lose_first(asked):
        name = asked.key.rpartition("/")[2]
        is_new = asked.method in ("PUT", "POST", "DELETE") and (asked.method, name) not in seen
        seen.add((asked.method, name))
        return is_new and not asked.is_part

    server.lose_answer = lose_first
    encoder = FakeEncoder()
    extract(data, f"s3://{bucket}/shards", encoder)
    assert sum(shape[0] for shape in encoder.batches) == NUM
    files = {n: c for n, c in server.objects(bucket, "shards/").items() if "/.worker" not in n}
    assert without_makers(files) == without_makers(local)


@pytest.mark.slow
def test_a_failed_upload_leaves_no_parts(server, bucket, data, local, monkeypatch):
    """Catches parts that stay to be paid for, and a shard of some of its parts."""
    monkeypatch.setattr(uploads, "PART_NBYTES", 2500)

    def refuse(asked):
        is_third = asked.key.endswith(".h5") and asked.query.get("partNumber") == ["3"]
        return (500, "InternalError") if is_third else None

    server.fail = refuse
    with pytest.raises(
        StoreError, match=rf"^cannot write s3://{bucket}/shards/fake/.*InternalError"
    ):
        extract(data, f"s3://{bucket}/shards")
    assert server.uploads(bucket) == []
    assert not [name for name in server.objects(bucket) if name.endswith(".h5")]
    server.fail = lambda _: None
    extract(data, f"s3://{bucket}/shards")
    assert_equal(server, bucket, local)


def test_what_a_dead_machine_claimed_is_taken_over(server, bucket, data, local, monkeypatch):
    """By the store's clock alone. Catches waiting for ever, and parts that nobody deletes."""
    folder = ObjectFolder(f"s3://{bucket}/shards/fake")
    content = b'{"owner": "process 1 on elsewhere since yesterday"}'
    key = f"shards/fake/.{FILES[1]}.claim"
    server.put(bucket, key, content)
    server.begin_upload(bucket, f"shards/fake/{FILES[1]}")
    told = []

    def die(busy):
        told.extend(busy)
        server.age(bucket, key, 120)

    config = ExtractionConfig(
        data=data,
        out=f"s3://{bucket}/shards",
        encoder=EncoderConfig(name="fake"),
        shard_size=8,
        batch_size=3,
    )
    monkeypatch.setattr("mmcot_data.extraction.run._POLL_SECONDS", 0.02)
    extract_feature_sets([config], Reports(waiting=die), encoders=[FakeEncoder()])
    assert told == [f"{folder}/{FILES[1]}: process 1 on elsewhere since yesterday"]
    assert_equal(server, bucket, local)


@pytest.mark.slow
def test_a_store_that_ignores_conditions_is_told_of(server, bucket, data, local, caplog):
    server.ignores_conditions = True
    extract(data, f"s3://{bucket}/shards")
    assert caplog.text.count("the store ignores If-None-Match") == 1
    assert_equal(server, bucket, local)


def test_a_store_that_refuses_conditions_is_refused(server, bucket, data):
    def refuse(asked):
        has_condition = {"if-match", "if-none-match"} & asked.headers.keys()
        return (501, "NotImplemented") if has_condition and asked.method == "PUT" else None

    server.fail = refuse
    with pytest.raises(ShardError, match="takes no conditional writes"):
        extract(data, f"s3://{bucket}/shards")


@pytest.mark.slow
def test_conditions_of_deletion_are_not_needed(server, bucket, data, local):
    server.fail = lambda asked: (
        (501, "NotImplemented")
        if asked.method == "DELETE" and "if-match" in asked.headers
        else None
    )
    extract(data, f"s3://{bucket}/shards")
    assert_equal(server, bucket, local)


def test_errors_say_what_is_wrong_and_tell_no_secret(server, bucket, data, monkeypatch):
    with pytest.raises(ShardError, match="NoSuchBucket"):
        extract(data, "s3://absent/shards")
    server.fail = lambda _: (403, "AccessDenied")
    with pytest.raises(ShardError, match=r"access is refused.*credentials") as refused:
        extract(data, f"s3://{bucket}/shards")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9/private-name")
    with pytest.raises(StoreError, match="cannot list s3") as unreachable:
        extract(data, f"s3://{bucket}/shards")
    for error in (refused, unreachable):
        assert not any(word in str(error.value) for word in ("test", "private-name", "127.0.0.1"))


@pytest.mark.parametrize(
    "out", ["http://host/shards", "gs://bucket/shards", "s3:/bucket/shards", "s3://", "file:///x"]
)
def test_what_cannot_be_written_to_is_refused(data, out, capsys):
    for command in (["extract", str(data), "--encoder", "tiny"], ["questions", str(data)]):
        with pytest.raises(SystemExit) as exit_:
            cli.main([*command, "--out", out])
        assert exit_.value.code == 2
        assert "expected" in capsys.readouterr().err


@pytest.mark.slow
def test_commands(server, bucket, data, capsys):
    root = f"s3://{bucket}/shards"
    assert cli.main(["questions", str(data), "--out", root]) == 0
    assert f"{root}/questions.parquet: {NUM} questions" in capsys.readouterr().out
    weights = ["--encoder", "tiny", "--random-weights", "0"]
    assert cli.main(["extract", str(data), *weights, "--out", root]) == 0
    assert f"{root}/tiny: {NUM} pictures, {NUM} rows of (50, 192)" in capsys.readouterr().out
    assert cli.main(["inspect", f"{root}/tiny"]) == 0


def _exchange_after_fork(folder, results):
    claim = folder.claim(FILES[0])
    folder.write(FILES[0], [b"child"])
    claim.release()
    results.send(folder.read([FILES[0]]))


def test_a_folder_can_be_sent_to_other_processes(server, bucket):
    """Pickled, or by a fork with its connections open. Catches a connection that both use."""
    folder = ObjectFolder(f"s3://{bucket}/set")
    assert folder.files() == {}
    assert str(pickle.loads(pickle.dumps(folder))) == str(folder)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_exchange_after_fork, args=(folder, sender))
    child.start()
    assert receiver.recv() == {FILES[0]: b"child"}
    child.join()
    assert folder.read([FILES[0]]) == {FILES[0]: b"child"}


LEASE = 5.0
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mmcot_data.extraction", "PIL.Image"])


def start(environment, data, bucket, *, shard_size=8, barrier=None):
    receiver, sender = CONTEXT.Pipe(duplex=False)
    arguments = (environment, data, f"s3://{bucket}/shards", LEASE, shard_size, sender, barrier)
    process = CONTEXT.Process(target=extract_into_bucket.main, args=arguments)
    process.start()
    return process, receiver


def run_elsewhere(environment, task):
    """Make a shard in a process that knows nothing but its task."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(
        target=extract_into_bucket.make_shard, args=(environment, task, sender)
    )
    process.start()
    commit = receiver.recv()
    process.join()
    return commit


def run_here(environment, task):
    return extract_shard(pickle.loads(pickle.dumps(task)), FakeEncoder(), wait=False)


@pytest.mark.parametrize("run", [run_here, pytest.param(run_elsewhere, marks=pytest.mark.slow)])
def test_shards_are_made_from_their_tasks(server, environment, bucket, data, local, run):
    """A flow's way, on Dask or Ray in other processes. Catches a task that lacks its bucket."""
    root = f"s3://{bucket}/shards"
    config = ExtractionConfig(
        data=data, out=root, encoder=EncoderConfig(name="fake"), shard_size=8, batch_size=3
    )
    write_tables(read_scienceqa(data), root)
    scanned = scan_source(open_pictures(config))
    plan, encoder = prepare_extraction(config, FakeEncoder(), scanned)
    with begin_extraction(plan, encoder) as pending:
        assert pending == [0, 1, 2]
        commits = [run(environment, plan.shard_task(number)) for number in pending]
        assert wait_for_others(plan, pending) == []
        summary = finish_extraction(plan)
    assert [commit.shard.file for commit in commits] == FILES
    assert summary.num_distinct == NUM
    assert_equal(server, bucket, local)


@pytest.mark.slow
def test_two_processes_share_a_bucket(server, environment, bucket, data, tmp_path):
    """Catches shards that are made twice, and one process that does nothing."""
    extract(data, tmp_path / "local", shard_size=2)
    barrier = CONTEXT.Barrier(2)
    workers = [start(environment, data, bucket, shard_size=2, barrier=barrier) for _ in range(2)]
    encoded = [results.recv() for _, results in workers]
    for process, _ in workers:
        process.join()
        assert process.exitcode == 0
    assert min(encoded) > 0
    assert NUM <= sum(encoded) <= NUM + 4  # moto looks and writes in two steps: both may succeed
    assert_equal(server, bucket, files_of(tmp_path / "local"))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["claim", "part", "shard", "record"])
def test_a_killed_process_is_continued(
    server, environment, bucket, data, local, monkeypatch, moment
):
    """By SIGKILL, in the middle of an upload, too. Catches whatever a claim leaves behind."""
    process, _ = start(environment, data, bucket)
    wanted = {
        "claim": lambda a: a.key.endswith(f"{FILES[1]}.claim") and a.method == "PUT",
        "part": lambda a: a.is_part and FILES[1] in a.key,
        "shard": lambda a: a.key.endswith(FILES[1]) and "uploadId" in a.query and not a.is_part,
        "record": lambda a: a.key.endswith(commit_name(FILES[1])) and a.method == "PUT",
    }[moment]

    def kill_now(asked):
        if wanted(asked):
            os.kill(process.pid, signal.SIGKILL)

    server.fail = kill_now
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    server.fail = lambda _: None
    begun = time.monotonic()
    next_process, results = start(environment, data, bucket)
    assert 0 < results.recv() <= NUM
    next_process.join()
    assert time.monotonic() - begun < LEASE + 30
    assert_equal(server, bucket, local)
