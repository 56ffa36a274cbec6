"""Claims in a bucket: who may write, also when a process sleeps or a request comes too late."""

import os
import time

import pytest
from fake_encoder import FakeEncoder, make_data

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.errors import FolderLockedError
from mmcot_data.extraction import (
    ExtractionConfig,
    begin_extraction,
    open_pictures,
    prepare_extraction,
    scan_source,
)
from mmcot_data.extraction.making import FeatureSetInProgress
from mmcot_data.shards import lease
from mmcot_data.shards.lease import Lease
from mmcot_data.shards.manifest import commit_name
from mmcot_data.shards.object_folder import ObjectFolder
from mmcot_data.shards.object_store import ChangedError, ObjectStore
from mmcot_data.shards.persistence import StoreError
from mmcot_data.working_copy import working_copy

FILES = [f"{number:05d}-of-00003.h5" for number in range(3)]


def kill(server, bucket, key):
    """The owner of a claim renews it no more; by the server's clock that was two minutes ago."""
    server.age(bucket, key, 120)


def test_a_claim_excludes_and_is_free_again(server, bucket):
    folder, other = (ObjectFolder(f"s3://{bucket}/set") for _ in range(2))
    claim = folder.claim(FILES[0])
    assert other.claim(FILES[0]) is None
    assert other.claimed(FILES) == {FILES[0]}
    assert f"process {os.getpid()} on" in other.owner(FILES[0])
    second = other.claim(FILES[1])
    claim.release()
    again = other.claim(FILES[0], wait=5)
    for each in (second, again):
        each.release()
    with (
        folder.lock(),
        pytest.raises(FolderLockedError, match=f"process {os.getpid()}"),
        other.lock(),
    ):
        pass
    with folder.present_worker():
        assert f"process {os.getpid()}" in other.find_worker()
    assert other.find_worker() is None
    assert server.objects(bucket) == {}


