"""ScienceQA from local servers that speak like GitHub, the hub and its CDN."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import polars as pl
import pyarrow as pa
import pytest
from download_server import Behaviour, serve_files
from scienceqa_copies import (
    HUB_SCHEMA,
    PARQUET,
    PATIENCE,
    REVISION,
    TEXTS,
    Copies,
    Hosts,
    hub_path,
    serve_copies,
    to_cdn,
)

from mmcot_data.downloads import hub_endpoints, run, workspace
from mmcot_data.downloads.config import DownloadConfig
from mmcot_data.downloads.job import DownloadReports
from mmcot_data.downloads.run import DownloadSummary, download
from mmcot_data.errors import DataError, DiskFullError, DownloadError, FolderLockedError
from mmcot_data.sample import draw_sample
from mmcot_data.scienceqa import read_scienceqa
from mmcot_data.shards.lock import lock_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    draw_sample(folder, num_questions=100, num_workers=1)
    return folder


@pytest.fixture
def copies(data: Path) -> Copies:
    return Copies(data)


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no token, and no way to the real hub."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    nowhere = "http://127.0.0.1:9"
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return folder


def fetch(copies: Copies, hosts: Hosts, out: Path, **options: Any) -> DownloadSummary:
    reports = options.pop("reports", None)
    verify = options.pop("verify", False)
    catalogue = options.pop("catalogue", None) or copies.catalogue()
    options = {"num_parallel": 1, "mirrors": (hosts.mirror,)} | options
    config = DownloadConfig(dataset="scienceqa", out=out, **options)
    return download(config, reports, verify=verify, catalogue=catalogue, settings=PATIENCE)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def visible(folder: Path) -> list[str]:
    """What stands at final places."""
    return sorted(p.name for p in folder.iterdir() if p.name != ".download")


def question_pictures(data: Path) -> dict[str, bytes]:
    return {
        name: content
        for name, content in contents(data).items()
        if name.endswith("/image.png") or name in TEXTS
    }


def test_hub_gives_the_official_layout(copies: Copies, tmp_path: Path) -> None:
    """Every text and picture is the original's to the byte; catches any row put under another id.

    The record tells what was compared, and the second run asks no server.
    """
    out = tmp_path / "out"
    with serve_copies(copies) as hosts:
        summary = fetch(copies, hosts, out, num_parallel=3)
        num_gets = hosts.num_gets()
        num_requests = len(hosts.main.requests)
        again = fetch(copies, hosts, out, verify=True)
        assert hosts.num_gets() == num_gets
        assert len(hosts.main.requests) == num_requests

    found = contents(out)
    record = json.loads(found.pop("download.json"))
    table = found.pop("download.parquet")
    assert found == question_pictures(copies.data)
    drawn = read_scienceqa(copies.data)
    read = read_scienceqa(out)
    assert [q.question_id for q in read.questions] == [q.question_id for q in drawn.questions]
    assert read.captions == drawn.captions

    files = pl.read_parquet(pa.BufferReader(table).read())
    sizes = dict(files.select("path", "nbytes").iter_rows())
    digests = dict(files.select("path", "sha256").iter_rows())
    assert sizes == {name: len(content) for name, content in found.items()}
    assert digests == {n: hashlib.sha256(content).hexdigest() for n, content in found.items()}
    fetched = {file["name"]: file for file in record["fetched"]}
    assert fetched.keys() == {*TEXTS, *(f"archives/{name}" for name in PARQUET.values())}
    for split, name in PARQUET.items():
        file, content = fetched[f"archives/{name}"], copies.parquet(split)
        assert (file["nbytes"], file["verified"]) == (len(content), True)
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert not fetched["problems.json"]["verified"]
    assert fetched["problems.json"]["etag"] is not None
    assert record["revision"] == REVISION
    assert record["licence"] == "CC BY-NC-SA 4.0"

    assert summary.proof["rows"] == len(drawn.questions)
    assert summary.proof["pictures"] == sum(q.has_image for q in drawn.questions)
    assert sum(summary.proof.get(k, 0) for k in PROOFS) == len(drawn.questions)
    assert summary.counts["questions"] == len(drawn.questions)
    assert not summary.was_there
    assert again == replace(summary, was_there=True)


PROOFS = ("by texts", "by pixels", "interchangeable", "by row order")


def test_survives_bad_servers(copies: Copies, tmp_path: Path) -> None:
    """429, 503 and cut connections change nothing of the result; catches lost or doubled bytes."""
    said: list[str] = []
    with serve_copies(copies) as hosts:
        hosts.main.queue(TEXTS["problems.json"], Behaviour(status=503), Behaviour(cut_after=2000))
        hosts.main.queue(TEXTS["captions.json"], Behaviour(status=429))
        for name in PARQUET.values():
            cuts = [Behaviour(cut_after=20_000, reset=reset) for reset in (False, True)]
            hosts.cdn.queue(f"/{name}", Behaviour(status=503), *cuts)
        fetch(copies, hosts, tmp_path / "out", reports=DownloadReports(say=said.append))
    found = contents(tmp_path / "out")
    assert question_pictures(copies.data).items() <= found.items()
    assert any("trying again" in text for text in said)


def test_refuses_another_parquet_file(copies: Copies, tmp_path: Path) -> None:
    """A file with another digest than the published one is never used; the folder stays as it was.

    The hub tells the false file's own digest, so only the published one can find it.
    """
    false = Copies(copies.data)
    false.rows["train"][0]["hint"] = "false"
    with serve_copies(false) as hosts, pytest.raises(DownloadError, match="published is"):
        fetch(copies, hosts, tmp_path / "out", catalogue=copies.catalogue())
    assert visible(tmp_path / "out") == []


def test_refuses_content_that_changes_on_the_way(copies: Copies, tmp_path: Path) -> None:
    """What the CDN sends is not what the hub told: refused for a file without published digest."""
    with serve_copies(copies) as hosts:
        hosts.cdn.files[f"/{PARQUET['test']}"] = b"x" * len(copies.parquet("test"))
        with pytest.raises(DownloadError, match="sha256"):
            fetch(copies, hosts, tmp_path / "out")
        assert visible(tmp_path / "out") == []
        hosts.cdn.files[f"/{PARQUET['test']}"] = copies.parquet("test")[:-100]
        with pytest.raises(DownloadError, match=PARQUET["test"]):
            fetch(copies, hosts, tmp_path / "out")
        hosts.cdn.files[f"/{PARQUET['test']}"] = copies.parquet("test")
        fetch(copies, hosts, tmp_path / "out")
    assert question_pictures(copies.data).items() <= contents(tmp_path / "out").items()


Rows = list[dict[str, Any]]


def _with_picture(rows: Rows) -> int:
    return next(number for number, row in enumerate(rows) if row["image"] is not None)


def _without_picture(rows: Rows) -> int:
    return next(number for number, row in enumerate(rows) if row["image"] is None)


def _edit(column: str, value: Any) -> Callable[[Rows], int]:
    def change(rows: Rows) -> int:
        rows[3][column] = value
        return 3

    return change


def _drop_picture(rows: Rows) -> int:
    number = _with_picture(rows)
    rows[number]["image"] = None
    return number


def _drop_bytes(rows: Rows) -> int:
    number = _with_picture(rows)
    rows[number]["image"]["bytes"] = None
    return number


def _add_picture(rows: Rows) -> int:
    number = _without_picture(rows)
    rows[number]["image"] = rows[_with_picture(rows)]["image"]
    return number


def _to_jpeg(rows: Rows) -> int:
    number = _with_picture(rows)
    rows[number]["image"]["bytes"] = b"\xff\xd8\xff\xe0" + bytes(100)
    return number


def _cut_picture(rows: Rows) -> int:
    number = _with_picture(rows)
    rows[number]["image"]["bytes"] = rows[number]["image"]["bytes"][:-20]
    return number


def _flip_pixel_bytes(rows: Rows) -> int:
    number = _with_picture(rows)
    content = bytearray(rows[number]["image"]["bytes"])
    content[len(content) // 2] ^= 0xFF
    rows[number]["image"]["bytes"] = bytes(content)
    return number


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_edit("answer", 7), "answer: expected [0-4], found 7"),
        (_edit("solution", "something else"), "solution: expected .*found '.*something else'"),
        (_edit("choices", ["a"]), "choices: expected [2-5], found 1"),
        (_edit("grade", None), "grade: expected 'grade[0-9]+', found ''"),
        (_drop_picture, "image: expected a picture .*found none"),
        (_drop_bytes, "image: has a path, but not the picture's bytes"),
        (_add_picture, "image: expected none .*found a picture"),
        (_to_jpeg, "image: expected a PNG, found 104 bytes that begin with"),
        (_cut_picture, "image: it is cut off"),
        (_flip_pixel_bytes, "image: it is damaged: the checksum"),
    ],
)
def test_names_the_row_that_does_not_align(
    copies: Copies, tmp_path: Path, change: Callable[[Rows], int], expected: str
) -> None:
    """One changed cell in the middle of a file is found and named; nothing is put in place."""
    row = change(copies.rows["test"])
    question_id = copies.ids["test"][row]
    place = rf"{PARQUET['test']}, row {row} \(question '{question_id}'\): {expected}"
    with serve_copies(copies) as hosts, pytest.raises(DataError, match=place) as error:
        fetch(copies, hosts, tmp_path / "out")
    assert "1 fault:" in str(error.value)
    assert visible(tmp_path / "out") == []


def test_no_picture_is_written_after_a_fault(copies: Copies, tmp_path: Path) -> None:
    """A wrong row of the first split: catches hundreds of megabytes written for nothing."""
    copies.rows["train"][0]["answer"] = 7
    with serve_copies(copies) as hosts, pytest.raises(DataError, match="1 fault:"):
        fetch(copies, hosts, tmp_path / "out")
    assert list((tmp_path / "out").rglob("*.parquet"))
    assert not list((tmp_path / "out").rglob("*.png"))


def test_counts_all_rows_that_do_not_align(copies: Copies, tmp_path: Path) -> None:
    """Rows in another order: each wrong one counts, ten are named; catches a stop at the first."""
    rows = copies.rows["train"]
    rows.reverse()
    problems = json.loads(copies.texts["problems.json"])
    columns = [name for name in HUB_SCHEMA.names if name not in ("image", "choices")]
    wrong = 0
    for question_id, row in zip(copies.ids["train"], rows, strict=True):
        record = problems[question_id]
        same_length = len(row["choices"]) == len(record["choices"])
        pairs = list(zip(row["choices"], record["choices"], strict=False)) if same_length else []
        wrong += sum(row[name] != record[name] for name in columns)
        wrong += sum(one != other for one, other in pairs) + (not same_length)
        wrong += (row["image"] is None) != (record["image"] is None)
    assert wrong > 10
    with serve_copies(copies) as hosts, pytest.raises(DataError) as error:
        fetch(copies, hosts, tmp_path / "out")
    lines = str(error.value).splitlines()
    assert f"{wrong} faults:" in lines[0]
    assert sum("train-00000" in line for line in lines) == 10
    assert f"and {wrong - 10} more" in str(error.value)


@pytest.mark.parametrize("num", [-1, 1])
def test_finds_other_numbers_of_rows(copies: Copies, tmp_path: Path, num: int) -> None:
    """A split that is a row shorter or longer than its list of ids is no copy of it."""
    rows = copies.rows["val"]
    expected = len(rows)
    copies.rows["val"] = rows[:-1] if num < 0 else [*rows, rows[0]]
    with (
        serve_copies(copies) as hosts,
        pytest.raises(DataError, match=f"expected {expected} rows, .* found {expected + num}"),
    ):
        fetch(copies, hosts, tmp_path / "out")


def test_whitespace_may_differ_and_is_counted(copies: Copies, tmp_path: Path) -> None:
    """The one tolerance of the comparison, counted exactly; null is the empty text."""
    rows = copies.rows["train"]
    rows[0]["lecture"] = rows[0]["lecture"].replace(" ", "  ", 1) + "\n"
    copies.set_records({copies.ids["train"][1]: {"hint": ""}})
    rows[1]["hint"] = None
    with serve_copies(copies) as hosts:
        summary = fetch(copies, hosts, tmp_path / "out")
    assert summary.proof["texts equal up to whitespace"] == 1


def _make_ambiguous(copies: Copies) -> tuple[int, int]:
    """Give two questions of the test split with different pictures the same texts."""
    rows = copies.rows["test"]
    first, second = [n for n, row in enumerate(rows) if row["image"] is not None][:2]
    assert rows[first]["image"] != rows[second]["image"]
    texts = {name: rows[first][name] for name in HUB_SCHEMA.names if name != "image"}
    copies.set_records({copies.ids["test"][second]: texts})
    return first, second


def _count_ambiguous(copies: Copies) -> int:
    """Rows of which another has the same texts, where the pictures of all such differ; by pairs."""
    count = 0
    for rows in copies.rows.values():
        texts = [{k: v for k, v in row.items() if k != "image"} for row in rows]
        pictures = [row["image"] and row["image"]["bytes"] for row in rows]
        for number, picture in enumerate(pictures):
            same = {p for t, p in zip(texts, pictures, strict=True) if t == texts[number]}
            count += picture is not None and len(same - {None}) > 1
    return count


def test_only_pixels_tell_equal_questions_apart(copies: Copies, tmp_path: Path) -> None:
    """Two rows of equal texts have changed places: texts cannot show it, official pictures do.

    Catches a proof that compares texts alone but claims more, and a pixel proof that does nothing.
    """
    first, second = _make_ambiguous(copies)
    with serve_copies(copies) as hosts:
        right = fetch(copies, hosts, tmp_path / "right", prove_pictures=copies.data / "images")
    num_ambiguous = _count_ambiguous(copies)
    assert num_ambiguous >= 2
    assert right.proof["by pixels"] == num_ambiguous
    assert right.proof.get("by row order", 0) == 0
    assert right.proof["pictures compared"] == right.proof["pictures"]

    rows = copies.rows["test"]
    rows[first]["image"], rows[second]["image"] = rows[second]["image"], rows[first]["image"]
    with serve_copies(copies) as hosts:
        unproved = fetch(copies, hosts, tmp_path / "unproved")
        with pytest.raises(DataError, match="2 faults:") as error:
            fetch(copies, hosts, tmp_path / "out", prove_pictures=copies.data)
    assert unproved.proof["by row order"] == num_ambiguous
    for number in (first, second):
        name = f"row {number} (question '{copies.ids['test'][number]}'): image: expected the pixels"
        assert name in str(error.value)


def test_part_of_the_official_pictures_proves_that_part(copies: Copies, tmp_path: Path) -> None:
    """One flat folder of one question, re-encoded: its row is proved by pixels, no other."""
    first, _ = _make_ambiguous(copies)
    question_id = copies.ids["test"][first]
    folder = tmp_path / "some" / question_id
    folder.mkdir(parents=True)
    _save_again(copies.rows["test"][first]["image"]["bytes"], folder / "image.png")
    with serve_copies(copies) as hosts:
        summary = fetch(copies, hosts, tmp_path / "out", prove_pictures=tmp_path / "some")
        (tmp_path / "none").mkdir()
        with pytest.raises(DataError, match="has none of the pictures"):
            fetch(copies, hosts, tmp_path / "other", prove_pictures=tmp_path / "none")
    assert summary.proof["pictures compared"] == 1
    assert summary.proof["by pixels"] == 1
    assert summary.proof["by row order"] == _count_ambiguous(copies) - 1


def _save_again(content: bytes, path: Path) -> None:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        image.save(path, compress_level=1)
    assert path.read_bytes() != content


def _rename(schema: Any) -> Any:
    return pa.schema([f.with_name("context") if f.name == "hint" else f for f in schema])


def _texts_as_answers(schema: Any) -> Any:
    return pa.schema([pa.field("answer", pa.string()) if f.name == "answer" else f for f in schema])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_rename, "column hint: expected text, found none"),
        (_texts_as_answers, "column answer: expected whole numbers, found string"),
    ],
)
def test_other_columns_are_refused(
    copies: Copies, tmp_path: Path, change: Callable[[Any], Any], expected: str
) -> None:
    """Before a picture is written the columns are checked; the error lists them."""
    copies.schema = change(HUB_SCHEMA)
    for row in copies.rows["train"] + copies.rows["val"] + copies.rows["test"]:
        row["context"] = row["hint"]
        row["answer"] = str(row["answer"]) if change is _texts_as_answers else row["answer"]
    with serve_copies(copies) as hosts, pytest.raises(DataError, match=expected):
        fetch(copies, hosts, tmp_path / "out")
    assert not (tmp_path / "out" / ".download" / "images").exists()


def test_a_file_that_is_no_parquet_is_refused(copies: Copies, tmp_path: Path) -> None:
    """An answer of HTML that the hub itself vouches for still is no data set."""
    html = b"<html>gone</html>"
    with serve_copies(copies) as hosts:
        name = PARQUET["val"]
        hosts.cdn.files[f"/{name}"] = html
        hosts.main.behaviours[hub_path("val")] = to_cdn(hosts.cdn, name, html, REVISION)
        with pytest.raises(DataError, match=rf"{name} can't be read as parquet"):
            fetch(copies, hosts, tmp_path / "out")


def _twice(content: bytes) -> bytes:
    return content.rstrip()[:-1] + b', "1": {}}'


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("problems.json", lambda content: content[: len(content) // 2], "not valid JSON"),
        ("problems.json", lambda content: content.replace(b'"', b"\xff", 1), "not valid JSON"),
        ("problems.json", _twice, "'1' occurs more than once"),
        ("pid_splits.json", lambda _: b"[]", "expected a JSON object"),
        ("captions.json", lambda _: b'{"captions": {}}', "captions of its questions"),
    ],
)
def test_bad_texts_leave_nothing(
    copies: Copies, tmp_path: Path, name: str, change: Callable[[bytes], bytes], expected: str
) -> None:
    """Cut, not UTF-8, an id twice: a clear error, no folder, and the same command then works."""
    right = copies.texts[name]
    with serve_copies(copies) as hosts:
        hosts.main.files[TEXTS[name]] = change(right)
        with pytest.raises(DataError, match=expected):
            fetch(copies, hosts, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert not hosts.cdn.requests
        hosts.main.files[TEXTS[name]] = right
        fetch(copies, hosts, tmp_path / "out")


def test_other_counts_than_published_are_refused(copies: Copies, tmp_path: Path) -> None:
    """The right form with other numbers is not the published data set: all differences listed."""
    catalogue = copies.catalogue()
    published = replace(
        catalogue.scienceqa,
        num_questions={"train": 12726, "val": 4241, "test": 4241},
        num_with_picture=catalogue.scienceqa.num_with_picture | {"val": 0},
    )
    with serve_copies(copies) as hosts, pytest.raises(DataError) as error:
        fetch(copies, hosts, tmp_path / "out", catalogue=replace(catalogue, scienceqa=published))
    for split in PARQUET:
        found = len(copies.ids[split])
        expected = published.num_questions[split]
        assert f"{split}: expected {expected} questions, found {found}" in str(error.value)
    assert "val: expected 0 questions that name image.png" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_stopped_run_is_continued(copies: Copies, tmp_path: Path) -> None:
    """Stopped while pictures are written: nothing is at its place, the next run fetches nothing
    again that was whole, writes no picture twice, and ends with the same bytes.
    """
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == 40:
            raise KeyboardInterrupt

    with serve_copies(copies) as hosts:
        with pytest.raises(KeyboardInterrupt):
            fetch(copies, hosts, out, reports=DownloadReports(written=stop))
        assert visible(out) == []
        num_gets = hosts.num_gets()
        written = {path: path.stat().st_mtime_ns for path in out.rglob("image.png")}
        assert len(written) == 40
        damaged = next(iter(written))
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
        fetch(copies, hosts, out)
        assert hosts.num_gets() == num_gets
    assert question_pictures(copies.data).items() <= contents(out).items()
    final = {path: out / path.relative_to(out / ".download") for path in written}
    kept = [path for path in written if final[path].stat().st_mtime_ns == written[path]]
    assert len(kept) == 39
    record = json.loads((out / "download.json").read_bytes())
    assert all(file["etag"] for file in record["fetched"])


def test_a_stop_while_files_take_their_places(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two renames, the next run moves the rest and asks no server."""
    out = tmp_path / "out"
    real = run.publish

    def publish_some(work: Path, target: Path, names: Any) -> None:
        for name in tuple(names)[:4]:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).rename(target / name)
        raise KeyboardInterrupt

    with serve_copies(copies) as hosts:
        monkeypatch.setattr(run, "publish", publish_some)
        with pytest.raises(KeyboardInterrupt):
            fetch(copies, hosts, out)
        assert "download.json" not in visible(out)
        assert "problems.json" in visible(out)
        num_requests = len(hosts.main.requests)
        monkeypatch.setattr(run, "publish", real)
        fetch(copies, hosts, out, verify=True)
        assert len(hosts.main.requests) == num_requests
    assert not (out / ".download").exists()
    assert question_pictures(copies.data).items() <= contents(out).items()


