"""A-OKVQA from a local server: the archive, and one picture after the other."""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from download_server import Behaviour, DownloadServer, serve_files
from PIL import Image
from scienceqa_copies import PATIENCE

from mmcot_data.downloads.catalogue import CATALOGUE
from mmcot_data.downloads.config import DownloadConfig
from mmcot_data.downloads.job import DownloadReports
from mmcot_data.downloads.run import DownloadSummary, download
from mmcot_data.errors import DataError, DownloadError
from mmcot_data.question_data import read_data

_ARCHIVE = "/aokvqa/aokvqa_v1p0.tar.gz"
_SPLITS = ("train", "val", "test")

Records = dict[str, list[dict[str, Any]]]


def make_records() -> Records:
    """Twelve, four and four questions; two questions share each picture, and splits share ids."""
    records: Records = {}
    for split, number in zip(_SPLITS, (12, 4, 4), strict=True):
        records[split] = [
            {
                "split": split,
                "image_id": 139 + n // 2,
                "question_id": f"{split}{n:04}",
                "question": f"What is in picture {n}?",
                "choices": ["a cat", "café", "a map", "a boat"],
                "correct_choice_idx": n % 4,
                "direct_answers": ["cat"] * 10,
                "difficult_direct_answer": False,
                "rationales": [f"reason {k} of {n}" for k in range(3)],
            }
            for n in range(number)
        ]
    for record in records["test"]:
        for key in ("correct_choice_idx", "direct_answers", "rationales"):
            del record[key]
    return records


def pack(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def pack_records(records: Records) -> bytes:
    files = {f"aokvqa_v1p0_{s}.json": json.dumps(rows).encode() for s, rows in records.items()}
    return pack({**files, "large_vocab_train.csv": b"a,b\n", "./specialized_vocab_train.csv": b""})


def jpeg(seed: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20 + seed, 10), (seed * 9 % 256, 50, 90)).save(out, "JPEG")
    return out.getvalue()


def serve(records: Records) -> dict[str, bytes]:
    """By path: the archive and the pictures."""
    names = {f"/{s}2017/{r['image_id']:012}.jpg" for s, rows in records.items() for r in rows}
    return {_ARCHIVE: pack_records(records)} | {
        name: jpeg(number) for number, name in enumerate(sorted(names))
    }


def fetch(server: DownloadServer, out: Path, **options: Any) -> DownloadSummary:
    reports = options.pop("reports", None)
    options = {"num_parallel": 2} | options
    config = DownloadConfig(dataset="aokvqa", out=out, mirrors=(server.url,), **options)
    nowhere = replace(CATALOGUE.aokvqa, pictures_url="http://127.0.0.1:9")
    catalogue = replace(CATALOGUE, aokvqa=nowhere)
    return download(config, reports, catalogue=catalogue, settings=PATIENCE)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_tables_and_pictures(tmp_path: Path) -> None:
    """Every question once with its answer and its split's picture, each picture fetched once, all
    rationales; nothing is fetched again by a second run.
    """
    records, out = make_records(), tmp_path / "out"
    with serve_files(serve(records)) as server:
        summary = fetch(server, out, num_parallel=8)
        gets = Counter(request.path for request in server.gets())
        assert set(gets) == set(server.files)
        assert set(gets.values()) == {1}
        assert fetch(server, out).was_there
        assert len(server.gets()) == gets.total()
        files = dict(server.files)
    rows = {row["question_id"]: row for row in read_lines(out / "questions.jsonl")}
    assert len(rows) == 20
    for split, expected in records.items():
        for record in expected:
            row = rows[record["question_id"]]
            assert row["split"] == split
            assert row["question"] == record["question"]
            assert row["choices"] == record["choices"]
            assert row["answer"] == record.get("correct_choice_idx")
            assert row["solution"] == (record.get("rationales") or [""])[0]
            assert row["image"] == f"images/{split}2017/{record['image_id']:012}.jpg"
            assert (out / row["image"]).read_bytes() == files[f"/{row['image'][len('images/') :]}"]
    rationales = read_lines(out / "rationales.jsonl")
    assert [(row["question_id"], row["sample"], row["rationale"]) for row in rationales] == [
        (record["question_id"], sample, rationale)
        for split in _SPLITS
        for record in records[split]
        for sample, rationale in enumerate(record.get("rationales", []))
    ]
    data = read_data(out)
    assert data.dataset == "aokvqa"
    assert "Flickr" in data.licence
    assert {q.question_id: q.answer for q in data.questions} == {
        record["question_id"]: record.get("correct_choice_idx")
        for split in _SPLITS
        for record in records[split]
    }
    assert all(image.path.is_file() for image in data.images)
    assert len(data.images) == 20
    table = pl.read_parquet(out / "download.parquet")
    pictures = table.filter(pl.col("path").str.ends_with(".jpg"))
    assert pictures.height == 10
    assert pictures["etag"].null_count() == 0
    assert summary.counts["pictures"] == 10
    assert summary.counts["questions of val"] == 4
    assert summary.nbytes_fetched == sum(map(len, files.values()))


