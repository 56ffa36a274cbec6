"""Command mmcot-train."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from mmcot_data.errors import MmcotError, TrainingError, how_to_install
from mmcot_model.cli.options import add_file_options, add_setting_options, config_from
from mmcot_model.distributed import is_main
from mmcot_model.runs.reporters import check_reporters
from mmcot_model.settings.config import TrainConfig

__all__ = ["build_parser", "main"]

_USAGE = """\
mmcot-train --features DIR [DIR ...] [--model MODEL] [--output DIR] [--resume] [settings]
       mmcot-train --artifacts DIR [settings]        on the text alone
       mmcot-train --config FILE [settings]          as a file says"""

_DESCRIPTION = """\
Train Multimodal-CoT on patch features that were extracted once. Stage 1 reads a
question and its picture's features and writes a rationale; stage 2 reads the
rationale besides, and answers. Then the questions of the test split are answered,
always from rationales that were generated, and scored.

Every setting below is a field of mmcot_model.settings.config.TrainConfig and a key of
--config; those of a run stand in its train.yaml. `none` takes back what a file says.
"""

_EPILOG = """\
examples:
  mmcot-train --features shards/detr
      both stages with DETR features and the tiny model, into runs/detr-tiny; tests them
  mmcot-train --features shards/vit --model declare-lab/flan-alpaca-base --captions instructblip
      the paper's base model
  mmcot-train --features shards/detr shards/clip
      the patches of two encoders together
  mmcot-train --artifacts shards --output runs/text
      the same without pictures, for comparison
  mmcot-train --features shards/detr --stage answer --prompt-format QCM-A
      one stage: the answer without a rationale
  mmcot-train --features shards/detr --train-rationales stage1-kfold
      stage 2 learns from generated rationales, as it is tested (mmcot-data rationales stage1-kfold)
  mmcot-train --features shards/detr --target-rationales teacher
      stage 1 learns what a teacher wrote (mmcot-data rationales teacher), not the gold rationales
  mmcot-train --features shards/detr --resume
      go on with a run that was stopped
  mmcot-train --config runs/detr-tiny/train.yaml --seed 7 --output runs/seed-7
      a run again, but for the seed
  torchrun --nproc-per-node 4 -m mmcot_model.cli.train --features shards/detr --batch-size 8
      four GPUs, 32 questions a step
  mmcot-train --features shards/detr --report-to tensorboard --push-to-hub me/detr-tiny
      with curves for `tensorboard --logdir runs`; the finished run goes to the hub

A run folder holds the two models, rationales.parquet, predictions.parquet, scores.json, train.yaml
and README.md, which tells the rest; `mmcot-evaluate RUN` prints the table again.

exit codes: 0 done; 1 an error, explained; 2 wrong usage; 130 stopped by Ctrl-C
"""


def build_parser() -> argparse.ArgumentParser:
    """The options of mmcot-train."""
    parser = argparse.ArgumentParser(
        prog="mmcot-train",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --output: finished stages are loaded, an unfinished one "
        "continues from its last checkpoint (default: off)",
    )
    add_file_options(parser)
    add_setting_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the command's name; None for those of the process.

    Returns:
        The exit code: 0 done, 1 an error that is explained on stderr, 130 stopped by Ctrl-C.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if is_main() else logging.WARNING,
        format="%(message)s",
        stream=sys.stderr,
    )
    try:
        config = config_from(arguments)
    except (ValueError, MmcotError) as error:
        parser.error(str(error))
    try:
        _run(config, resume=arguments.resume)
    except (MmcotError, OSError) as error:
        print(f"mmcot-train: error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(
            f"mmcot-train: error: {error.name} is not installed; training needs "
            f"{how_to_install('train')}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("mmcot-train: stopped; the same command with --resume goes on", file=sys.stderr)
        return 130
    return 0


def _run(config: TrainConfig, *, resume: bool) -> None:
    from huggingface_hub.utils.tqdm import disable_progress_bars

    # What transformers looks at when it is imported, which takes too long to be done before the
    # inputs are checked.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    disable_progress_bars()
    check_reporters(config.report_to)
    if config.push_to_hub is not None and is_main():
        from mmcot_model.runs.hub import check_hub_access

        check_hub_access(config.push_to_hub)
    from mmcot_model.runs.run import train_run

    scores = train_run(config, resume=resume)
    if not is_main():
        return
    if scores is None:
        print(f"{config.output / 'rationales.parquet'}: rationales of {config.test_split}")
    else:
        from mmcot_model.evaluation import render_table

        print(render_table(scores))
        print(f"\n{config.output}: models, predictions.parquet, scores.json, README.md")
    if config.push_to_hub is not None:
        _push(config, config.push_to_hub)


def _push(config: TrainConfig, repo_id: str) -> None:
    from huggingface_hub.utils.tqdm import enable_progress_bars

    from mmcot_model.runs.hub import push_run

    enable_progress_bars()
    try:
        url = push_run(config.output, repo_id, private=config.hub_private)
    except TrainingError as error:
        raise TrainingError(
            f"the run in {config.output} is complete, but was not pushed: {error}. The same "
            "command with --resume pushes it again"
        ) from error
    print(f"pushed to {url}")


if __name__ == "__main__":
    sys.exit(main())