@pytest.mark.slow
def test_a_claim_is_renewed_as_long_as_it_is_held(server, bucket, monkeypatch):
    """Catches a lease that runs out under a long shard, and one that stays after its end."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 2.0)
    folder, other = (ObjectFolder(f"s3://{bucket}/set") for _ in range(2))
    claim = folder.claim(FILES[0])
    end = time.monotonic() + 3.2
    while time.monotonic() < end:
        assert other.claim(FILES[0]) is None
        time.sleep(0.1)
    claim.release()
    again = other.claim(FILES[0])
    assert again is not None
    again.release()


def test_who_lost_a_claim_writes_nothing(server, bucket):
    """A machine that slept. Catches a shard that replaces the one of whoever took over."""
    asleep, awake = (ObjectFolder(f"s3://{bucket}/set") for _ in range(2))
    lost = asleep.claim(FILES[0])
    kill(server, bucket, f"set/.{FILES[0]}.claim")
    claim = awake.claim(FILES[0])
    awake.write(FILES[0], [b"new"])
    awake.write(commit_name(FILES[0]), [b"new record"])
    held = asleep._held[FILES[0]]
    # It has not noticed yet, and believes that its lease is fresh.
    with pytest.raises(ChangedError):
        held._store.put(FILES[0], [b"old"], only_if="*")
    with pytest.raises(ChangedError):
        held._renew()
    held._renewed -= lease.LEASE_SECONDS
    for write in (
        lambda: asleep.write(FILES[0], [b"old"]),
        lambda: asleep.remove(FILES[0]),
        lambda: asleep.remove(commit_name(FILES[0])),
    ):
        with pytest.raises(StoreError, match="the claim of this process was lost"):
            write()
    held._is_lost = True
    lost.release()
    assert awake.claimed(FILES) == {FILES[0]}
    claim.release()
    assert server.objects(bucket, "set/") == {
        FILES[0]: b"new",
        commit_name(FILES[0]): b"new record",
    }


def test_of_many_takers_of_a_dead_claim_one_gets_it(server, bucket):
    store = ObjectStore(f"s3://{bucket}/set")
    server.put(bucket, "set/claim", b"{}")
    kill(server, bucket, "set/claim")
    found = store.find("claim")
    taken = Lease.take(store, "claim")
    assert taken is not None
    assert taken.taken_over
    assert Lease.take(store, "claim") is None
    with pytest.raises(ChangedError):  # who had looked before
        store.put("claim", [b"{}"], only_if=found.etag)
    taken.release()


@pytest.fixture
def folders(server, bucket):
    """A folder as two processes see it."""
    return [ObjectFolder(f"s3://{bucket}/set") for _ in range(2)]


def fall_asleep(server, bucket, folder, held, meanwhile):
    """For longer than a lease, in the middle of a request that has to be repeated."""

    def answer():
        kill(server, bucket, f"set/.{held.lstrip('.')}" + ("" if held == ".lock" else ".claim"))
        folder._held[held]._renewed -= lease.LEASE_SECONDS
        meanwhile()
        return 503, "SlowDown"

    return answer


def answer_once(matches, answer):
    """What the first matching request is answered."""
    seen = []

    def fail(asked):
        if seen or not matches(asked):
            return None
        seen.append(asked)
        return answer()

    return fail


def test_a_late_removal_spares_the_successors_shard(server, bucket, folders):
    """Equal bytes have one ETag. Catches a shard that is deleted after its record was written."""
    asleep, awake = folders
    server.put(bucket, f"set/{FILES[0]}", b"same")
    lost = asleep.claim(FILES[0])
    claims = []

    def take_over():
        claims.append(awake.claim(FILES[0]))
        awake.write(FILES[0], [b"same"])

    server.fail = answer_once(
        lambda asked: asked.method == "DELETE" and asked.key.endswith(FILES[0]),
        fall_asleep(server, bucket, asleep, FILES[0], take_over),
    )
    with pytest.raises(StoreError, match="claim of this process was lost"):
        asleep.write(FILES[0], [b"other"])
    assert server.objects(bucket, "set/")[FILES[0]] == b"same"
    for claim in (lost, *claims):
        claim.release()


def test_a_late_record_does_not_replace_the_successors(server, bucket, folders):
    """Catches a manifest that does not fit the index of whoever took over the lock."""
    asleep, awake = folders

    def take_over():
        with awake.lock():
            awake.write("manifest.json", [b"new"])

    server.fail = answer_once(
        lambda asked: asked.method == "PUT" and asked.key.endswith("manifest.json"),
        fall_asleep(server, bucket, asleep, ".lock", take_over),
    )
    with pytest.raises(StoreError, match="claim of this process was lost"), asleep.lock():
        asleep.write("manifest.json", [b"old"])
    assert server.objects(bucket, "set/") == {"manifest.json": b"new"}


def test_a_record_is_replaced_under_the_lock(server, bucket, folders):
    """Catches a condition that an own, earlier record does not meet."""
    folder, _ = folders
    with folder.lock():
        folder.write("plan.json", [b"1"])
        folder.write("plan.json", [b"2"])
    assert server.objects(bucket, "set/") == {"plan.json": b"2"}


@pytest.mark.parametrize("answer", [(409, "ConditionalRequestConflict"), (503, "SlowDown")])
def test_taking_over_is_tried_again(server, bucket, folders, answer):
    """Of two that try at one moment S3 tells one 409. Catches a run that ends there."""
    folder, _ = folders
    server.put(bucket, f"set/.{FILES[0]}.claim", b"{}")
    kill(server, bucket, f"set/.{FILES[0]}.claim")
    server.fail = answer_once(
        lambda asked: asked.method == "PUT" and "if-match" in asked.headers, lambda: answer
    )
    claim = folder.claim(FILES[0])
    assert claim is not None
    claim.release()


def test_a_claim_whose_renewal_was_not_answered_is_given_up(server, bucket, folders):
    """Catches a claim that stays, and lets others wait for a minute."""
    folder, _ = folders
    claim = folder.claim(FILES[0])
    server.lose_answer = lambda asked: asked.method == "PUT"
    with pytest.raises(StoreError):
        folder._held[FILES[0]]._renew()
    server.lose_answer = lambda _: False
    claim.release()
    assert server.objects(bucket) == {}


def test_no_claim_stays_after_an_error(server, bucket, tmp_path):
    """Catches one that is renewed as long as the process lives, which so waits for itself."""
    config = ExtractionConfig(
        data=make_data(tmp_path, num_questions=20),
        out=f"s3://{bucket}/shards",
        encoder=EncoderConfig(name="fake"),
        shard_size=8,
    )
    scanned = scan_source(open_pictures(config))
    plan, encoder = prepare_extraction(config, FakeEncoder(), scanned)
    with begin_extraction(plan, encoder) as pending:
        item = FeatureSetInProgress(plan, encoder, pending)
        server.fail = lambda asked: (
            (503, "SlowDown")
            if asked.method == "GET" and asked.key.endswith(commit_name(FILES[0]))
            else None
        )
        with pytest.raises(StoreError):
            item.claim(0, 8)
        server.fail = lambda _: None
        item.release_all()
        assert item.pending == {0, 1, 2}
        assert ObjectFolder(str(plan.folder)).claimed(FILES) == set()


@pytest.mark.parametrize("content", [b"", b"process 1 on laptop since yesterday"])
def test_the_lock_of_a_copied_folder_is_read(server, bucket, folders, content):
    """As ``aws s3 cp --recursive`` brings it. Catches an error of the JSON parser."""
    folder, _ = folders
    server.put(bucket, "set/.lock", content)
    owner = content.decode() or "another process"
    with pytest.raises(FolderLockedError, match=f"by {owner};"), folder.lock():
        pass
    kill(server, bucket, "set/.lock")
    with folder.lock():
        pass


def test_unfinished_uploads_are_aborted_by_name_or_all(server, bucket, folders):
    """Catches parts that are paid for until somebody looks, and those of another folder."""
    folder, _ = folders
    for key in (f"set/{FILES[0]}", f"set/{FILES[1]}", "other/file"):
        server.begin_upload(bucket, key)
    folder.remove_half_written([FILES[0]])
    assert set(server.uploads(bucket)) == {f"set/{FILES[1]}", "other/file"}
    folder.remove_half_written()
    assert server.uploads(bucket) == ["other/file"]


def test_a_table_that_changes_meanwhile_is_not_overwritten(server, bucket):
    """Between two looks at it. Catches the new ETag with the old content."""
    server.put(bucket, "shards/a", b"1")
    looks = []

    def change(asked):
        looks.append(asked)
        if len(looks) == 2:
            server.put(bucket, "shards/a", b"2")

    server.fail = change

    def append():
        with working_copy(f"s3://{bucket}/shards", ["a"]) as folder:
            path = folder / "a"
            path.write_bytes(path.read_bytes() + b"+")

    with pytest.raises(ChangedError):
        append()
    assert server.objects(bucket) == {"shards/a": b"2"}
