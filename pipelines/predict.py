"""Command mmcot-predict: one question from a picture, and how the model came to its answer."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcot_data.errors import MmcotError, TrainingError, how_to_install
from mmcot_data.files import write_bytes, write_json
from mmcot_data.questions import OPTION_LETTERS
from mmcot_model.trained.run import TrainedRun, read_trained_run
from pipelines.asked_question import (
    AskedQuestion,
    find_picture,
    find_question,
    open_picture,
    typed_question,
)

if TYPE_CHECKING:
    from mmcot_model.batches import FeatureSource
    from mmcot_model.trained.asking import Reply

__all__ = ["main"]

_EPILOG = """\
examples:
  mmcot-predict runs/tiny-tiny --image magnets.png \\
      --question "Do these magnets attract or repel each other?" --choice attract --choice repel
  mmcot-predict runs/tiny-tiny --question-id 5
      a question of the run's data set, with the features that the run read
  mmcot-predict runs/tiny-tiny --question-id 5 --data data/sample --png why.png
      and a figure: which patches were attended to, how far the gate was open
  mmcot-predict runs/tiny-tiny --question-id 5 --image other.png
      the same question about another picture
  mmcot-predict runs/tiny-tiny --question-id 5 --rationale "Red is north. So the answer is red."
      the answer that the model draws from another rationale
  mmcot-predict runs/tiny-tiny --question-id 5 --json - | jq .answer

A run of mmcot-train knows which encoder made its features: the picture is encoded in the same way,
and an encoder with other weights is refused. docs/predict.md explains scores and figure.

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
    arguments = parser.parse_args(argv)
    if problem := _wrong_usage(arguments):
        parser.error(problem)
    try:
        _predict(arguments)
    except (MmcotError, OSError) as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        extra = "train" if error.name in ("torch", "transformers", "tokenizers") else "extract"
        return _fail(
            f"the package {error.name} is not installed; install what this needs with: "
            f"{how_to_install(extra)}"
        )
    except KeyboardInterrupt:
        sys.stderr.write("mmcot-predict: stopped\n")
        return 130
    return 0