def test_killed_while_the_working_folder_goes(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is in place, the archives are not deleted yet: the next run deletes them."""
    out = tmp_path / "out"
    real = workspace.shutil.rmtree

    def kill(path: Path, *args: Any, **options: Any) -> None:
        if ".download" in str(path):
            raise KeyboardInterrupt
        real(path, *args, **options)

    with serve_copies(copies) as hosts:
        with monkeypatch.context() as killing:
            killing.setattr(workspace.shutil, "rmtree", kill)
            with pytest.raises(KeyboardInterrupt):
                fetch(copies, hosts, out)
        assert list((out / ".download").rglob("*.parquet"))
        num_requests = len(hosts.main.requests)
        with lock_folder(out / ".download"), pytest.raises(FolderLockedError):
            fetch(copies, hosts, out)
        assert fetch(copies, hosts, out, verify=True).was_there
        assert len(hosts.main.requests) == num_requests
    assert not (out / ".download").exists()


def test_finished_by_another_process_meanwhile(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look at the folder and its lock another process finishes: nothing is made again."""
    out = tmp_path / "out"
    real = run.open_workspace

    def open_late(*args: Any) -> Any:
        monkeypatch.setattr(run, "open_workspace", real)
        fetch(copies, hosts, out)
        counted.append(len(hosts.main.requests))
        return real(*args)

    counted: list[int] = []
    with serve_copies(copies) as hosts:
        monkeypatch.setattr(run, "open_workspace", open_late)
        assert fetch(copies, hosts, out).was_there
        assert counted == [len(hosts.main.requests)]
    assert not (out / ".download").exists()


def test_origin_that_was_not_noted_is_unknown(copies: Copies, tmp_path: Path) -> None:
    """Killed before the journal knew of a file that a mirror gave: catches a record that names the
    file's own host, which was never asked."""
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with serve_copies(copies) as hosts:
        with pytest.raises(KeyboardInterrupt):
            fetch(copies, hosts, out, reports=DownloadReports(written=stop))
        journal = out / ".download" / "fetched.jsonl"
        first, *others = journal.read_text(encoding="utf-8").splitlines(keepends=True)
        journal.write_text("".join(others), encoding="utf-8")
        fetch(copies, hosts, out)
    record = json.loads((out / "download.json").read_bytes())
    urls = {file["name"]: file["url"] for file in record["fetched"]}
    assert urls.pop(json.loads(first)["name"]) is None
    assert all(url.startswith(hosts.mirror) for url in urls.values())


def test_damage_after_the_download_is_found(copies: Copies, tmp_path: Path) -> None:
    """Missing and shorter files by any run, a changed byte by --verify; all are named."""
    out = tmp_path / "out"
    with serve_copies(copies) as hosts:
        fetch(copies, hosts, out)
        one, two, three = sorted(out.rglob("image.png"))[:3]
        content = bytearray(one.read_bytes())
        content[50] ^= 1
        one.write_bytes(content)
        fetch(copies, hosts, out)
        with pytest.raises(DataError, match=r"1 fault:\n .*sha256"):
            fetch(copies, hosts, out, verify=True)
        two.unlink()
        three.write_bytes(three.read_bytes()[:-1])
        with pytest.raises(DataError, match="2 faults:") as error:
            fetch(copies, hosts, out)
        assert f"{two.relative_to(out)} is missing" in str(error.value)
        (out / "download.json").write_text("{", encoding="utf-8")
        with pytest.raises(DataError, match="is damaged"):
            fetch(copies, hosts, out)


def test_refuses_folders_of_something_else(copies: Copies, tmp_path: Path) -> None:
    """Other files, another request begun or finished there, another process: nothing is touched."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    with serve_copies(copies) as hosts:
        with pytest.raises(DataError, match=r"holds notes\.txt"):
            fetch(copies, hosts, out)
        assert contents(out) == {"notes.txt": b"mine"}
        (out / "notes.txt").unlink()
        with lock_folder(out / ".download"), pytest.raises(FolderLockedError):
            fetch(copies, hosts, out)
        hosts.cdn.behaviour = Behaviour(status=404)
        with pytest.raises(DownloadError):
            fetch(copies, hosts, out)
        hosts.cdn.behaviour = Behaviour()
        with pytest.raises(DataError, match=r"splits is .* asked for"):
            fetch(copies, hosts, out, splits=("val",))
        fetch(copies, hosts, out)
        with pytest.raises(DataError, match="source is 'hub', asked for 'official'"):
            fetch(copies, hosts, out, source="official")


def test_one_split_and_its_archive(copies: Copies, tmp_path: Path) -> None:
    """Only what is asked for is fetched; the archive stays if that is asked for."""
    out = tmp_path / "out"
    with serve_copies(copies) as hosts:
        fetch(copies, hosts, out, splits=("test",), keep_archives=True)
        assert {request.path for request in hosts.cdn.gets()} == {f"/{PARQUET['test']}"}
    assert [path.name for path in (out / "images").iterdir()] == ["test"]
    assert (out / "archives" / PARQUET["test"]).read_bytes() == copies.parquet("test")


def fill_cache(cache: Path, copies: Copies, revision: str = REVISION) -> dict[str, Path]:
    """Lay out the parquet files as huggingface_hub's cache does; gives its blobs."""
    repository = cache / "datasets--derek-thomas--ScienceQA"
    snapshot = repository / "snapshots" / revision / "data"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision, encoding="utf-8")
    blobs = {}
    for split, name in PARQUET.items():
        content = copies.parquet(split)
        blobs[split] = repository / "blobs" / hashlib.sha256(content).hexdigest()
        blobs[split].write_bytes(content)
        (snapshot / name).symlink_to(os.path.relpath(blobs[split], snapshot))
    return blobs


