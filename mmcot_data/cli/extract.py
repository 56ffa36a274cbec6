"""``mmcot-data extract``: from pictures to feature shards, without an orchestrator."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mmcot_data.cli.subcommand import Subcommands, add_subcommand, local_path, progress_bar
from mmcot_data.encoders import ENCODERS, Precision
from mmcot_data.questions import split_names
from mmcot_data.shards.schema import Container, StorageDtype

if TYPE_CHECKING:
    from mmcot_data.extraction import ExtractionConfig, ExtractionSummary

__all__ = ["add_parser"]

_SOME_FAILED = 3

_EXAMPLES = """\
  no download:         mmcot-data extract sample --encoder tiny --out shards
  three feature sets:  mmcot-data extract data/scienceqa --encoder detr --encoder clip \\
                         --encoder vit --out shards
  a local model:       mmcot-data extract data/scienceqa --encoder clip --model models/clip \\
                         --format arrow --out shards
  pictures missing:    mmcot-data extract data/scienceqa --encoder vit --split test \\
                         --max-failures 5% --out shards

Interrupted or killed, the same command continues. Exit code 3: done, but some pictures have no
features; they are listed in index.parquet with the reason.
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "extract",
        _run,
        summary="Compute patch features of all pictures and write them as shards.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="data set in ScienceQA's official layout"
    )
    parser.add_argument("--out", type=local_path, required=True, help="artifact root")
    _add_encoder_arguments(parser)
    _add_storage_arguments(parser)


def _add_encoder_arguments(parser: argparse.ArgumentParser) -> None:
    encoder = parser.add_argument_group("encoder")
    encoder.add_argument(
        "--encoder",
        action="append",
        required=True,
        metavar="NAME",
        help=f"{', '.join(ENCODERS)} or hf:<model id>; may be given several times",
    )
    encoder.add_argument("--model", help="local folder or hub id instead of the encoder's own")
    encoder.add_argument("--revision", help="hub revision: branch, tag or commit")
    encoder.add_argument(
        "--random-weights",
        type=int,
        metavar="SEED",
        help="draw the weights instead of loading them, for trials",
    )
    encoder.add_argument(
        "--preprocessing",
        choices=("reference", "native"),
        default="reference",
        help="as in Multimodal-CoT, or as the model's authors did (default: %(default)s)",
    )
    encoder.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="fp32",
        help="of the computation (default: %(default)s)",
    )
    encoder.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    encoder.add_argument(
        "--batch-size", type=int, default=8, help="pictures encoded together (default: %(default)s)"
    )


def _add_storage_arguments(parser: argparse.ArgumentParser) -> None:
    storage = parser.add_argument_group("pictures and storage")
    storage.add_argument(
        "--split",
        action="append",
        choices=split_names(),
        help="only the pictures of this split; may be given several times",
    )
    storage.add_argument(
        "--max-failures",
        default="1%",
        metavar="N|P%",
        help="pictures that may fail (default: 1%%)",
    )
    storage.add_argument("--format", choices=get_args(Container), default="hdf5")
    storage.add_argument(
        "--dtype",
        choices=get_args(StorageDtype),
        default="float16",
        help="of the stored features (default: %(default)s)",
    )
    storage.add_argument(
        "--shard-size", type=int, metavar="ROWS", help="default: 256 MiB, 1024 rows at most"
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.extraction import extract_features

    names = list(dict.fromkeys(arguments.encoder))
    if len(names) > 1 and (arguments.model or arguments.revision):
        arguments.fail("--model and --revision are of one encoder: give a single --encoder")
    try:
        configs = [_config(arguments, name) for name in names]
    except ValueError as error:
        arguments.fail(str(error))
    any_failed = False
    for config in configs:
        with progress_bar(config.encoder.name, "pictures") as report:
            summary = extract_features(config, report)
        _print_summary(summary, config.dtype)
        any_failed |= summary.num_failed > 0
    return _SOME_FAILED if any_failed else 0


def _config(arguments: argparse.Namespace, encoder: str) -> "ExtractionConfig":
    from mmcot_data.encoders.base import EncoderConfig
    from mmcot_data.extraction import ExtractionConfig

    def take(*names: str) -> dict[str, Any]:
        return {name: getattr(arguments, name) for name in names}

    return ExtractionConfig(
        encoder=EncoderConfig(
            name=encoder,
            **take("model", "revision", "random_weights", "preprocessing", "precision", "device"),
        ),
        splits=tuple(arguments.split) if arguments.split else None,
        **take("data", "out", "format", "dtype", "shard_size", "batch_size", "max_failures"),
    )


def _print_summary(summary: "ExtractionSummary", dtype: str) -> None:
    text = (
        f"{summary.folder}: {summary.num_images} pictures, {summary.num_distinct} rows of "
        f"{summary.row_shape} {dtype} in {summary.num_shards} "
        f"shard{'s' if summary.num_shards != 1 else ''}, "
        f"{summary.nbytes / 1e6:.1f} MB; "
    )
    if summary.num_extracted:
        rate = summary.num_extracted / summary.seconds
        text += (
            f"{summary.num_extracted} extracted in {summary.seconds:.1f} s ({rate:.1f} pictures/s)"
        )
    else:
        text += "all of it was there already"
    print(text)
    if summary.num_failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.failed.items())
        print(
            f"mmcot-data: {summary.num_failed} pictures have no features ({reasons}): see status "
            f"and error in {summary.folder / 'index.parquet'}",
            file=sys.stderr,
        )
