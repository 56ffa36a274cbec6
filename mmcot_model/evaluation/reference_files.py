"""Prediction files of Multimodal-CoT, ``predictions_ans_*.json``, in and out.

Such a file is ``{num_fail, scores, preds, labels}`` with the generated and the gold texts as lists
in the order of a split's official list. Each of its two stages writes one: texts of the answer
stage and of the one-stage formats name an answer, those of stage 1 are rationales. Its scores hold
a part that means nothing (accuracies of rationales, BLEU of answers), so that they are not read.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcot_data.errors import DataError
from mmcot_data.files import write_json
from mmcot_data.prompts import RATIONALE_FORMATS, build_prompt, gold_rationale, parse_answer
from mmcot_data.questions import OPTION_LETTERS, Question, select_split
from mmcot_data.strict_json import parse_json
from mmcot_model.evaluation.predictions import Prediction
from mmcot_model.evaluation.report import Scores

__all__ = ["ReferencePredictions", "read_reference_predictions", "write_reference_predictions"]

_FORMATS = ("QCM-A", "QCM-LEA", "QCM-ALE", *RATIONALE_FORMATS)
"""The prompt formats whose targets differ; QCMG-A has those of QCM-A."""
_MIN_AGREEMENT = 0.99
"""Share of the labels that must be the gold texts: a few questions of a data set were changed.
Behind a text that is left out, labels of answers still agree by chance in a third of the places."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferencePredictions:
    """What a file holds, by question id."""

    predictions: list[Prediction]
    """In the order of the split. Those of stage 1 have rationales, the others answers."""
    prompt_format: str | None
    """What the labels answer; None if the file has no labels."""
    num_unlike: int = 0
    """Labels that are not the gold texts of their questions."""
    has_answers: bool
    """False for a file of stage 1."""


def read_reference_predictions(
    path: Path, questions: Sequence[Question], split: str
) -> ReferencePredictions:
    """Read a file and give each text its question.

    Position is all that the file has, so that it is checked: there must be one text for each
    question of the split, and the labels must be the gold texts of these questions in this order.
    The order of a file without labels can't be checked.

    Args:
        path: The file.
        questions: All questions of the artifact root.
        split: The split that it is of.

    Raises:
        DataError: If the file is absent, damaged or of another shape, or is not of this split.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"), str(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; expected a file of predictions") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8: {error}") from error
    asked = select_split(questions, split)
    texts = _texts(path, content, "preds", asked, split)
    labels = None
    if isinstance(content, dict) and content.get("labels") is not None:
        labels = _texts(path, content, "labels", asked, split)
    prompt_format, num_unlike = None, 0
    if labels is not None:
        prompt_format, num_unlike = _format_of(path, labels, asked, split)
    if prompt_format is None:
        answered = sum("The answer is" in text for text in texts)
        has_answers = 2 * answered > len(texts)
    else:
        has_answers = prompt_format not in RATIONALE_FORMATS
    predictions = []
    for place, (question, text) in enumerate(zip(asked, texts, strict=True)):
        about: dict[str, Any] = {"question_id": question.question_id, "split": split}
        if has_answers:
            answer = parse_answer(text, len(question.choices))
            predictions.append(Prediction(**about, answer=answer, text=text))
        else:
            label = None if labels is None else labels[place]
            predictions.append(
                Prediction(**about, answer=None, rationale=text, reference_rationale=label)
            )
    return ReferencePredictions(
        predictions=predictions,
        prompt_format=prompt_format,
        num_unlike=num_unlike,
        has_answers=has_answers,
    )


def write_reference_predictions(
    path: Path,
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    scores: Scores,
    *,
    prompt_format: str = "QCM-A",
) -> None:
    """Write predictions as Multimodal-CoT would, atomically.

    ``preds`` are the texts that the model wrote; where there is only an answer, the sentence that
    says it. ``labels`` are the gold texts of the format, before its tokenizer.

    Args:
        path: The file.
        questions: The questions of a whole split in its official order.
        predictions: One for each of them, in any order.
        scores: Theirs.
        prompt_format: What the texts answer. One of stage 1 writes the rationales, for its
            ``--test_le`` or ``--eval_le``.

    Raises:
        DataError: If a question has no prediction, or no rationale where these are written.
    """
    by_id = {prediction.question_id: prediction for prediction in predictions}
    missing = [q.question_id for q in questions if q.question_id not in by_id]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(questions)} questions have no prediction, the first is "
            f"{missing[0]!r}: a file for Multimodal-CoT has no question ids, and needs one for each"
        )
    texts, labels = [], []
    for question in questions:
        prediction = by_id[question.question_id]
        if prompt_format in RATIONALE_FORMATS:
            texts.append(_rationale(prediction))
            labels.append(gold_rationale(question, prompt_format))
        else:
            texts.append(_answer_text(prediction))
            labels.append(build_prompt(question, prompt_format).target or "")
    known = scores.to_json()
    rationale = dict(known["rationale"])
    if scores.similarity is not None:
        rationale["similariry"] = scores.similarity.mean  # so it is called there
    write_json(
        path,
        {
            "num_fail": sum(parse_answer(text, len(OPTION_LETTERS)) is None for text in texts),
            "scores": {"answer": known["answer"], "rationale": rationale},
            "preds": texts,
            "labels": labels,
        },
    )


def _texts(
    path: Path, content: object, name: str, questions: Sequence[Question], split: str
) -> list[str]:
    """A list of the file, one text a question."""
    found = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise DataError(
            f"{path}: expected an object with a list of texts {name!r}, as the files "
            "predictions_ans_*.json of Multimodal-CoT; for other predictions expected a name that "
            "ends in .parquet or .jsonl"
        )
    if len(found) != len(questions):
        raise DataError(
            f"{path} has {len(found)} texts in {name!r}, the split {split} of this artifact root "
            f"has {len(questions)} questions: expected one for each, in the official order"
        )
    return [text.strip() for text in found]


def _format_of(
    path: Path, labels: Sequence[str], questions: Sequence[Question], split: str
) -> tuple[str, int]:
    """The prompt format whose gold texts the labels are, and how many are not.

    The reference's tokenizer drops what it does not know, writes others in a plain form (a raised
    2 as 2) and cuts long texts, so that plain letters and digits are compared, as far as a label
    goes.
    """
    agreeing = {}
    for prompt_format in _FORMATS:
        golds = [build_prompt(question, prompt_format).target or "" for question in questions]
        agreeing[prompt_format] = sum(
            label != "" and _letters(gold).startswith(_letters(label))
            for gold, label in zip(golds, labels, strict=True)
        )
    best = max(_FORMATS, key=lambda prompt_format: agreeing[prompt_format])
    if agreeing[best] < _MIN_AGREEMENT * len(questions):
        raise DataError(
            f"{path}: its labels are not the gold texts of the split {split}: most agree with "
            f"{best}, {agreeing[best]} of {len(questions)}, expected {_MIN_AGREEMENT:.0%}; they "
            "are of another split, order or data set, and so are the predictions"
        )
    return best, len(questions) - agreeing[best]


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKC", text).lower())


def _rationale(prediction: Prediction) -> str:
    if prediction.rationale is None:
        raise DataError(f"question {prediction.question_id!r} has no rationale to write")
    return prediction.rationale


def _answer_text(prediction: Prediction) -> str:
    if prediction.text is not None:
        return prediction.text.strip()
    if prediction.answer is None:
        return ""
    return f"The answer is ({OPTION_LETTERS[prediction.answer]})."
