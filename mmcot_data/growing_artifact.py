"""A text artifact that is made row by row, and goes on where it was after any stop.

Rows are appended to the journal ``<kind>/.<producer>.journal.jsonl`` as they come, each append
flushed to the disk. Its first line holds the settings that the rows are made with, every other line
a row. ``finish`` writes the rows to ``<producer>.parquet`` in one step and removes the journal. A
finished artifact can grow later, by the same settings: rows that it has are not made again.
"""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.errors import DataError
from mmcot_data.files import disk_errors_explained, sync_folder
from mmcot_data.text_artifacts import (
    locked_artifact,
    read_artifact,
    read_made_by,
    write_artifact,
)

__all__ = ["GrowingArtifact", "Key", "Row", "grow_artifact"]

Key = tuple[str | int, ...]
"""The values of the columns that name a row, such as (question id, role)."""
Row = Mapping[str, Any]
"""Values by column, such as JSON can hold."""


class GrowingArtifact:
    """The rows so far. Made by ``grow_artifact``."""

    def __init__(
        self, path: Path, schema: pl.Schema, key: Sequence[str], settings: dict[str, Any]
    ) -> None:
        self.path = path
        self.settings = settings
        self._schema = schema
        self._key = tuple(key)
        self._journal = path.with_name(f".{path.stem}.journal.jsonl")
        self._rows: dict[Key, Row] = {}
        self._written: dict[str, Any] | None = None
        """What made the finished table, while its rows are all that there are."""
        if path.is_file():
            self._take_table()
        self._take_journal()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def __getitem__(self, key: Key) -> Row:
        return self._rows[key]

    @property
    def notes(self) -> dict[str, Any] | None:
        """What the finished table says of its making beside the settings; None if rows changed."""
        if self._written is None:
            return None
        return {name: value for name, value in self._written.items() if name != "settings"}

    def rows(self) -> list[Row]:
        """All rows, in no order."""
        return list(self._rows.values())

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows; when this returns they are on the disk. A row replaces one of its key.

        Raises:
            DataError: If a row has other columns than the artifact.
        """
        rows = list(rows)
        for row in rows:
            if row.keys() != self._schema.keys():
                raise DataError(
                    f"{self.path}: expected rows of {', '.join(self._schema)}; "
                    f"found {', '.join(row)}"
                )
        is_new = not self._journal.exists()
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        if is_new:
            lines.insert(0, json.dumps({"settings": self.settings}, ensure_ascii=False))
        with (
            disk_errors_explained(self._journal),
            self._journal.open("a", encoding="utf-8", newline="") as file,
        ):
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(self._journal.parent)
        self._rows |= {self._key_of(row): row for row in rows}
        self._written = None

    def discard(self, keys: Collection[Key]) -> None:
        """Forget rows that are to be made anew; on the disk they stay until they are replaced."""
        for key in keys:
            if self._rows.pop(key, None) is not None:
                self._written = None

    def refuse_unknown(self, question_ids: Collection[str]) -> None:
        """See that all rows so far are of known questions; best before costly rows are made.

        Raises:
            DataError: If one is not.
        """
        unknown = sorted({str(key[0]) for key in self._rows} - set(question_ids))
        if unknown:
            raise DataError(
                f"{self.path} has rows of {len(unknown)} questions that are not in the artifact "
                f"root's questions.parquet any more, the first is {unknown[0]!r}: choose another "
                "name, or delete the file to begin anew"
            )

    def finish(self, rank: Mapping[str, int], notes: Mapping[str, Any]) -> None:
        """Write the table, and remove the journal. If the table is as it should be, do nothing.

        Args:
            rank: Place of each question, by question id: the order of the table.
            notes: What else to say about its making; stands beside ``settings`` in ``made_by``.

        Raises:
            DataError: If a row is of another question.
        """
        made_by = {"settings": self.settings, **notes}
        if self._written != made_by:
            self.refuse_unknown(rank)
            rows = sorted(self._rows.items(), key=lambda item: (rank[str(item[0][0])], item[0][1:]))
            table = pl.DataFrame([row for _, row in rows], schema=self._schema)
            write_artifact(self.path, table, self._key, made_by)
            self._written = made_by
        self._journal.unlink(missing_ok=True)

    def _key_of(self, row: Row) -> Key:
        return tuple(row[name] for name in self._key)

    def _take_table(self) -> None:
        made_by = read_made_by(self.path)
        self._check_settings(self.path, made_by.get("settings"))
        others = [name for name in self._schema if name not in self._key]
        table = read_artifact(self.path, self._schema, self._key, nullable=others)
        self._rows = {self._key_of(row): row for row in table.iter_rows(named=True)}
        self._written = made_by

    def _take_journal(self) -> None:
        if not self._journal.is_file():
            return
        content = self._journal.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # the last append was cut off
            os.truncate(self._journal, len(whole))
        if not whole:
            self._journal.unlink()
            return
        try:
            header, *rows = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise self._damaged(str(error)) from error
        self._check_settings(
            self._journal, header.get("settings") if isinstance(header, dict) else None
        )
        for row in rows:
            if not isinstance(row, dict) or row.keys() != self._schema.keys():
                raise self._damaged("a line has other columns")
        try:
            pl.DataFrame(rows, schema=self._schema)
        except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
            raise self._damaged(f"a line has other values: {error}") from error
        self._rows |= {self._key_of(row): row for row in rows}
        if rows:
            self._written = None

    def _damaged(self, why: str) -> DataError:
        return DataError(
            f"{self._journal} is damaged ({why}): delete it to make its rows anew; "
            "finished tables are not touched"
        )

    def _check_settings(self, path: Path, found: object) -> None:
        if not isinstance(found, dict):
            raise DataError(
                f"{path} was not made by this command; choose another name for what is to be "
                "made, or delete the file"
            )
        was, now = _flat(found), _flat(self.settings)
        different = [
            f"{name} was {was.get(name)!r}, now {now.get(name)!r}"
            for name in sorted(was.keys() | now.keys())
            if was.get(name) != now.get(name)
        ]
        if different:
            what = path if path == self.path else f"{self.path} (unfinished, in {path.name})"
            raise DataError(
                f"{what} was made with other settings ({'; '.join(different)}): give the same to "
                f"continue it, choose another name (--producer), or delete {path} to begin anew"
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under names such as ``generation.num_beams``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@contextmanager
def grow_artifact(
    path: Path, schema: pl.Schema, key: Sequence[str], settings: Mapping[str, Any]
) -> Iterator[GrowingArtifact]:
    """Open an artifact to add rows, for one process at a time.

    Args:
        path: ``<artifact root>/<kind>/<producer>.parquet``.
        schema: Its columns.
        key: Those that name a row; the question id comes first.
        settings: What decides the rows, such as JSON can hold. The artifact can only be continued
            with equal ones.

    Raises:
        DataError: If the artifact was made with other settings, is damaged, or another process
            is making it.
    """
    with locked_artifact(path):
        yield GrowingArtifact(path, schema, key, json.loads(json.dumps(settings)))