def _fail(message: str) -> int:
    sys.stderr.write(f"mmcot-predict: error: {message}\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmcot-predict",
        description="Ask a trained run one question about a picture: it writes a rationale, "
        "answers, and says how probable it finds each choice.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="a finished run of mmcot-train")
    asked = parser.add_argument_group("the question")
    asked.add_argument("--image", type=Path, metavar="FILE", help="its picture (default: none)")
    asked.add_argument("--question", metavar="TEXT")
    asked.add_argument(
        "--choice", action="append", metavar="TEXT", help="a choice; once for each, in their order"
    )
    asked.add_argument("--hint", metavar="TEXT", help="further context")
    asked.add_argument(
        "--caption", metavar="TEXT", help="a text for the picture, where the run learned with such"
    )
    asked.add_argument(
        "--rationale", metavar="TEXT", help="answer from this, not from what stage 1 writes"
    )
    stored = parser.add_argument_group("or a question of the data set")
    stored.add_argument(
        "--question-id", metavar="ID", help="instead of --question, --choice and --hint"
    )
    stored.add_argument(
        "--artifacts",
        type=Path,
        metavar="DIR",
        help="artifact root with questions.parquet (default: that of the run)",
    )
    stored.add_argument(
        "--features",
        action="append",
        metavar="DIR",
        help="the run's feature set, where it is not where the run had it; once for each (not with "
        "--image, which is encoded)",
    )
    stored.add_argument(
        "--data", type=Path, metavar="DATA", help="data set of the extraction, for --png"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[ENCODER=]MODEL",
        help="local folder or hub id of the vision model that encodes --image, where it is not "
        "where the features' spec says; once for each encoder",
    )
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")
    out = parser.add_argument_group("output")
    out.add_argument("--json", metavar="FILE", help="write all of it as JSON, too; - for stdout")
    out.add_argument(
        "--png", type=Path, metavar="FILE", help="draw what was attended to, needs matplotlib"
    )
    return parser


def _wrong_usage(arguments: argparse.Namespace) -> str | None:
    """What is wrong with the options, whatever the run is."""
    if arguments.question_id is not None:
        given = [name for name in ("question", "choice", "hint") if getattr(arguments, name)]
        if given:
            return f"--{given[0]} and --question-id exclude each other: the data set has the texts"
        if arguments.data is not None and arguments.image is not None:
            return "--data is for the question's own picture: leave it out with --image"
        if arguments.features and arguments.image is not None:
            return "--features are those of the question's own picture: leave them out with --image"
        if arguments.data is not None and not arguments.data.exists():
            return f"--data {arguments.data} does not exist"
    else:
        given = [name for name in ("artifacts", "features", "data") if getattr(arguments, name)]
        if given:
            return f"--{given[0]} goes with --question-id ID only"
        if not (arguments.question or "").strip():
            return "give --question TEXT with a --choice TEXT for each choice, or --question-id ID"
        choices = arguments.choice or []
        if not 2 <= len(choices) <= len(OPTION_LETTERS):
            return f"--choice was given {len(choices)} times, expected 2 to {len(OPTION_LETTERS)}"
        if any(not choice.strip() for choice in choices):
            return "a --choice is empty, expected a text"
    if arguments.model and arguments.image is None:
        return "--model encodes the picture of --image, and there is none: leave it out"
    if arguments.png is not None and arguments.png.suffix != ".png":
        return f"--png {arguments.png}: expected a name that ends in .png"
    return None


def _predict(arguments: argparse.Namespace) -> None:
    """Check all that can be checked before anything heavy is loaded, then ask."""
    if arguments.png is not None and importlib.util.find_spec("matplotlib") is None:
        raise MmcotError(
            f"--png needs matplotlib, which is not installed: {how_to_install('flows')}, or leave "
            "--png out"
        )
    run = read_trained_run(arguments.run)
    _models(arguments.model, run)
    asked = _asked(arguments, run)
    lacking = run.check_question(
        has_picture=asked.has_picture, caption=asked.caption, rationale=arguments.rationale
    )

    # Here it gets heavy: torch, transformers and the models.
    from transformers.utils import logging

    quiet: Any = logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    from mmcot_data.encoders.compute import find_device
    from mmcot_model.trained.asking import ask_run

    device = find_device(arguments.device)
    asked, features, notes = _load_features(arguments, run, asked)
    reply = ask_run(
        run,
        asked.question,
        features=features,
        caption=asked.caption,
        rationale=arguments.rationale,
        device=device,
    )
    _write(arguments, run, asked, replace(reply, notes=(*lacking, *notes, *reply.notes)))


def _load_features(
    arguments: argparse.Namespace, run: TrainedRun, asked: AskedQuestion
) -> tuple[AskedQuestion, "FeatureSource | None", Sequence[str]]:
    """The features of the question's picture, the picture to show, and what is to be said of it."""
    from mmcot_model.trained.stage import NoPictures
    from pipelines.picture_features import encode_picture

    if run.layout is None:
        return asked, None, []
    if asked.has_stored_picture:
        stored = run.open_features(arguments.features or ())
        assert stored is not None, "the run has specs"
        if asked.question.question_id not in stored:
            return asked, stored, ["no picture: extraction could not read it"]
        if arguments.data is not None:
            picture = find_picture(stored, asked.question.question_id, arguments.data)
            asked = replace(asked, picture=picture)
        return asked, stored, []
    if asked.picture is not None:
        features = encode_picture(
            run.specs,
            asked.picture.content,
            asked.picture.name,
            models=_models(arguments.model, run),
            device=arguments.device,
        )
        return asked, features, features.notes
    return asked, NoPictures(run.layout), []


def _write(
    arguments: argparse.Namespace, run: TrainedRun, asked: AskedQuestion, reply: "Reply"
) -> None:
    from pipelines.prediction_text import render_reply, reply_as_json

    if arguments.png is not None:
        from pipelines.prediction_picture import draw_prediction

        write_bytes(arguments.png, draw_prediction(run, asked, reply))
    record = reply_as_json(run, asked, reply)
    if arguments.json == "-":
        sys.stdout.write(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return
    if arguments.json is not None:
        write_json(Path(arguments.json), record)
    sys.stdout.write(render_reply(run, asked, reply))


def _asked(arguments: argparse.Namespace, run: TrainedRun) -> AskedQuestion:
    picture = None if arguments.image is None else open_picture(arguments.image)
    if arguments.question_id is None:
        return typed_question(
            arguments.question,
            arguments.choice,
            hint=arguments.hint or "",
            caption=arguments.caption,
            picture=picture,
        )
    return find_question(
        run,
        arguments.question_id,
        artifacts=arguments.artifacts,
        caption=arguments.caption,
        picture=picture,
    )


def _models(given: Sequence[str], run: TrainedRun) -> dict[str, str]:
    """Models by encoder; a run with one encoder needs no name."""
    encoders = [spec.encoder for spec in run.specs]
    models = {}
    for text in given:
        name, separator, model = text.partition("=")
        if not separator and len(encoders) == 1:
            name, model = encoders[0], text
        if name not in encoders or not model:
            raise TrainingError(
                f"--model {text}: expected ENCODER=MODEL with an encoder of the run: "
                f"{', '.join(encoders) or 'it has none'}"
            )
        models[name] = model
    return models
