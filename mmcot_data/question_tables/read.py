"""Read a table of questions whole, or say everything that is wrong with it."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmcot_data.errors import DataError
from mmcot_data.question_tables.about import About, read_about
from mmcot_data.question_tables.columns import check_columns, is_known
from mmcot_data.question_tables.csv_rows import read_csv
from mmcot_data.question_tables.faults import TableFaults
from mmcot_data.question_tables.find import PARQUET
from mmcot_data.question_tables.jsonl_rows import read_jsonl
from mmcot_data.question_tables.parquet_rows import read_parquet
from mmcot_data.question_tables.raw import RawTable
from mmcot_data.question_tables.rows import RowReader, TableRow
from mmcot_data.question_tables.splits import SplitShares
from mmcot_data.questions import SPLITS, Question
from mmcot_data.scienceqa import QuestionImage, ScienceQA
from mmcot_data.sources.markers import TABLE_SUFFIXES
from mmcot_data.text_artifacts import artifact_path

__all__ = ["QuestionTable", "read_question_table"]

_DEFAULT_SHARES = SplitShares(80, 10, 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionTable:
    """A table of questions, and what was made of it that it does not say itself."""

    path: Path
    data: ScienceQA
    unused_columns: tuple[str, ...]
    """Columns that nothing was read from."""
    assigned_splits: SplitShares | None
    """The shares by which splits were assigned; None where the table names the splits."""
    made_ids: bool
    """The question ids were made of the questions' content: the table has none."""


def read_question_table(path: Path, *, split_shares: str | None = None) -> QuestionTable:
    """Read questions from CSV, JSON lines or parquet; docs/own-data.md has the columns.

    A question is known by its ``question_id``, or else by a hash of its content. Where the table
    names no splits they are assigned by a hash of the picture's path, or of the question id where
    there is no picture: all questions about one picture are in one split, and rows that are added
    move no others.

    Args:
        path: The table: ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
        split_shares: Percentages of train, val and test, as ``80/10/10``, where the table names no
            splits. None takes those of dataset.json, else 80/10/10.

    Raises:
        DataError: If anything is wrong with the table: all faults are counted, and the first 20
            named with line (or row) and column. If split shares are given, and it names the splits.
        OSError: If reading fails.
    """
    suffix = path.suffix.lower()
    if suffix not in (*TABLE_SUFFIXES, PARQUET):
        expected = ", ".join((*TABLE_SUFFIXES, PARQUET))
        raise DataError(f"{path}: expected a table of questions, a file that ends in {expected}")
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a table of questions")
    about = read_about(path)
    shares = about.split_shares or _DEFAULT_SHARES
    if split_shares is not None:
        shares = SplitShares.parse(split_shares, "split shares")

    faults = TableFaults(path, by_row=suffix == PARQUET)
    raw = _READERS[suffix](path, faults)
    headers = [raw.header] if raw.header is not None else [row.cells for row in raw.rows]
    columns = dict.fromkeys(name for header in headers for name in header)
    rows = _read_rows(raw, [name for name in columns if is_known(name)], path.parent, faults)
    if not raw.rows and not len(faults):
        faults.add(None, None, "expected at least one question, found none")
    faults.check()
    if split_shares is not None and "split" in columns:
        raise DataError(f"{path} has a column split: leave out the split shares, or the column")
    return QuestionTable(
        path=path,
        data=_assemble(path, about, rows, shares),
        unused_columns=tuple(column for column in columns if not is_known(column)),
        assigned_splits=None if "split" in columns else shares,
        made_ids="question_id" not in columns,
    )


_READERS = dict.fromkeys(TABLE_SUFFIXES, read_csv) | {".jsonl": read_jsonl, PARQUET: read_parquet}


def _read_rows(
    raw: RawTable, columns: Collection[str], folder: Path, faults: TableFaults
) -> list[TableRow]:
    reader = RowReader(columns, raw.convert, folder, faults)
    check = cache(check_columns)

    def check_names(names: Iterable[str], place: int | None) -> frozenset[str]:
        missing, found = check(tuple(names))
        for column, message in found:
            faults.add(place, column, message)
        return missing

    missing = check_names(raw.header, raw.header_place) if raw.header is not None else None
    rows = (
        reader.read(record, check_names(record.cells, record.place) if missing is None else missing)
        for record in raw.rows
    )
    return [row for row in rows if row is not None]


def _assemble(path: Path, about: About, rows: Sequence[TableRow], shares: SplitShares) -> ScienceQA:
    """The data set of all rows; a position is a row's place among those of its split."""
    by_split: dict[str, list[TableRow]] = {split: [] for split in SPLITS}
    for row in rows:
        by_split[row.split or shares.assign(row.key)].append(row)
    captions = {row.question_id: row.caption for row in rows if row.caption}
    if captions:
        _check_producer(path, about.name)
    return ScienceQA(
        dataset=about.name,
        licence=about.licence,
        questions=[
            Question(
                dataset=about.name,
                question_id=row.question_id,
                split=split,
                position=position,
                choices=row.choices,
                answer=row.answer,
                has_image="question" in row.pictures,
                image_roles=tuple(row.pictures),
                **row.texts,
            )
            for split, members in by_split.items()
            for position, row in enumerate(members)
        ],
        images=[
            QuestionImage(question_id=row.question_id, role=role, path=path.parent / picture)
            for members in by_split.values()
            for row in members
            for role, picture in row.pictures.items()
        ],
        captions=captions or None,
    )


def _check_producer(path: Path, dataset: str) -> None:
    """See that captions/<data set>.parquet can be written."""
    try:
        artifact_path(Path(), "captions", dataset)
    except DataError as error:
        raise DataError(
            f"{path}: its captions are kept under the data set's name, and {dataset!r} can't be "
            f"the name of a file: {error}. Name the data set in {path.parent / 'dataset.json'}, as "
            '{"name": "birds", "licence": "CC0"}'
        ) from error
