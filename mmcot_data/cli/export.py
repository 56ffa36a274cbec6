"""``mmcot-data export``: a feature set as other programs' files."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from mmcot_data.cli.subcommand import Subcommands, add_subcommand, local_path, progress_bar

if TYPE_CHECKING:
    from mmcot_data.shards.store import ShardStore

__all__ = ["add_parser"]

_Report = Callable[[int, int], None]

_FORMATS = ("npy", "pth", "h5-per-image", "hf-dataset", "hdf5", "arrow")

_EXAMPLES = """\
  for Multimodal-CoT's code:   mmcot-data export shards/detr --to npy --out vision_features
  its vit.pth:                 mmcot-data export shards/vit --to pth --out vision_features
  for VL-T5 and the like:      mmcot-data export shards/clip --to h5-per-image --out clip.h5
  for Hugging Face datasets:   mmcot-data export shards/clip --to hf-dataset --out clip-dataset
  HDF5 to Arrow, and back:     mmcot-data export shards/detr --to arrow --out arrow/detr
  from a bucket:               mmcot-data export s3://bucket/shards/detr --to hdf5 --out shards/detr

What is written:
  npy, pth       OUT/<encoder>.npy or .pth, a row for each question, and OUT/name_map.json
  h5-per-image   the file OUT: for each question id a group with features, boxes, img_w, img_h
  hf-dataset     the folder OUT, for datasets.load_from_disk: a row for each question and image role
  hdf5, arrow    the feature set OUT, as extraction in that format would have written it

Values are copied bit by bit, and each row's checksum is compared. Nothing is overwritten.
`mmcot-data import` reads the first four back.
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "export",
        _run,
        summary="Write a feature set as files of other programs, or in the other container.",
        examples=_EXAMPLES,
    )
    parser.add_argument("features", metavar="DIR", help="feature set: a folder or its URL")
    parser.add_argument("--to", required=True, choices=_FORMATS, help="see below")
    parser.add_argument("--out", type=local_path, required=True, help="file or folder, see below")
    parser.add_argument(
        "--roles",
        type=_roles,
        metavar="ROLE,…",
        help="npy, pth, h5-per-image: the image roles of which the first that a question has is "
        "taken (default: question,choice_0)",
    )
    parser.add_argument(
        "--share-rows",
        action="store_true",
        help="npy, pth: give questions with the same picture the same row",
    )


def _roles(text: str) -> tuple[str, ...]:
    from mmcot_data.shards.places import check_roles

    roles = tuple(text.split(","))
    try:
        check_roles(roles)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return roles


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.shards.store import open_store

    to, out = arguments.to, arguments.out
    if arguments.roles is not None and to not in ("npy", "pth", "h5-per-image"):
        arguments.fail(f"--roles does not go with --to {to}, which takes all pictures")
    if arguments.share_rows and to not in ("npy", "pth"):
        arguments.fail(f"--share-rows does not go with --to {to}")
    if to in ("npy", "pth") and out.suffix in (".npy", ".pth"):
        arguments.fail(f"--out {out}: expected the folder that gets the array and name_map.json")
    write = {
        "npy": _export_array,
        "pth": _export_array,
        "h5-per-image": _export_groups,
        "hf-dataset": _export_dataset,
    }.get(to, _convert)
    store = open_store(arguments.features)
    with progress_bar(to, "rows") as report:
        summary = write(store, arguments, report)
    print(summary)
    return 0


def _export_array(store: "ShardStore", arguments: argparse.Namespace, report: _Report) -> str:
    from mmcot_data.interchange import export_array
    from mmcot_data.interchange.stored_rows import REFERENCE_ROLES

    done = export_array(
        store,
        arguments.out,
        arguments.to,
        roles=arguments.roles or REFERENCE_ROLES,
        share_rows=arguments.share_rows,
        on_progress=report,
    )
    text = (
        f"{done.path}: {done.num_questions} questions, {store.spec.dtype} of shape {done.shape}; "
        f"{done.name_map} says which row is whose"
    )
    if done.num_padded:
        text += f"; {done.num_padded} rows are padded, which an array cannot say"
    return text


def _export_groups(store: "ShardStore", arguments: argparse.Namespace, report: _Report) -> str:
    from mmcot_data.interchange import export_group_file
    from mmcot_data.interchange.stored_rows import REFERENCE_ROLES

    done = export_group_file(
        store, arguments.out, roles=arguments.roles or REFERENCE_ROLES, on_progress=report
    )
    text = (
        f"{arguments.out}: {done.num_questions} questions, {done.num_pictures} pictures; read one "
        "as h5py.File(…)['<question id>/features']"
    )
    if done.num_unsized:
        text += (
            f"; {done.num_unsized} pictures have no img_w, img_h and boxes, because their size is "
            "not known: `mmcot-data import --data DATA` finds it"
        )
    return text


def _export_dataset(store: "ShardStore", arguments: argparse.Namespace, report: _Report) -> str:
    from mmcot_data.interchange import export_hf_dataset

    num_rows = export_hf_dataset(store, arguments.out, report)
    return f"{arguments.out}: {num_rows} rows; read them with datasets.load_from_disk"


def _convert(store: "ShardStore", arguments: argparse.Namespace, report: _Report) -> str:
    from mmcot_data.interchange import convert_feature_set

    manifest = convert_feature_set(store, arguments.out, arguments.to, report)
    nbytes = sum(record.file_nbytes for record in manifest.shards)
    return (
        f"{arguments.out}: {manifest.rows} rows in {len(manifest.shards)} {arguments.to} shards, "
        f"{nbytes / 1e6:.1f} MB; open_features reads it, and `mmcot-train --features "
        f"{arguments.out}` where questions.parquet stands beside it"
    )
