"""``mmcot-data inputs``: what the model will see."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mmcot_data.cli.subcommand import Subcommands, add_subcommand, local_path
from mmcot_data.questions import split_names
from mmcot_data.truncation import Truncation

if TYPE_CHECKING:
    from mmcot_data.inputs import EncodedInputs, ModelInput
    from mmcot_data.questions import Question
    from mmcot_data.rationales import Rationale

__all__ = ["add_parser"]

_STAGE_FORMATS = {
    "rationale": ("QCM-E", "QCM-LE"),
    "answer": ("QCMG-A", "QCM-A", "QCM-LEA", "QCM-ALE"),
}
_MAX_RATIONALE = 512
_MAX_ANSWER = 64

_EXAMPLES = """\
  stage 1, to rationales:   mmcot-data inputs shards --stage rationale --out stage1.jsonl
  stage 2, to answers:      mmcot-data inputs shards --stage answer --out stage2.jsonl
  with others' texts:       mmcot-data inputs shards --stage answer --prompt-format QCMG-A \\
                              --split test --captions scienceqa --rationales stage1 \\
                              --out stage2.parquet
  what a model cuts off:    mmcot-data inputs shards --prompt-format QCM-LE \\
                              --tokenizer declare-lab/flan-alpaca-base --out stage1.parquet
  what a student learns:    mmcot-data inputs shards --prompt-format QCM-LEA --split train \\
                              --target-rationales teacher --out student.jsonl