@pytest.mark.parametrize("revision", [None, "main"])
def test_the_cache_is_used_without_the_hub(
    copies: Copies,
    tmp_path: Path,
    hub_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    revision: str | None,
) -> None:
    """Files in Hugging Face's cache are used offline, said aloud, and stay in the cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    fill_cache(hub_cache, copies, "0" * 40 if revision else REVISION)
    before = contents(hub_cache)
    said: list[str] = []
    with serve_copies(copies) as hosts:
        reports = DownloadReports(say=said.append)
        summary = fetch(copies, hosts, tmp_path / "out", reports=reports, revision=revision)
        assert not hosts.cdn.requests
        assert not any("datasets" in request.path for request in hosts.main.requests)
    assert sum("taken from Hugging Face's cache" in text for text in said) == 3
    assert summary.revision == ("0" * 40 if revision else REVISION)
    assert summary.num_verified == 3
    assert contents(hub_cache) == before
    assert question_pictures(copies.data).items() <= contents(tmp_path / "out").items()


def test_a_damaged_cache_is_not_used(
    copies: Copies, tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed byte in the cache: said aloud, fetched from the hub; offline it is an error."""
    blobs = fill_cache(hub_cache, copies)
    blobs["val"].write_bytes(blobs["val"].read_bytes()[:-1] + b"?")
    said: list[str] = []
    with serve_copies(copies) as hosts:
        with monkeypatch.context() as offline:
            offline.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
            with pytest.raises(DownloadError, match="HF_HUB_OFFLINE forbids"):
                fetch(copies, hosts, tmp_path / "out")
        fetch(copies, hosts, tmp_path / "out", reports=DownloadReports(say=said.append))
        assert {request.path for request in hosts.cdn.gets()} == {f"/{PARQUET['val']}"}
    assert any("is damaged" in text for text in said)


