"""Rationales that another program wrote: its files as rows keyed by question id."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcot_data.errors import DataError
from mmcot_data.prompts import PROMPT_FORMATS, RATIONALE_FORMATS, build_prompt
from mmcot_data.questions import OPTION_LETTERS, Question, select_split
from mmcot_data.rationales import Rationale, is_correct
from mmcot_data.strict_json import parse_json

__all__ = ["import_rationales"]

_CUE = "Solution:"
_MAX_SHOWN = 10
_MAX_SAMPLE = 2**31 - 1
_FIELDS = frozenset(
    ("question_id", "rationale", "sample", "answer", "finish_reason", "prompt_format")
)
_MAX_CONTRADICTIONS = 0.1
_ANSWER = re.compile(r"The answer is \(?([A-Z])\)?\b")
"""With and without parentheses: ScienceQA's GPT-3 files write ``The answer is B.``"""


def import_rationales(
    path: Path,
    questions: Sequence[Question],
    *,
    prompt_format: str | None = None,
    split: str | None = None,
) -> list[Rationale]:
    """Read rationales from one of these files.

    ``predictions_ans_*.json`` of Multimodal-CoT, ``{"preds": [text, …]}``: a list without ids, in
    the order of a split's official list; ``split`` names it, and the number must agree.
    ``{"outputs": {question id: text}}``, ScienceQA's files of GPT-3's predictions.
    ``{question id: text}``, or a list of texts, its samples.
    ``.jsonl``, an object a line: ``question_id``, ``rationale``, and optionally ``sample``,
    ``answer`` (index), ``finish_reason`` and ``prompt_format``.

    A text becomes a rationale as stage 2 reads it: one line, with ``Solution:`` at the front. Of
    the formats that answer as well, QCM-LEA and QCM-ALE, the answer is taken out of the text; of
    QCM-ALE the rationale is what stands after ``BECAUSE:``, an explanation made after the answer.

    Args:
        path: The file.
        questions: All questions of the artifact root.
        prompt_format: What the texts answer; lines of ``.jsonl`` may name their own.
        split: Of a file without ids: the split that it is of.

    Raises:
        DataError: If the file is absent, damaged or of another shape, does not fit the split, or
            holds rationales of unknown questions. All faults are counted, ten are named.
    """
    if prompt_format is not None:
        _check_format(prompt_format)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; expected a file of rationales") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8: {error}") from error
    if path.suffix == ".jsonl":
        rows: Iterator[tuple[str, object]] = _lines(content)
    else:
        rows = _rows_of_object(
            path, parse_json(content, str(path)), questions, split, prompt_format
        )
    by_id = {question.question_id: question for question in questions}
    rationales: list[Rationale] = []
    faults: list[str] = []
    seen: dict[tuple[str, int], str] = {}
    for where, row in rows:
        try:
            rationale = _rationale(_row(row), by_id, prompt_format)
        except DataError as error:
            faults.append(f"{where}: {error}")
            continue
        key = (rationale.question_id, rationale.sample)
        if key in seen:
            faults.append(
                f"{where}: sample {key[1]} of question {key[0]!r} occurs again; the first is at "
                f"{seen[key]}"
            )
        seen[key] = where
        rationales.append(rationale)
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults[:_MAX_SHOWN])
        more = f"\n  and {len(faults) - _MAX_SHOWN} more" if len(faults) > _MAX_SHOWN else ""
        raise DataError(f"{path}: {len(faults)} faults:{shown}{more}")
    if not rationales:
        raise DataError(f"{path}: expected rationales, found none")
    return rationales


def _lines(content: str) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield f"line {number}", line


def _rows_of_object(
    path: Path,
    content: object,
    questions: Sequence[Question],
    split: str | None,
    prompt_format: str | None,
) -> Iterator[tuple[str, object]]:
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    if "preds" in content:
        chosen = _split_of_list(path, content["preds"], questions, split)
        if "labels" in content and prompt_format is not None:
            _check_labels(path, content["labels"], chosen, prompt_format)
        for number, (question, text) in enumerate(zip(chosen, content["preds"], strict=True)):
            row = {"question_id": question.question_id, "rationale": text}
            yield f"preds[{number}]", row
        return
    texts = content.get("outputs", content)
    if not isinstance(texts, dict):
        raise DataError(f"{path}: outputs: expected texts by question id, found {texts!r:.80}")
    for question_id, value in texts.items():
        samples = value if isinstance(value, list) else [value]
        for sample, text in enumerate(samples):
            row = {"question_id": question_id, "sample": sample, "rationale": text}
            yield f"question {question_id!r}", row