Columns: question_id, source, target: whole texts. With --tokenizer what mmcot-train makes of them
within the limits, too: source_tokens and target_tokens (of the whole texts), source_seen (what the
model reads), source_cut and target_cut (what it does not see).
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    from mmcot_data.prompts import PROMPT_FORMATS

    parser = add_subcommand(
        commands,
        "inputs",
        _run,
        summary="Write what the model will see: question_id, source and target.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "artifacts", type=Path, metavar="ARTIFACTS", help="artifact root, with questions.parquet"
    )
    parser.add_argument(
        "--stage",
        choices=tuple(_STAGE_FORMATS),
        help="rationale: stage 1, QCM-E unless --prompt-format says QCM-LE; answer: stage 2, "
        "QCMG-A unless it says QCM-A, QCM-LEA or QCM-ALE",
    )
    parser.add_argument(
        "--prompt-format",
        choices=PROMPT_FORMATS,
        help="Q question, C context, M choices, G rationale -> L lecture, E solution, A answer",
    )
    parser.add_argument("--captions", metavar="PRODUCER", help="captions/PRODUCER.parquet")
    parser.add_argument(
        "--image-roles",
        nargs="+",
        default=["question"],
        metavar="ROLE",
        help="the caption is that of the first role that has one, as mmcot-train has it (default: "
        "question)",
    )
    parser.add_argument(
        "--rationales",
        metavar="PRODUCER",
        help="rationales/PRODUCER.parquet, for QCMG-A: of training questions the first that is "
        "kept, of others the first (default: the data set's own, see --gold)",
    )
    parser.add_argument(
        "--gold",
        choices=_STAGE_FORMATS["rationale"],
        help="form of the data set's own rationales that QCMG-A shows (default: QCM-E with "
        "--stage, as mmcot-train has it; without, QCM-LE, as Multimodal-CoT has it)",
    )
    parser.add_argument(
        "--target-rationales",
        metavar="PRODUCER",
        help="rationales/PRODUCER.parquet, whose kept samples are what the model should write, one "
        "row each; questions without one are left out",
    )
    parser.add_argument("--split", choices=split_names(), help="only these questions")
    tokens = parser.add_argument_group("lengths")
    tokens.add_argument(
        "--tokenizer",
        metavar="MODEL",
        help="a model's folder or hub id, or a run folder: adds lengths in tokens, what the model "
        "reads of them and what is cut",
    )
    tokens.add_argument(
        "--max-source", type=int, default=512, help="tokens of a source (default: %(default)s)"
    )
    tokens.add_argument(
        "--max-target",
        type=int,
        help=f"tokens of a target (default: {_MAX_RATIONALE} for a rationale, {_MAX_ANSWER} for an "
        "answer, and their sum for both, as mmcot-train has it)",
    )
    tokens.add_argument(
        "--truncation",
        choices=get_args(Truncation),
        default="keep",
        help="of a source that is too long. keep: words go from the end of the context, then from "
        "the front of the rationale, and last from question and options; right: its end goes, "
        "cue and rationale first, as in Multimodal-CoT (default: %(default)s). Targets are cut at "
        "their ends",
    )
    parser.add_argument(
        "--out", type=local_path, required=True, metavar="FILE", help=".parquet or .jsonl"
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.inputs import model_inputs, write_inputs
    from mmcot_data.prompts import gold_rationale
    from mmcot_data.questions import read_questions, select_split

    prompt_format = _prompt_format(arguments)
    for name in ("max_source", "max_target"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            arguments.fail(f"--{name.replace('_', '-')} is {value}, expected at least 1")
    questions = read_questions(arguments.artifacts)
    captions, rationales, targets = _texts(arguments, questions)
    if arguments.split is not None:
        questions = select_split(questions, arguments.split)
    shown = "" if arguments.rationales is None else f", rationales of {arguments.rationales}"
    if prompt_format == "QCMG-A" and rationales is None:
        form = arguments.gold or ("QCM-LE" if arguments.stage is None else "QCM-E")
        rationales = {q.question_id: gold_rationale(q, form) for q in questions}
        shown = f", the data set's own rationales ({form})"
    rows = model_inputs(questions, prompt_format, captions, rationales, targets=targets)
    encoded = _encode(arguments, prompt_format, rows)
    write_inputs(arguments.out, rows, encoded)
    print(f"{arguments.out}: {_count(rows, questions)} as {prompt_format}{shown}")
    if encoded is not None:
        _print_lengths(rows, encoded)
    return 0


def _prompt_format(arguments: argparse.Namespace) -> str:
    stage, given = arguments.stage, arguments.prompt_format
    if stage is None and given is None:
        arguments.fail("give --stage, --prompt-format, or both")
    if stage is None:
        return str(given)
    if given is None:
        return _STAGE_FORMATS[stage][0]
    if given not in _STAGE_FORMATS[stage]:
        arguments.fail(
            f"--stage {stage} takes --prompt-format {', '.join(_STAGE_FORMATS[stage])}; got {given}"
        )
    return str(given)


def _texts(
    arguments: argparse.Namespace, questions: "Sequence[Question]"
) -> tuple[
    Mapping[str, str] | None,
    Mapping[str, str] | None,
    "Mapping[str, Sequence[Rationale]] | None",
]:
    """Captions, rationales to show, and rationales to write, by question id."""
    from mmcot_data.captions import read_captions
    from mmcot_data.rationales import (
        first_rationales,
        kept_rationales,
        kept_samples,
        read_rationales,
    )
    from mmcot_data.text_artifacts import artifact_path

    root = arguments.artifacts
    captions = shown = written = None
    if arguments.captions is not None:
        path = artifact_path(root, "captions", arguments.captions)
        captions = read_captions(path, arguments.image_roles)
    if arguments.rationales is not None:
        path = artifact_path(root, "rationales", arguments.rationales)
        rows = read_rationales(path, questions)
        kept = kept_rationales(rows)
        is_train = {q.question_id: q.split == "train" for q in questions}
        shown = {key: text for key, text in first_rationales(rows).items() if not is_train[key]}
        shown |= {key: text for key, text in kept.items() if is_train[key]}
    if arguments.target_rationales is not None:
        path = artifact_path(root, "rationales", arguments.target_rationales)
        written = kept_samples(read_rationales(path, questions))
    return captions, shown, written


def _encode(
    arguments: argparse.Namespace, prompt_format: str, rows: "Sequence[ModelInput]"
) -> "EncodedInputs | None":
    if arguments.tokenizer is None:
        return None
    from transformers.utils import logging as transformers_logging

    from mmcot_data.inputs import encode_inputs
    from mmcot_data.tokenizers import load_tokenizer

    quiet: Any = transformers_logging.set_verbosity_error
    quiet()  # it knows nothing of our kind of model

    max_target = arguments.max_target
    if max_target is None:
        output = prompt_format.partition("-")[2]
        max_target = (_MAX_RATIONALE if output != "A" else 0) + (
            _MAX_ANSWER if "A" in output else 0
        )
    tokenizer = load_tokenizer(arguments.tokenizer, arguments.stage)
    return encode_inputs(
        tokenizer,
        rows,
        max_source=arguments.max_source,
        max_target=max_target,
        truncation=arguments.truncation,
    )


def _count(rows: "Sequence[ModelInput]", questions: "Sequence[Question]") -> str:
    covered = len({row.question_id for row in rows})
    text = f"{len(rows)} questions" if len(rows) == covered else f"{len(rows)} rows"
    if (len(rows), len(questions)) != (covered, covered):
        text += f" of {covered} of {len(questions)} questions"
    return text


def _print_lengths(rows: "Sequence[ModelInput]", encoded: "EncodedInputs") -> None:
    targets = [
        target for row, target in zip(rows, encoded.targets, strict=True) if row.target is not None
    ]
    for name, texts in (("sources", encoded.sources), ("targets", targets)):
        lengths = sorted(text.num_tokens for text in texts)
        if lengths:
            print(f"{name}: median {lengths[len(lengths) // 2]} tokens, longest {lengths[-1]}")
    for sentence in encoded.cuts.sentences(target_flag="--max-target"):
        print(sentence)
