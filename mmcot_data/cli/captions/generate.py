"""``mmcot-data captions generate``: caption pictures with an image-to-text model."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mmcot_data.captioning import CAPTIONERS, CaptionConfig, CaptionerConfig
from mmcot_data.captioning.config import CaptionPrecision
from mmcot_data.cli.subcommand import Subcommands, add_subcommand, local_path, progress_bar
from mmcot_data.encoders.base import Alpha
from mmcot_data.questions import split_names
from mmcot_data.sources import LAYOUTS

if TYPE_CHECKING:
    from mmcot_data.captioning.making import CaptionSummary

__all__ = ["add_parser"]

_SOME_FAILED = 3

_CAPTIONERS = "\n".join(
    f"  {name:13} {facts.model_id}: {facts.about}\n"
    + " " * 16
    + f"weights: {facts.licence}"
    + (f'; prompt: "{facts.prompt}"' if facts.prompt else "")
    for name, facts in CAPTIONERS.items()
)

_EXAMPLES = f"""\
  no download:      mmcot-data captions generate sample --captioner tiny --out shards
  ScienceQA's own:  mmcot-data captions generate data/scienceqa --captioner vit-gpt2 --out shards
  as in the paper:  mmcot-data captions generate data/scienceqa --captioner instructblip \\
                      --role question --role choice_0 --out shards
  any model:        mmcot-data captions generate photos --out shards \\
                      --captioner hf:HuggingFaceTB/SmolVLM-256M-Instruct --prompt "What is it?"
  a local model:    mmcot-data captions generate data/scienceqa --model models/blip --out shards
  only a part:      mmcot-data captions generate data/scienceqa --captioner blip --split test \\
                      --out shards

captioners:
{_CAPTIONERS}
  hf:MODEL      any image-to-text model of transformers, by hub id or folder; with a chat
                template, picture and prompt are one message

They become captions/PRODUCER.parquet in the artifact root, one row per question id and image role.
Equal pictures are captioned once. Interrupted or killed, the same command continues; captions that
are there are not made again, those of pictures that have changed are. Another model, prompt,
preprocessing, precision or way of generating is an error that says what differs. Exit code 3: done,
but some pictures have no caption; the file's notes list them, and the next run tries them again.
"""


def add_parser(actions: Subcommands) -> None:
    """Add the action."""
    parser = add_subcommand(
        actions,
        "generate",
        _run,
        summary="Caption the pictures of a data set with an image-to-text model.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help="data set in ScienceQA's layout, folder of pictures, parquet file or folder, or "
        "folder written by Hugging Face datasets",
    )
    parser.add_argument("--out", type=local_path, required=True, help="artifact root")
    parser.add_argument(
        "--producer",
        metavar="NAME",
        help="name of the captions (default: the captioner's, or that of the model)",
    )
    _add_model_arguments(parser.add_argument_group("model"))
    _add_picture_arguments(parser.add_argument_group("pictures"))


def _add_model_arguments(model: Any) -> None:
    model.add_argument(
        "--captioner", metavar="NAME", help=f"{', '.join(CAPTIONERS)} or hf:MODEL: see below"
    )
    model.add_argument(
        "--model",
        metavar="FOLDER|ID",
        help="local folder or hub id instead of the captioner's own; alone, as hf:MODEL",
    )
    model.add_argument("--revision", help="hub revision: branch, tag or commit")
    model.add_argument(
        "--random-weights",
        type=int,
        metavar="SEED",
        help="draw the weights instead of loading them, for trials",
    )
    model.add_argument("--prompt", metavar="TEXT", help="what is said beside the picture")
    model.add_argument("--max-new-tokens", type=int, metavar="N", help="longest caption")
    model.add_argument(
        "--num-beams", type=int, metavar="N", help="of beam search; 1 is greedy, and fastest"
    )
    model.add_argument(
        "--repetition-penalty", type=float, metavar="P", help="1 does nothing, more avoids echoes"
    )
    model.add_argument(
        "--precision",
        choices=get_args(CaptionPrecision),
        default="auto",
        help="of the weights; auto is bf16 on a GPU that has it, else fp32",
    )
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    model.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="pictures captioned together (default: 8 on a CPU, 16 on a GPU)",
    )


def _add_picture_arguments(pictures: Any) -> None:
    pictures.add_argument(
        "--role",
        action="append",
        metavar="NAME",
        help="only pictures in this role: question, question_2, choice_0, …; may be given several "
        "times (default: all)",
    )
    pictures.add_argument(
        "--split",
        action="append",
        metavar="NAME",
        help="only the pictures of this split; may be given several times; ScienceQA's are "
        + ", ".join(split_names()),
    )
    pictures.add_argument(
        "--layout", choices=LAYOUTS, default="auto", help="what DATA is (default: look at it)"
    )
    pictures.add_argument(
        "--id-column", metavar="NAME", help="of a table of pictures: what identifies them"
    )
    pictures.add_argument(
        "--image-column", metavar="NAME", help="of a table of pictures: what holds them"
    )
    pictures.add_argument("--licence", help="of the pictures, where the data set does not say it")
    pictures.add_argument(
        "--alpha",
        choices=get_args(Alpha),
        default="white",
        help="transparent pixels: on white paper, or the colour that they hide (default: "
        "%(default)s)",
    )
    pictures.add_argument(
        "--max-failures",
        default="1%",
        metavar="N|P%",
        help="pictures that may fail (default: 1%%)",
    )


def _run(arguments: argparse.Namespace) -> int:
    if arguments.captioner is None:
        if arguments.model is None:
            arguments.fail("give --captioner NAME, or --model FOLDER|ID")
        arguments.captioner, arguments.model = f"hf:{arguments.model}", None
    try:
        config = _config(arguments)
    except ValueError as error:
        arguments.fail(str(error))
    from mmcot_data.captioning.run import CaptionReports, caption_images

    with (
        progress_bar("reading pictures", "pictures") as scanned,
        progress_bar(config.producer_name, "pictures") as captioned,
    ):
        summary = caption_images(config, CaptionReports(scanned=scanned, captioned=captioned))
    _print_summary(summary)
    return _SOME_FAILED if summary.num_failed else 0


def _config(arguments: argparse.Namespace) -> CaptionConfig:
    def take(cls: type[Any], *without: str) -> dict[str, Any]:
        names = [field.name for field in fields(cls) if field.name not in without]
        return {name: getattr(arguments, name) for name in names}

    return CaptionConfig(
        captioner=CaptionerConfig(name=arguments.captioner, **take(CaptionerConfig, "name")),
        splits=tuple(arguments.split) if arguments.split else None,
        roles=tuple(arguments.role) if arguments.role else None,
        **take(CaptionConfig, "captioner", "splits", "roles"),
    )


def _print_summary(summary: "CaptionSummary") -> None:
    text = (
        f"{summary.path}: {summary.num_captions} captions of {summary.num_images} pictures, "
        f"{summary.num_distinct} distinct; "
    )
    if summary.num_made:
        rate = summary.num_made / summary.seconds
        text += f"{summary.num_made} made in {summary.seconds:.1f} s ({rate:.1f} pictures/s)"
    else:
        text += "all of it was there already"
    if summary.num_halved:
        batches = f"{summary.num_halved} batch{'es' if summary.num_halved != 1 else ''}"
        text += f"; short of memory: {batches} in halves, a smaller --batch-size is faster"
    print(text)
    if summary.num_failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.failed.items())
        print(
            f"mmcot-data: {summary.num_failed} pictures have no caption ({reasons}): the notes in "
            f"{summary.path} list them",
            file=sys.stderr,
        )
