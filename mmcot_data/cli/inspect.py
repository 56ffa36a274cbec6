"""``mmcot-data inspect``: what a feature set holds."""

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmcot_data.cli.inspect_tables import print_list, print_statistics, print_summary
from mmcot_data.cli.subcommand import Subcommands, add_subcommand, progress_bar
from mmcot_data.errors import DataError, ShardError

if TYPE_CHECKING:
    import polars as pl

    from mmcot_data.inspection import FeatureStatistics, PictureFeatures
    from mmcot_data.shards.store import ShardStore

__all__ = ["add_parser"]

_EXAMPLES = """\
  what made it, what it holds:   mmcot-data inspect shards/detr
  all feature sets of a root:    mmcot-data inspect shards
  of someone else:               mmcot-data inspect s3://bucket/shards/detr
  mean, spread, NaN:             mmcot-data inspect shards/detr --statistics
  what the patches tell apart:   mmcot-data inspect shards/vit --pictures vit.png \\
                                   --data data/scienceqa
  of some questions:             mmcot-data inspect shards/vit --pictures vit.png \\
                                   --data data/scienceqa --question 42 --question 7
  everything, for a script:      mmcot-data inspect shards/detr --statistics --json detr.json

Without --statistics and --pictures no shard is read: the answer comes from manifest.json and
index.parquet. `mmcot-data verify` compares the shards with their checksums.
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "inspect",
        _run,
        summary="Show what made a feature set and what it holds, in numbers and pictures.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "dir", metavar="DIR", help="feature set (folder or URL), or artifact root with several"
    )
    parser.add_argument(
        "--statistics",
        action="store_true",
        help="read all features; values that are NaN or infinite are an error",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it as JSON")
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--pictures",
        type=Path,
        metavar="FILE",
        help="draw the principal components of the patches as colours, as PNG",
    )
    pictures.add_argument(
        "--data", type=Path, help="data set of the extraction, to draw its pictures beside them"
    )
    pictures.add_argument(
        "--num-pictures", type=int, default=6, help="spread over the set (default: %(default)s)"
    )
    pictures.add_argument(
        "--question",
        action="append",
        metavar="ID",
        help="the pictures of this question instead; may be given several times",
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.files import write_json
    from mmcot_data.inspection.summary import find_feature_sets, list_feature_set
    from mmcot_data.shards.remote import is_remote

    if arguments.pictures is None and (arguments.data is not None or arguments.question):
        arguments.fail("--data and --question need --pictures FILE")
    if arguments.pictures is not None and arguments.pictures.suffix != ".png":
        arguments.fail(f"--pictures {arguments.pictures}: expected a name that ends in .png")
    if arguments.data is not None and not arguments.data.exists():
        arguments.fail(f"--data {arguments.data} does not exist")
    if arguments.num_pictures < 1:
        arguments.fail(f"--num-pictures is {arguments.num_pictures}, expected at least 1")
    folders = [] if is_remote(arguments.dir) else find_feature_sets(Path(arguments.dir))
    if not folders:
        return _inspect(arguments)
    if arguments.statistics or arguments.pictures is not None:
        names = ", ".join(str(folder) for folder in folders)
        arguments.fail(f"--statistics and --pictures are of one feature set: give one of {names}")
    listed = [list_feature_set(folder) for folder in folders]
    print_list(arguments.dir, listed)
    if arguments.json is not None:
        write_json(arguments.json, [asdict(item) for item in listed])
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from mmcot_data.files import write_json
    from mmcot_data.inspection.summary import summarize_features
    from mmcot_data.shards.store import open_store

    store = open_store(arguments.dir)
    index = store.read_index()
    summary = summarize_features(store, index)
    print_summary(summary)
    found = asdict(summary) | {"shards": [asdict(record) for record in store.manifest.shards]}
    statistics = None
    if arguments.statistics:
        statistics = _statistics(store)
        print_statistics(statistics)
        found["statistics"] = _as_json(asdict(statistics))
    if arguments.json is not None:
        write_json(arguments.json, found)
    if statistics is not None and statistics.num_not_finite:
        raise ShardError(_explain_not_finite(store, index, statistics))
    if arguments.pictures is not None:
        _draw(arguments, store, index)
    return 0


def _statistics(store: "ShardStore") -> "FeatureStatistics":
    from mmcot_data.inspection import feature_statistics

    with progress_bar("statistics", "rows") as report:
        return feature_statistics(_blocks(store), lambda done: report(done, store.manifest.rows))


def _blocks(store: "ShardStore") -> Iterator[npt.NDArray[np.floating[Any]]]:
    """The rows of one shard after the other, compared with their checksums."""
    for start, record in zip(store.mapped.starts, store.mapped.records, strict=True):
        store.mapped.prepare(np.arange(start, start + record.rows))
        yield store.mapped.rows[start : start + record.rows]


def _explain_not_finite(
    store: "ShardStore", index: "pl.DataFrame", statistics: "FeatureStatistics"
) -> str:
    from mmcot_data.shards.shard_verification import questions_of

    places = []
    for number, row in statistics.not_finite_rows:
        record = store.manifest.shards[number]
        ids = ", ".join(questions_of(index, record, [row])) or "none"
        places.append(f"row {row} of {record.file} (question {ids})")
    return (
        f"{store.location}: {statistics.num_not_finite} values are NaN or infinite, first in "
        f"{', '.join(places)}; make the feature set anew"
    )


def _as_json(value: Any) -> Any:
    """Arrays as lists, and numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _draw(arguments: argparse.Namespace, store: "ShardStore", index: "pl.DataFrame") -> None:
    from mmcot_data.inspection import draw_feature_maps

    pictures = _choose_pictures(store, index, arguments)
    draw_feature_maps(arguments.pictures, store.spec, pictures, arguments.data)
    print(f"{arguments.pictures}: {len(pictures)} pictures")


def _choose_pictures(
    store: "ShardStore", index: "pl.DataFrame", arguments: argparse.Namespace
) -> "list[PictureFeatures]":
    """Those of the questions asked for; else distinct ones, spread evenly over the index."""
    import polars as pl

    from mmcot_data.inspection import PictureFeatures

    chosen = index.filter(pl.col("row").is_not_null())
    if arguments.question:
        if absent := sorted(set(arguments.question) - set(chosen["question_id"])):
            raise DataError(
                f"{store.location} has no features of the questions {', '.join(absent)}"
            )
        chosen = chosen.filter(pl.col("question_id").is_in(arguments.question))
    else:
        chosen = chosen.unique(["number", "row"], keep="first", maintain_order=True)
        num = min(arguments.num_pictures, chosen.height)
        chosen = chosen[np.linspace(0, chosen.height - 1, num).round().astype(np.int64)]
    if chosen.is_empty():
        raise DataError(f"{store.location} has no features: there is nothing to draw")
    columns = ["width", "height"] + ["file", "image_sha256"] * (arguments.data is not None)
    unknown = chosen.filter(pl.any_horizontal(pl.col(columns).is_null()))
    if unknown.height:
        raise DataError(
            f"{store.location}: index.parquet does not say the {' and '.join(columns)} of the "
            f"picture of question {unknown['question_id'][0]!r}: it was imported without the data "
            "set; import it again with --data"
        )
    rows = store.mapped.starts[chosen["number"].to_numpy()] + chosen["row"].to_numpy()
    store.mapped.prepare(rows)
    names = ("question_id", "role", "width", "height", "image_sha256", "file")
    return [
        PictureFeatures(features=store.mapped.rows[row], **picture)
        for row, picture in zip(rows, chosen.select(names).to_dicts(), strict=True)
    ]
