"""ScienceQA's official zips, and the command, from local servers."""

import argparse
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from download_server import Behaviour
from scienceqa_copies import PATIENCE, TEXTS, Copies, Hosts, serve_copies

from mmcot_data.cli import download as command
from mmcot_data.downloads import run
from mmcot_data.downloads.config import DownloadConfig
from mmcot_data.downloads.run import DownloadSummary, download
from mmcot_data.errors import DataError, DiskFullError
from mmcot_data.sample import draw_sample
from mmcot_data.scienceqa import read_scienceqa


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    draw_sample(folder, num_questions=100, num_workers=1)
    return folder


@pytest.fixture
def copies(data: Path) -> Copies:
    return Copies(data)


def fetch(copies: Copies, hosts: Hosts, out: Path, **options: Any) -> DownloadSummary:
    config = DownloadConfig(
        dataset="scienceqa",
        source="official",
        out=out,
        mirrors=(hosts.mirror,),
        num_parallel=1,
        **options,
    )
    return download(config, catalogue=copies.catalogue(), settings=PATIENCE)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def all_pictures(data: Path) -> dict[str, bytes]:
    return {
        name: content
        for name, content in contents(data).items()
        if name.startswith("images/") or name in TEXTS
    }


def add_members(archive: bytes, members: dict[str, bytes]) -> bytes:
    out = io.BytesIO(archive)
    with zipfile.ZipFile(out, "a") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize("with_top", [True, False])
def test_zips_give_all_pictures(copies: Copies, tmp_path: Path, with_top: bool) -> None:
    """Every file of the drawn data set to the byte, choice pictures included, strays left out;
    whether the zip has a folder of the split's name or not. A second run fetches nothing.
    """
    out = tmp_path / "out"
    strays = {".DS_Store": b"x", "__MACOSX/1/image.png": b"x", "7/notes.txt": b"x"}
    with serve_copies(copies, with_zips=True) as hosts:
        for split in ("train", "val", "test"):
            archive = copies.zip(split, top=split if with_top else None)
            hosts.main.files[f"/images/{split}.zip"] = add_members(archive, strays)
        hosts.main.queue("/images/train.zip", Behaviour(cut_after=50_000), Behaviour(status=503))
        summary = fetch(copies, hosts, out)
        num_requests = len(hosts.main.requests)
        assert fetch(copies, hosts, out).was_there
        assert len(hosts.main.requests) == num_requests
        assert not hosts.cdn.requests
    found = contents(out)
    record = json.loads(found.pop("download.json"))
    del found["download.parquet"]
    assert found == all_pictures(copies.data)
    drawn = read_scienceqa(copies.data)
    assert read_scienceqa(out).questions == [
        q.__class__(**{f: getattr(q, f) for f in q.__slots__} | {"dataset": "scienceqa"})
        for q in drawn.questions
    ]
    roles = [image.role for image in drawn.images]
    assert summary.counts["choice pictures"] == sum(r.startswith("choice_") for r in roles)
    assert summary.counts["second pictures"] == sum(r.startswith("question_") for r in roles)
    assert summary.counts["question pictures"] == roles.count("question")
    assert record["request"]["source"] == "official"
    assert summary.peak_nbytes > summary.nbytes


def _add(**members: bytes) -> Callable[[Copies], bytes]:
    names = {
        "outside": "../../outside.png",
        "absolute": "/outside.png",
        "other": "test/999/image.png",
    }
    return lambda copies: add_members(
        copies.zip("test", top="test"), {names[key]: value for key, value in members.items()}
    )


def _cut(copies: Copies) -> bytes:
    return copies.zip("test", top="test")[:-500]


def _empty(copies: Copies) -> bytes:
    return add_members(b"", {"test/readme.txt": b"nothing"})


def _rewrite(copies: Copies, change: Callable[[str, bytes], bytes | None]) -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(copies.zip("test", top="test"))) as old,
        zipfile.ZipFile(out, "w") as new,
    ):
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return out.getvalue()


def _without_pictures(copies: Copies) -> bytes:
    left_out = iter(range(2))

    def change(name: str, content: bytes) -> bytes | None:
        return None if name.endswith("/image.png") and next(left_out, None) is not None else content

    return _rewrite(copies, change)


