"""``mmcot-data extract``: from pictures to feature shards, without an orchestrator."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mmcot_data.cli.artifact_root import artifact_root
from mmcot_data.cli.subcommand import Subcommands, add_subcommand, progress_bar
from mmcot_data.encoders import ENCODERS, Precision
from mmcot_data.encoders.base import Alpha, Backend, EncoderConfig, Resizer
from mmcot_data.questions import split_names
from mmcot_data.shards.schema import Container, StorageDtype
from mmcot_data.sources import LAYOUTS

if TYPE_CHECKING:
    from mmcot_data.extraction import ExtractionConfig, ExtractionSummary

__all__ = ["add_parser"]

_SOME_FAILED = 3

_EXAMPLES = """\
  no download:         mmcot-data extract sample --encoder tiny --out shards
  three feature sets:  mmcot-data extract data/scienceqa --encoder detr --encoder clip \\
                         --encoder vit --out shards
                       (every picture is decoded once)
  any pictures:        mmcot-data extract photos --encoder clip --out shards
  pictures in tables:  mmcot-data extract photos.parquet --id-column name --encoder clip \\
                         --out shards
  as fast as it gets:  mmcot-data extract data/scienceqa --encoder clip --precision auto \\
                         --out shards
  a local model:       mmcot-data extract data/scienceqa --encoder clip --model models/clip \\
                         --format arrow --out shards
  any vision model:    mmcot-data extract data/scienceqa --encoder hf:facebook/dinov2-base \\
                         --out shards
  into a bucket:       mmcot-data extract data/scienceqa --encoder clip --out s3://bucket/shards
  pictures missing:    mmcot-data extract data/scienceqa --encoder vit --split test \\
                         --max-failures 5% --out shards

Interrupted or killed, the same command continues; another batch size is no hindrance. Run at the
same time several times, on one machine or on several that share the folder, it shares the work.
Exit code 3: done, but some pictures have no features; they are listed in index.parquet with the
reason, and tried again by the next run.
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
        "data",
        type=Path,
        metavar="DATA",
        help="data set in ScienceQA's layout, table of questions, folder of pictures, parquet file "
        "or folder, or folder written by Hugging Face datasets",
    )
    parser.add_argument(
        "--out",
        type=artifact_root,
        required=True,
        help="artifact root: a folder, or s3://BUCKET/NAME",
    )
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
        "--resize",
        choices=get_args(Resizer),
        default="pil",
        help="what resizes pictures: Pillow as in the reference, or torchvision, which is faster "
        "and differs by a grey level here and there (default: %(default)s)",
    )
    encoder.add_argument(
        "--alpha",
        choices=get_args(Alpha),
        default="white",
        help="transparent pixels: on white paper, or the colour that they hide, often black, as in "
        "Multimodal-CoT (default: %(default)s)",
    )
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--precision",
        choices=("auto", *get_args(Precision)),
        default="fp32",
        help="of the computation; auto takes the fastest that stays within 1e-2 of fp32 on the "
        "first batch, and records it (default: %(default)s)",
    )
    speed.add_argument(
        "--backend",
        choices=get_args(Backend),
        default="torch",
        help="what runs the model: torch, torch.compile, or OpenVINO, which is faster on CPUs and "
        "an extra (default: %(default)s)",
    )
    speed.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    speed.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="pictures encoded together (default: 8 on a CPU, 64 on a GPU)",
    )
    speed.add_argument(
        "--pad-to",
        type=int,
        choices=(1, 32),
        default=1,
        help="1 encodes only pictures of equal input size together; 32 pads DETR's pictures to "
        "multiples of 32, masked so that features stay the same, for fuller batches on a GPU "
        "(default: %(default)s)",
    )


def _add_storage_arguments(parser: argparse.ArgumentParser) -> None:
    storage = parser.add_argument_group("pictures and storage")
    storage.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="auto",
        help="what DATA is (default: look at it)",
    )
    storage.add_argument(
        "--id-column",
        metavar="NAME",
        help="of a table of pictures: what identifies them; image_sha256 is their content",
    )
    storage.add_argument(
        "--image-column", metavar="NAME", help="of a table of pictures: what holds them"
    )
    storage.add_argument("--licence", help="of the pictures, where the data set does not say it")
    storage.add_argument(
        "--split",
        action="append",
        metavar="NAME",
        help="only the pictures of this split; may be given several times; ScienceQA's are "
        + ", ".join(split_names()),
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
        "--shard-size",
        type=int,
        metavar="ROWS",
        help="default: 256 MiB, 1,024 rows at most; more where there would be over 16,384 shards",
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.extraction import Reports, extract_feature_sets

    names = list(dict.fromkeys(arguments.encoder))
    if len(names) > 1 and (arguments.model or arguments.revision):
        arguments.fail("--model and --revision are of one encoder: give a single --encoder")
    try:
        configs = [_config(arguments, name) for name in names]
    except ValueError as error:
        arguments.fail(str(error))
    unit = "pictures" if len(names) == 1 else "rows"
    with (
        progress_bar("reading pictures", "pictures") as scanned,
        progress_bar(" + ".join(names), unit) as extracted,
    ):
        reports = Reports(scanned=scanned, extracted=extracted, waiting=_tell_waiting())
        summaries = extract_feature_sets(configs, reports)
    for summary in summaries:
        _print_summary(summary, arguments.dtype)
    return _SOME_FAILED if any(summary.num_failed for summary in summaries) else 0


def _tell_waiting() -> Callable[[Sequence[str]], None]:
    """Says once for each state of affairs what other processes still make."""
    told: set[tuple[str, ...]] = set()

    def tell(busy: Sequence[str]) -> None:
        if tuple(busy) not in told:
            told.add(tuple(busy))
            print("waiting for other processes:\n  " + "\n  ".join(busy), file=sys.stderr)

    return tell


def _config(arguments: argparse.Namespace, encoder: str) -> "ExtractionConfig":
    from mmcot_data.extraction import ExtractionConfig

    def take(cls: type[Any], *without: str) -> dict[str, Any]:
        names = [field.name for field in fields(cls) if field.name not in without]
        return {name: getattr(arguments, name) for name in names}

    return ExtractionConfig(
        encoder=EncoderConfig(name=encoder, **take(EncoderConfig, "name")),
        splits=tuple(arguments.split) if arguments.split else None,
        **take(ExtractionConfig, "encoder", "splits"),
    )


def _print_summary(summary: "ExtractionSummary", dtype: str) -> None:
    text = (
        f"{summary.folder}: {summary.num_images} pictures, {summary.num_distinct} rows of "
        f"{summary.row_shape} {dtype} in {summary.num_shards} "
        f"shard{'s' if summary.num_shards != 1 else ''}, "
        f"{summary.nbytes / 1e6:.1f} MB; "
    )
    if summary.precision_error is not None:
        text += f"{summary.precision}, {summary.precision_error:.1e} from fp32; "
    if summary.num_extracted:
        rate = summary.num_extracted / summary.seconds
        text += (
            f"{summary.num_extracted} extracted in {summary.seconds:.1f} s ({rate:.1f} pictures/s)"
        )
    else:
        text += "all of it was there already"
    if summary.num_halved:
        shards = f"{summary.num_halved} shard{'s' if summary.num_halved != 1 else ''}"
        text += (
            f"; short of memory: {shards} with batches in halves, a smaller --batch-size is faster"
        )
    print(text)
    if summary.num_failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.failed.items())
        print(
            f"mmcot-data: {summary.num_failed} pictures have no features ({reasons}): see status "
            f"and error in {summary.folder}/index.parquet",
            file=sys.stderr,
        )
