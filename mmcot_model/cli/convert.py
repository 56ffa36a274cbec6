"""mmcot-convert: make a model of a checkpoint of the reference."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmcot_data.errors import MmcotError

__all__ = ["main"]

_DESCRIPTION = """\
Convert a checkpoint of Multimodal-CoT's own code, of either generation, to a
model that mmcot-train, mmcot-predict and FusionT5.from_pretrained read.

CHECKPOINT is a folder with config.json and the weights: pytorch_model.bin or
model.safetensors, in one piece or in shards. No code in a .bin file is run.

The weights tell how wide the patch features are that they read, but not which
encoder made them. A width of 256 is taken for detr and one of 1024 for vit;
for any other give the encoder, or a feature set of it.

Questions without a picture get zero features, as the checkpoint was trained.
"""

_EXAMPLES = """\
examples:
  mmcot-convert mm-cot-base-rationale converted/rationale
  mmcot-convert mm-cot-base-ans converted/answer
  mmcot-convert checkpoint converted/clip --encoder clip-rn101
  mmcot-convert checkpoint converted/detr --features shards/detr \\
      --tokenizer allenai/unifiedqa-t5-base

To test the two stages afterwards: docs/checkpoints.md.

exit codes: 0 done; 1 an error, explained; 2 wrong usage
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the command's name; None for those of the process.

    Returns:
        The exit code: 0 done, 1 an error that is explained on stderr.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.num_patches is not None and args.encoder is None:
        parser.error("--num-patches goes with --encoder")
    try:
        _convert(args)
    except (MmcotError, OSError) as error:
        print(f"mmcot-convert: error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmcot-convert",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="the folder to convert")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to make")
    features = parser.add_mutually_exclusive_group()
    features.add_argument(
        "--features",
        metavar="DIR",
        help="feature set of the encoder that the checkpoint was trained on, as shards/vit",
    )
    features.add_argument(
        "--encoder", metavar="NAME", help="or its name: detr, vit, clip, clip-rn101, resnet, …"
    )
    parser.add_argument(
        "--num-patches",
        metavar="N",
        type=_positive,
        help="patches of a picture (default: those of the encoder's own model)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="folder or hub id of a tokenizer (default: the checkpoint's own)",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _convert(args: argparse.Namespace) -> None:
    from transformers.utils import logging

    from mmcot_model.checkpoints.conversion import convert_checkpoint
    from mmcot_model.feature_layout import FeatureLayout

    logging.set_verbosity_error()  # it knows nothing of our kind of model
    layout = None
    if args.features is not None:
        from mmcot_data.shards import open_features

        spec = open_features(args.features).spec
        layout = FeatureLayout(
            encoders=(spec.encoder,), num_patches=spec.num_patches, patch_dim=spec.feature_dim
        )
    made = convert_checkpoint(
        args.checkpoint,
        args.out,
        layout=layout,
        encoder=args.encoder,
        num_patches=args.num_patches,
        tokenizer=args.tokenizer,
    )
    if args.features is None and args.encoder is None:
        (name,) = made.layout.encoders
        print(
            f"mmcot-convert: patch features of width {made.layout.patch_dim} are those of {name}; "
            "if not, give --encoder or --features",
            file=sys.stderr,
        )
    print(
        f"{args.out}: generation {made.generation}, features {made.layout}, {made.num_tensors} "
        f"tensors, {made.num_parameters:,} parameters, head {'tied' if made.tied else 'untied'}, "
        f"tokenizer of {made.tokenizer}"
    )


if __name__ == "__main__":
    sys.exit(main())