def test_another_revision_is_listed_by_the_hub(copies: Copies, tmp_path: Path) -> None:
    """Other file names and several files a split: taken from the hub's list, digests included."""
    commit = "1" * 40
    halves = Copies(copies.data)
    siblings = []
    with serve_copies(copies) as hosts:
        for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
            rows = copies.rows[split]
            for number, part in enumerate((rows[:3], rows[3:])):
                halves.rows[split] = part
                content = halves.parquet(split)
                path = f"data/{name}-{number:05}-of-00002.parquet"
                digest = hashlib.sha256(content).hexdigest()
                lfs = {"size": len(content), "sha256": digest, "pointerSize": 133}
                siblings.append({"rfilename": path, "size": len(content), "lfs": lfs})
                blob = path.removeprefix("data/")
                hosts.cdn.files[f"/{blob}"] = content
                url = f"/datasets/derek-thomas/ScienceQA/resolve/{commit}/{path}"
                hosts.main.behaviours[url] = to_cdn(hosts.cdn, blob, content, commit)
        about = {"id": "derek-thomas/ScienceQA", "sha": commit, "siblings": siblings}
        api = "/api/datasets/derek-thomas/ScienceQA/revision/new"
        hosts.main.files[api] = json.dumps(about).encode()
        summary = fetch(copies, hosts, tmp_path / "out", revision="new")
        about["siblings"] = siblings[1:]
        hosts.main.files[api] = json.dumps(about).encode()
        with pytest.raises(DataError, match=r"expected the files data/train-00000-of-0000N"):
            fetch(copies, hosts, tmp_path / "other", revision="new")
    assert (summary.revision, summary.num_verified) == (commit, 6)
    assert question_pictures(copies.data).items() <= contents(tmp_path / "out").items()