def _split_of_list(
    path: Path, texts: object, questions: Sequence[Question], split: str | None
) -> list[Question]:
    """The questions that a list without ids is about."""
    if not isinstance(texts, list):
        raise DataError(f"{path}: preds: expected a list of texts, found {type(texts).__name__}")
    if split is None:
        raise DataError(
            f"{path} holds a list without question ids: say with --split of which split it is, in "
            "whose official order the list must be"
        )
    chosen = select_split(questions, split)
    if len(chosen) != len(texts):
        raise DataError(
            f"{path} has {len(texts)} predictions, the split {split} of this artifact root has "
            f"{len(chosen)} questions: expected one for each, in the official order"
        )
    return chosen


def _check_labels(
    path: Path, labels: object, questions: Sequence[Question], prompt_format: str
) -> None:
    """Multimodal-CoT writes the gold targets beside the predictions: they must be in order, too.

    Its tokenizer drops what it does not know and cuts long texts, so that letters and digits are
    compared as far as a label goes, and few may differ.
    """
    if not isinstance(labels, list) or len(labels) != len(questions):
        raise DataError(f"{path}: labels: expected a list of as many texts as preds")
    wrong = [
        question.question_id
        for question, label in zip(questions, labels, strict=True)
        if (gold := build_prompt(question, prompt_format).target) is not None
        and not _letters(gold).startswith(_letters(str(label)))
    ]
    if len(wrong) > _MAX_CONTRADICTIONS * len(questions):
        raise DataError(
            f"{path}: labels of {len(wrong)} of {len(questions)} questions are not the gold texts "
            f"of {prompt_format} in this split's order, the first of question {wrong[0]!r}: they "
            "are of another split, order, data set or prompt format, and so are the predictions"
        )


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _row(row: object) -> dict[str, Any]:
    if isinstance(row, str):
        row = parse_json(row, "JSON")
    if not isinstance(row, dict):
        raise DataError(f"expected an object, found {row!r:.80}")
    if unknown := sorted(row.keys() - _FIELDS):
        raise DataError(
            f"there is no field {unknown[0]!r}; expected some of {', '.join(sorted(_FIELDS))}"
        )
    return row


def _rationale(
    row: Mapping[str, Any], questions: Mapping[str, Question], prompt_format: str | None
) -> Rationale:
    question_id, text = row.get("question_id"), row.get("rationale")
    if not isinstance(question_id, str) or question_id not in questions:
        raise DataError(f"question_id is {question_id!r:.80}, expected one of questions.parquet")
    if not isinstance(text, str) or not _is_unicode(text):
        raise DataError(f"rationale is {text!r:.80}, expected a text in Unicode")
    sample = row.get("sample", 0)
    if type(sample) is not int or not 0 <= sample <= _MAX_SAMPLE:
        raise DataError(f"sample is {sample!r:.80}, expected a number from 0 to {_MAX_SAMPLE}")
    form = row.get("prompt_format", prompt_format)
    if form is None:
        raise DataError("no prompt format: give --prompt-format, or prompt_format in each line")
    _check_format(form)
    reason = row.get("finish_reason", "unknown")
    if not isinstance(reason, str) or not _is_unicode(reason):
        raise DataError(f"finish_reason is {reason!r:.80}, expected a text")
    question = questions[question_id]
    text, answer = _split_text(text, form, len(question.choices))
    answer = row.get("answer", answer)
    if answer is not None and (type(answer) is not int or not 0 <= answer < len(question.choices)):
        raise DataError(
            f"answer is {answer!r:.80}, expected an index below {len(question.choices)} or null"
        )
    return Rationale(
        question_id=question_id,
        sample=sample,
        rationale=text if text.startswith(_CUE) else f"{_CUE} {text}".strip(),
        answer=answer,
        correct=is_correct(answer, question.answer),
        finish_reason=reason,
        prompt_format=form,
    )


def _split_text(text: str, prompt_format: str, num_choices: int) -> tuple[str, int | None]:
    """The rationale on one line, and the answer that stands beside it."""
    text = " ".join(text.split())
    if prompt_format in RATIONALE_FORMATS:
        return text, None
    found = list(_ANSWER.finditer(text))
    answer = OPTION_LETTERS.index(found[0][1]) if len(found) == 1 else num_choices
    if prompt_format == "QCM-ALE":
        text = text.partition("BECAUSE:")[2]
    elif found:
        text = text[: found[-1].start()]
    return text.strip(), answer if answer < num_choices else None


def _is_unicode(text: str) -> bool:
    """JSON can hold halves of surrogate pairs, which are no text."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _check_format(prompt_format: object) -> None:
    formats = [form for form in PROMPT_FORMATS if not form.endswith("-A")]
    if prompt_format not in formats:
        raise DataError(
            f"prompt format {prompt_format!r} holds no rationale; expected one of "
            f"{', '.join(formats)}"
        )