def test_continues_where_it_was(tmp_path: Path) -> None:
    """A host that fails in the middle: the next run fetches only the pictures that are missing."""
    records, out = make_records(), tmp_path / "out"
    with serve_files(serve(records)) as server:
        bad = sorted(path for path in server.files if path.startswith("/train2017"))[3]
        server.behaviours[bad] = Behaviour(status=404)
        with pytest.raises(DownloadError, match=bad[-16:]):
            fetch(server, out, num_parallel=1)
        there = {f"/{p.parent.name}/{p.name}" for p in out.rglob("*.jpg")}
        assert 0 < len(there) < 10
        del server.behaviours[bad]
        server.queue(bad, Behaviour(status=503), Behaviour(cut_after=100))
        num = len(server.gets())
        fetch(server, out)
        again = {request.path for request in server.gets()[num:]}
    assert again == {p for p in server.files if p != _ARCHIVE} - there


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"<html>not here</html>", "expected a JPEG, found 21 bytes"),
        (jpeg(3)[:-30], "it is cut off"),
        (b"\xff\xd8\xff" + bytes(50) + b"\xff\xd9", "is not a picture"),
    ],
)
def test_what_is_no_jpeg_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    """Wrong content with status 200: named by its URL, fetched anew by the next run alone."""
    records, out = make_records(), tmp_path / "out"
    with serve_files(serve(records)) as server:
        bad = next(path for path in server.files if path.startswith("/val2017"))
        server.behaviours[bad] = Behaviour(content=content)
        with pytest.raises(DataError, match=rf"{bad}: .*{expected}"):
            fetch(server, out)
        assert [path.name for path in out.iterdir()] == [".download"]
        del server.behaviours[bad]
        num = len(server.gets())
        fetch(server, out)
        assert [request.path for request in server.gets()[num:]] == [bad]


def test_all_bad_records_are_named(tmp_path: Path) -> None:
    """File, place in the list and reason of each of several faults in several files; no picture is
    fetched and no folder is left.
    """
    records, out = make_records(), tmp_path / "out"
    records["train"][2]["choices"] = ["one"]
    records["train"][5]["image_id"] = "139"
    records["train"][6]["correct_choice_idx"] = 4
    del records["val"][0]["correct_choice_idx"]
    records["val"][1]["question_id"] = "train0000"
    records["val"][2]["rationales"] = "because"
    records["val"][3]["split"] = "train"
    records["test"][1] = ["a", "list"]  # type: ignore[call-overload]
    records["test"][2]["question"] = " "
    with serve_files(serve(make_records())) as server:
        server.files[_ARCHIVE] = pack_records(records)
        with pytest.raises(DataError) as error:
            fetch(server, out)
        assert {request.path for request in server.gets()} == {_ARCHIVE}
    text = str(error.value)
    assert "10 faults:" in text  # an index beyond a broken list of choices is one of its own
    for expected in (
        "aokvqa_v1p0_train.json, record 2: choices is ['one']",
        "aokvqa_v1p0_train.json, record 5: image_id is '139'",
        "aokvqa_v1p0_train.json, record 6: correct_choice_idx is 4",
        "aokvqa_v1p0_val.json, record 0: correct_choice_idx is missing",
        "aokvqa_v1p0_val.json, record 1: question_id 'train0000' is that of "
        "aokvqa_v1p0_train.json, record 0 too",
        "aokvqa_v1p0_val.json, record 2: rationales is 'because'",
        "aokvqa_v1p0_val.json, record 3: split is 'train', expected 'val'",
        "aokvqa_v1p0_test.json, record 1: expected an object",
        "aokvqa_v1p0_test.json, record 2: question is ' '",
    ):
        assert expected in text
    assert not out.exists()


def _replace(name: str, content: bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        files = {f"aokvqa_v1p0_{s}.json": json.dumps(r).encode() for s, r in make_records().items()}
        return pack(files | {name: content})

    return make


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_replace("aokvqa_v1p0_val.json", b'[{"split"'), "aokvqa_v1p0_val.json: not valid JSON"),
        (_replace("aokvqa_v1p0_val.json", b'["\xff"]'), "aokvqa_v1p0_val.json: not valid JSON"),
        (_replace("aokvqa_v1p0_val.json", b"{}"), "expected a JSON list, found dict"),
        (_replace("aokvqa_v1p0_val.json", b"[]"), "found an empty list"),
        (_replace("../outside.json", b"[]"), "outside"),
        (lambda: pack({"readme": b""}), "has no aokvqa_v1p0_train.json"),
        (lambda: pack_records(make_records())[:-200], "aokvqa"),
        (lambda: b"<html>", "aokvqa"),
    ],
)
def test_bad_archives_leave_nothing(
    tmp_path: Path, make: Callable[[], bytes], expected: str
) -> None:
    """Cut or escaping archives, broken JSON: an error, no folder, and then the right one works."""
    out = tmp_path / "folder" / "out"
    with serve_files(serve(make_records())) as server:
        right = server.files[_ARCHIVE]
        server.files[_ARCHIVE] = make()
        with pytest.raises(DataError, match=expected):
            fetch(server, out)
        assert not out.exists()
        assert not list(tmp_path.rglob("outside.json"))
        server.files[_ARCHIVE] = right
        fetch(server, out)


def test_one_split(tmp_path: Path) -> None:
    """Only its pictures are fetched; progress ends with all of them."""
    written: list[tuple[int, int]] = []
    with serve_files(serve(make_records())) as server:
        reports = DownloadReports(written=lambda *numbers: written.append(numbers))
        summary = fetch(server, tmp_path / "out", splits=("val",), reports=reports)
        paths = {request.path for request in server.gets()} - {_ARCHIVE}
    assert paths == {f"/val2017/{139 + n:012}.jpg" for n in range(2)}
    assert written[-1] == (2, 2)
    assert summary.counts["questions"] == 4
