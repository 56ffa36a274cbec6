"""A drawn data set as ScienceQA's hosts have it: texts on GitHub, parquet on the hub, zips on S3.

``Copies`` is the content, which tests damage; ``serve_copies`` puts it on local servers: one under
the paths of GitHub, S3 and the hub, and one that the hub redirects to. The first is meant to be
given as a mirror: a mirror has the paths of the real hosts.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from download_server import Behaviour, DownloadServer, serve_files

from mmcot_data.downloads.catalogue import CATALOGUE, Catalogue
from mmcot_data.downloads.fetch_settings import FetchSettings

HUB_SCHEMA = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "question": pa.string(),
        "choices": pa.list_(pa.string()),
        "answer": pa.int8(),
        "hint": pa.string(),
        "task": pa.string(),
        "grade": pa.string(),
        "subject": pa.string(),
        "topic": pa.string(),
        "category": pa.string(),
        "skill": pa.string(),
        "lecture": pa.string(),
        "solution": pa.string(),
    }
)
"""The columns of derek-thomas/ScienceQA, in order."""

PATIENCE = FetchSettings(
    connect_timeout=2.0, read_timeout=2.0, num_tries=4, num_connect_tries=1, first_delay=0.01
)
TEXTS = {
    name: f"/lupantech/ScienceQA/main/{path}"
    for name, path in CATALOGUE.scienceqa.text_paths.items()
}
REVISION = CATALOGUE.scienceqa.hub_revision
PARQUET = {file.split: Path(file.path).name for file in CATALOGUE.scienceqa.hub_files}


class Copies:
    """What the hosts have, read from a drawn data set; free to be changed."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.texts = {name: (data / name).read_bytes() for name in TEXTS}
        problems = json.loads(self.texts["problems.json"])
        self.ids: dict[str, list[str]] = json.loads(self.texts["pid_splits.json"])
        self.rows: dict[str, list[dict[str, Any]]] = {
            split: [self._row(problems, question_id) for question_id in self.ids[split]]
            for split in PARQUET
        }
        self.schema = HUB_SCHEMA

    def _row(self, problems: dict[str, Any], question_id: str) -> dict[str, Any]:
        record = problems[question_id]
        row = {name: record[name] for name in HUB_SCHEMA.names}
        if record["image"] is not None:
            path = self.data / "images" / record["split"] / question_id / "image.png"
            row["image"] = {"bytes": path.read_bytes(), "path": "image.png"}
        return row

    def parquet(self, split: str) -> bytes:
        """The hub's file of a split."""
        table = pa.Table.from_pylist(self.rows[split], schema=self.schema)
        out = io.BytesIO()
        pq.write_table(table, out, row_group_size=16)
        return out.getvalue()

    def zip(self, split: str, top: str | None = None) -> bytes:
        """The authors' zip of a split, with its pictures in the folder ``top``."""
        out = io.BytesIO()
        base = self.data / "images" / split
        with zipfile.ZipFile(out, "w") as archive:
            for path in sorted(base.rglob("*.png")):
                name = path.relative_to(base).as_posix()
                archive.write(path, f"{top}/{name}" if top else name)
        return out.getvalue()

    def set_records(self, changes: dict[str, dict[str, Any]]) -> None:
        """Change records by question id, in problems.json and on the hub."""
        problems = json.loads(self.texts["problems.json"])
        for question_id, change in changes.items():
            problems[question_id] |= change
            split = problems[question_id]["split"]
            row = self.rows[split][self.ids[split].index(question_id)]
            row |= {name: value for name, value in change.items() if name in row}
        self.texts["problems.json"] = json.dumps(problems).encode()

    def catalogue(self) -> Catalogue:
        """What would be published about this data set."""
        problems = json.loads((self.data / "problems.json").read_bytes())
        with_picture = {
            split: sum(problems[i]["image"] is not None for i in self.ids[split])
            for split in PARQUET
        }
        train = hashlib.sha256(self.parquet("train")).hexdigest()
        scienceqa = CATALOGUE.scienceqa
        return replace(
            CATALOGUE,
            scienceqa=replace(
                scienceqa,
                num_questions={split: len(self.ids[split]) for split in PARQUET},
                num_with_picture=with_picture,
                hub_files=tuple(
                    replace(file, about_nbytes=100_000, sha256=file.sha256 and train)
                    for file in scienceqa.hub_files
                ),
                archive_about_nbytes=dict.fromkeys(PARQUET, 100_000),
            ),
        )


@dataclass
class Hosts:
    """Local servers."""

    main: DownloadServer
    cdn: DownloadServer
    """What the hub redirects to."""

    @property
    def mirror(self) -> str:
        """To be given as a mirror."""
        return self.main.url

    def num_gets(self) -> int:
        """Requests for content that came so far, to both."""
        return len(self.main.gets()) + len(self.cdn.gets())


def hub_path(split: str, revision: str = REVISION) -> str:
    """Where the hub has a split's file."""
    return f"/datasets/derek-thomas/ScienceQA/resolve/{revision}/data/{PARQUET[split]}"


@contextmanager
def serve_copies(copies: Copies, *, with_zips: bool = False) -> Iterator[Hosts]:
    """Serve what the copies hold now, for as long as the block."""
    with serve_files({}) as main, serve_files({}) as cdn:
        for name, path in TEXTS.items():
            main.files[path] = copies.texts[name]
        for split, name in PARQUET.items():
            content = copies.parquet(split)
            cdn.files[f"/{name}"] = content
            main.behaviours[hub_path(split)] = to_cdn(cdn, name, content, REVISION)
            if with_zips:
                main.files[f"/images/{split}.zip"] = copies.zip(split, top=split)
        yield Hosts(main, cdn)


def to_cdn(cdn: DownloadServer, name: str, content: bytes, revision: str) -> Behaviour:
    """How the hub answers for a large file: where it is, how large, and its digest."""
    return Behaviour(
        redirect=f"{cdn.url}/{name}",
        headers={
            "X-Repo-Commit": revision,
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
        },
    )
