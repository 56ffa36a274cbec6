"""``mmcot-data import``: a feature set from files that other programs wrote."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mmcot_data.cli.subcommand import Subcommands, add_subcommand, local_path, progress_bar
from mmcot_data.shards.schema import Container

if TYPE_CHECKING:
    from mmcot_data.interchange import FeatureFile, ImportSummary

__all__ = ["add_parser"]

_EXAMPLES = """\
  Multimodal-CoT's files:   mmcot-data import vision_features/detr.npy --encoder detr \\
                              --name-map data/name_map.json --data data/scienceqa --out shards
                            mmcot-data import vision_features/vit.pth --encoder vit \\
                              --name-map data/name_map.json --grid 12,12 --out shards
  features of VL-T5:        mmcot-data import train_obj36.h5 --encoder frcnn \\
                              --question-map pictures.json --out shards
  what export wrote:        mmcot-data import detr.h5 --out shards
                            mmcot-data import clip-dataset --out shards

Read by memory map and stored bit by bit, as float16 or float32 as they are. The name map is a JSON
object, as {"1": "0", "2": "1"}: the row of each question id. An import that was interrupted is
continued by the same command.
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "import",
        _run,
        summary="Make a feature set of features that another program computed.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help=".npy; .pth with one tensor; .h5 with a group for each picture; or the folder of a "
        "Hugging Face dataset",
    )
    parser.add_argument("--out", type=local_path, required=True, help="artifact root")
    rows = parser.add_argument_group("which features are whose")
    rows.add_argument(
        "--name-map",
        type=Path,
        metavar="JSON",
        help=".npy, .pth: row by question id (default: name_map.json beside FILE)",
    )
    rows.add_argument(
        "--question-map",
        type=Path,
        metavar="JSON",
        help=".h5: name of the group by question id (default: the names are question ids)",
    )
    rows.add_argument(
        "--data",
        type=Path,
        help="the data set, in ScienceQA's layout or a table of questions: gives image roles, the "
        "pictures' digests and sizes, the licence, and questions.parquet",
    )
    _add_claims(parser)
    storage = parser.add_argument_group("storage")
    storage.add_argument("--format", choices=get_args(Container), default="hdf5")
    storage.add_argument(
        "--shard-size",
        type=_positive,
        metavar="ROWS",
        help="default: 256 MiB, 1,024 rows at most; more where there would be over 16,384 shards",
    )


def _add_claims(parser: argparse.ArgumentParser) -> None:
    claims = parser.add_argument_group(
        "what made the features",
        "Written into the spec as you say it. An .h5 or a dataset that `export` wrote knows it.",
    )
    claims.add_argument("--encoder", metavar="NAME", help="detr, clip, vit, resnet or any other")
    claims.add_argument("--model-id", help="of the weights (default: unknown)")
    claims.add_argument("--revision", help="of the weights")
    claims.add_argument("--layer", help="(default: unknown)")
    claims.add_argument(
        "--grid",
        type=_grid,
        metavar="R,C",
        help="the last R x C patches lie on a grid over the picture, row by row",
    )
    claims.add_argument(
        "--licence", help="of the pictures (default: that of the data set, else unknown)"
    )


def _positive(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _grid(text: str) -> tuple[int, int]:
    rows, comma, columns = text.partition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"{text!r} is not R,C, as 12,12")
    return _positive(rows), _positive(columns)


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.interchange import Claims, import_features

    file = _open(arguments)
    claims = Claims(
        encoder=arguments.encoder,
        model_id=arguments.model_id,
        revision=arguments.revision,
        layer=arguments.layer,
        grid=arguments.grid,
        data_licence=arguments.licence,
    )
    with progress_bar("import", "rows") as report:
        summary = import_features(
            file,
            arguments.out,
            claims,
            data=arguments.data,
            container=arguments.format,
            shard_size=arguments.shard_size,
            on_progress=report,
        )
    _print_summary(summary, arguments.out)
    return 0


def _open(arguments: argparse.Namespace) -> "FeatureFile":
    from mmcot_data.interchange import open_array_file, open_group_file, open_hf_dataset

    path = arguments.file
    is_array = path.suffix in (".npy", ".pth", ".pt")
    is_group = path.suffix in (".h5", ".hdf5")
    if arguments.name_map is not None and not is_array:
        arguments.fail(f"--name-map is for .npy and .pth, not for {path}")
    if arguments.question_map is not None and not is_group:
        arguments.fail(f"--question-map is for .h5, not for {path}")
    if is_array:
        return open_array_file(path, arguments.name_map or path.with_name("name_map.json"))
    if is_group:
        return open_group_file(path, arguments.question_map)
    if (path / "manifest.json").exists():
        arguments.fail(f"{path} is a feature set already: `mmcot-data export` converts it")
    if not path.is_dir():
        arguments.fail(f"{path} is no .npy, .pth or .h5, and no folder of a dataset")
    return open_hf_dataset(path)


def _print_summary(summary: "ImportSummary", out: Path) -> None:
    text = (
        f"{summary.folder}: {summary.num_questions} questions, {summary.num_rows} rows of "
        f"{summary.spec.row_shape} {summary.spec.dtype} in {summary.num_shards} "
        f"shard{'s' if summary.num_shards != 1 else ''}, {summary.nbytes / 1e6:.1f} MB; "
    )
    if (out / "questions.parquet").exists():
        text += f"train with `mmcot-train --features {summary.folder}`"
    else:
        text += f"`mmcot-data questions DATA --out {out}` adds the questions, to train with them"
    print(text)
    for count, what in (
        (summary.num_unused, "rows are of no question; they are stored all the same"),
        (
            summary.num_unknown,
            "questions are not in the data set: their image role is `question` and their pictures "
            "are not known",
        ),
        (summary.num_missing, "pictures are not in the data set: their digest is not known"),
    ):
        if count:
            print(f"mmcot-data: {count} {what}", file=sys.stderr)