def test_room_is_looked_for_before_pictures_are_fetched(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too small a disk is told before hundreds of megabytes come."""
    # Enough for the parquet files, but not for the pictures too.
    _leave_free(monkeypatch, sum(len(copies.parquet(split)) for split in PARQUET) + 50_000)
    with serve_copies(copies) as hosts:
        with pytest.raises(DiskFullError, match="parquet files and pictures"):
            fetch(copies, hosts, tmp_path / "out")
        assert not hosts.cdn.gets()


def _leave_free(monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    usage = shutil.disk_usage(Path())._replace(free=nbytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


@pytest.mark.parametrize("what", ["all", "parts"])
def test_what_is_there_needs_no_room(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A run that was stopped late continues on a disk that has room for the rest alone; catches
    the whole download being asked for again. Parts of archives count as well."""
    out = tmp_path / "out"
    names = {name: f"/{name}" for name in PARQUET.values()}

    def stop(done: int, total: int) -> None:
        if done == total or what == "parts":
            raise KeyboardInterrupt

    with serve_copies(copies) as hosts:
        with pytest.raises(KeyboardInterrupt):
            fetch(copies, hosts, out, reports=DownloadReports(written=stop))
        if what == "parts":
            for name in names:
                whole = out / ".download" / "archives" / name
                part = whole.with_name(f".{name}.part")
                part.write_bytes(whole.read_bytes()[:-10])
                whole.unlink()
            shutil.copytree(
                copies.data / "images", out / ".download" / "images", dirs_exist_ok=True
            )
        _leave_free(monkeypatch, 50_000)
        fetch(copies, hosts, out)
        if what == "parts":
            assert all(hosts.cdn.gets(path)[-1].range for path in names.values())


def test_no_server_says_which(copies: Copies, tmp_path: Path) -> None:
    """The hub cannot be reached: every server that was asked is named, and what else to try."""
    with serve_copies(copies) as hosts:
        for split in PARQUET:
            hosts.main.behaviours[hub_path(split)] = Behaviour(status=404)
        with pytest.raises(DownloadError, match="--source official") as error:
            fetch(copies, hosts, tmp_path / "out", splits=("val",))
    assert hosts.mirror in str(error.value)
    assert "http://127.0.0.1:9" in str(error.value)


HTML = {"Content-Type": "text/html"}


@pytest.mark.parametrize(
    "answer",
    [
        Behaviour(content=b"<html>Log in</html>", headers=HTML),
        Behaviour(content=b"<html>Log in</html>", headers=HTML, etag="strong"),
        Behaviour(status=503),
    ],
    ids=["page", "page with tag", "busy"],
)
def test_one_bad_mirror_does_not_spoil_the_others(
    copies: Copies, tmp_path: Path, answer: Behaviour
) -> None:
    """Catches the size of a login page being taken for the file's, also where its digest is known,
    and a mirror's failure that ends the search or goes unsaid."""
    said: list[str] = []
    with serve_copies(copies) as hosts, serve_files({}) as bad:
        for split in PARQUET:
            bad.behaviours[hub_path(split)] = answer
        mirrors = (bad.url, hosts.mirror)
        reports = DownloadReports(say=said.append)
        summary = fetch(copies, hosts, tmp_path / "out", mirrors=mirrors, reports=reports)
    assert summary.num_verified == 3
    assert sum(f"not from {bad.url}" in text and hosts.mirror in text for text in said) >= 3


def test_mirror_with_another_file_does_not_spoil_the_others(copies: Copies, tmp_path: Path) -> None:
    """Catches "it was replaced" ending the search though the next server has the published file."""
    said: list[str] = []
    old = b"of last year"
    with serve_copies(copies) as hosts, serve_files({}) as stale:
        headers = {"X-Linked-Etag": f'"{hashlib.sha256(old).hexdigest()}"'}
        stale.behaviours[hub_path("train")] = Behaviour(content=old, headers=headers)
        mirrors = (stale.url, hosts.mirror)
        reports = DownloadReports(say=said.append)
        fetch(copies, hosts, tmp_path / "out", mirrors=mirrors, reports=reports)
    assert any("it was replaced" in text and f"asking {hosts.mirror}" in text for text in said)
    assert question_pictures(copies.data).items() <= contents(tmp_path / "out").items()


def test_mirror_without_digests_alone(copies: Copies, tmp_path: Path) -> None:
    """A plain file server, and no hub: its files are fetched, and only the published digest counts
    as verified; that is said."""
    said: list[str] = []
    with serve_copies(copies) as hosts:
        for split in PARQUET:
            del hosts.main.behaviours[hub_path(split)]
            hosts.main.files[hub_path(split)] = copies.parquet(split)
        reports = DownloadReports(say=said.append)
        summary = fetch(copies, hosts, tmp_path / "out", reports=reports)
    assert summary.num_verified == 1
    assert sum("is asked for all the same" in text for text in said) == 3


def test_page_in_place_of_a_list_of_files(copies: Copies, tmp_path: Path) -> None:
    """A mirror answers any path with a page: the next one is asked, and the error names both."""
    api = "/api/datasets/derek-thomas/ScienceQA/revision/new"
    with serve_copies(copies) as hosts:
        hosts.main.behaviours[api] = Behaviour(content=b"<html>Log in</html>", headers=HTML)
        with pytest.raises(DownloadError, match="not with a list of files") as error:
            fetch(copies, hosts, tmp_path / "out", revision="new")
    assert "http://127.0.0.1:9" in str(error.value)


@pytest.mark.parametrize(("asked", "waited"), [("20", 20.0), ("7200", 300.0)])
def test_busy_hub_says_when_to_come_back(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, waited: float
) -> None:
    """Catches Retry-After being ignored, and fewer tries than for the files themselves."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == PATIENCE.num_tries - 1:
            hosts.main.behaviours[hub_path("val")] = usual

    monkeypatch.setattr(hub_endpoints.time, "sleep", sleep)
    with serve_copies(copies) as hosts:
        usual = hosts.main.behaviours[hub_path("val")]
        busy = Behaviour(status=429, headers={"Retry-After": asked})
        hosts.main.behaviours[hub_path("val")] = busy
        fetch(copies, hosts, tmp_path / "out", splits=("val",))
        assert slept == [waited] * (PATIENCE.num_tries - 1)
        slept.clear()
        hosts.main.behaviours[hub_path("val")] = busy
        monkeypatch.setattr(hub_endpoints.time, "sleep", lambda _: None)
        num_heads = sum(request.method == "HEAD" for request in hosts.main.requests)
        with pytest.raises(DownloadError, match="HTTP 429 Too Many Requests"):
            fetch(copies, hosts, tmp_path / "other", splits=("val",))
        heads = sum(request.method == "HEAD" for request in hosts.main.requests)
        assert heads - num_heads == PATIENCE.num_tries


@pytest.mark.parametrize(
    "answer",
    [
        *(Behaviour(status=status) for status in (400, 401, 403, 404, 429, 503)),
        Behaviour(redirect="."),
        Behaviour(content=b"<html>", headers=HTML),
    ],
    ids=["400", "401", "403", "404", "429", "503", "endless redirects", "page"],
)
@pytest.mark.parametrize("revision", [None, "new"])
def test_passwords_of_mirrors_are_not_shown(
    copies: Copies, tmp_path: Path, answer: Behaviour, revision: str | None
) -> None:
    """Catches one in an error or notice, wherever huggingface_hub puts the URL into its own."""
    said: list[str] = []
    with serve_copies(copies) as hosts:
        path = hub_path("val")
        if revision is not None:
            path = f"/api/datasets/derek-thomas/ScienceQA/revision/{revision}"
        name = path.rpartition("/")[2]
        redirect = None if answer.redirect is None else name
        hosts.main.behaviours[path] = replace(answer, redirect=redirect)
        mirror = hosts.mirror.replace("//", "//user:hush@")
        reports = DownloadReports(say=said.append)
        with pytest.raises(DownloadError) as error:
            fetch(
                copies,
                hosts,
                tmp_path / "out",
                mirrors=(mirror,),
                reports=reports,
                revision=revision,
                splits=("val",),
            )
    assert hosts.mirror in str(error.value)
    assert "hush" not in f"{error.value}{said}"
    with pytest.raises(ValueError, match="expected a URL as https") as refused:
        DownloadConfig(dataset="scienceqa", out=tmp_path, mirrors=("ftp://user:hush@h/",))
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"dataset": "aokvqa", "source": "hub"},
        {"dataset": "aokvqa", "revision": "main"},
        {"dataset": "other"},
        {"source": "drive"},
        {"splits": ("validation",)},
        {"num_parallel": 0},
        {"mirrors": ("ftp://x",)},
        {"source": "official", "prove_pictures": Path("x")},
    ],
)
def test_impossible_requests(options: dict[str, Any]) -> None:
    """Each is refused before anything is done."""
    with pytest.raises(ValueError, match=r"expected|only|without"):
        DownloadConfig(**({"dataset": "scienceqa", "out": Path("out")} | options))