def _with_html(copies: Copies) -> bytes:
    changed = iter(range(1))
    return _rewrite(
        copies, lambda _, content: b"<html>" if next(changed, None) is not None else content
    )


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_add(outside=b"x"), "outside"),
        (_add(absolute=b"x"), "outside"),
        (_add(other=b"x"), "test/999: no question of this split has that id"),
        (_cut, r"test\.zip"),
        (_empty, "has no pictures"),
        (_without_pictures, "2 faults:"),
        (_with_html, "expected a PNG"),
    ],
)
def test_bad_zips_leave_nothing(
    copies: Copies, tmp_path: Path, make: Callable[[Copies], bytes], expected: str
) -> None:
    """Escapes, cuts, strange ids, missing and false pictures: an error, nothing in place or
    outside, and once the server is right again the same command works.
    """
    out = tmp_path / "folder" / "out"
    with serve_copies(copies, with_zips=True) as hosts:
        right = hosts.main.files["/images/test.zip"]
        hosts.main.files["/images/test.zip"] = make(copies)
        with pytest.raises(DataError, match=expected):
            fetch(copies, hosts, out)
        assert [path.name for path in out.iterdir()] == [".download"]
        assert not list(tmp_path.rglob("outside.png"))
        hosts.main.files["/images/test.zip"] = right
        train_gets = len(hosts.main.gets("/images/train.zip"))
        fetch(copies, hosts, out)
        assert len(hosts.main.gets("/images/train.zip")) == train_gets
    assert all_pictures(copies.data).items() <= contents(out).items()


def test_what_is_there_needs_no_room(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after everything was unpacked, and stopped while the last zip came: the disk needs
    room for the rest alone; a fresh download is refused.
    """
    usage = shutil.disk_usage(tmp_path)._replace(free=185_000)  # a zip is told to have 100,000

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with serve_copies(copies, with_zips=True) as hosts:
        with monkeypatch.context() as stopping:
            stopping.setattr(run, "write_record", stop)
            for name in ("unpacked", "fetched"):
                with pytest.raises(KeyboardInterrupt):
                    fetch(copies, hosts, tmp_path / name)
        work = tmp_path / "fetched" / ".download"
        whole = work / "archives" / "test.zip"
        whole.with_name(".test.zip.part").write_bytes(whole.read_bytes()[:-10])
        whole.unlink()
        shutil.rmtree(work / "images" / "test")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        fetch(copies, hosts, tmp_path / "unpacked")
        fetch(copies, hosts, tmp_path / "fetched")
        with pytest.raises(DiskFullError, match="zips and pictures"):
            fetch(copies, hosts, tmp_path / "fresh")


def call(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(required=True))
    parsed = parser.parse_args(["download", *arguments])
    return int(parsed.run(parsed))


def test_command(
    copies: Copies,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command hands every option on, and says what is there, what was proved, the licence and
    the next command; again, that all was there.
    """
    monkeypatch.setattr(run, "CATALOGUE", copies.catalogue())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    out = str(tmp_path / "out")
    with serve_copies(copies, with_zips=True) as hosts:
        options = ["--mirror", hosts.mirror, "--split", "test", "--split", "val", "--parallel", "2"]
        prove = ["--prove-pictures", str(copies.data), "--keep-archives"]
        assert call(["scienceqa", out, *options, *prove]) == 0
        first = capsys.readouterr()
        assert call(["scienceqa", out, *options, "--verify"]) == 0
        again = capsys.readouterr().out
    assert f"next: mmcot-data extract {out}" in first.out
    assert "licence: CC BY-NC-SA 4.0" in first.out
    assert "by pixels" in first.out
    assert " 0 pictures compared" not in first.out
    assert "fetching pictures" in first.err
    assert "of all files are as recorded" not in first.out
    assert "the sha256 of all files are as recorded" in again
    assert len(list((tmp_path / "out" / "archives").iterdir())) == 2


def test_command_refuses_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """What is impossible ends with exit code 2 and the reason, before anything is fetched."""
    for arguments, reason in (
        (["aokvqa", "out", "--source", "hub"], "official address only"),
        (["scienceqa", "out", "--parallel", "0"], "expected at least 1"),
        (["scienceqa", "s3://bucket/out"], "expected a local path"),
    ):
        with pytest.raises(SystemExit) as exit_info:
            call(arguments)
        assert exit_info.value.code == 2
        assert reason in capsys.readouterr().err
