r"""What the model reads and writes: a question as a source and a target text.

The formats are those of Multimodal-CoT (github.com/amazon-science/mm-cot, utils_prompt.py), as
its tokenizer sees them: one line, single blanks. A format is named ``{input}-{output}``:

  =======  ====================================================================
  Q, C, M  question, context (hint and caption), choices
  G        a rationale given in the source: QCMG-A is stage 2
  L, E, A  lecture, solution, answer, in the order in which they are written
  =======  ====================================================================

Stage 1 is QCM-E or QCM-LE; the other formats do everything in one stage.

By default the texts equal the reference's to the byte, four quirks of its targets included, so
that its checkpoints and published figures stay comparable. ``quirks=False`` removes them:

  * a newline in a lecture or solution becomes the two characters ``\n``, not a blank (also in the
    gold rationale that QCMG-A shows);
  * QCM-LE ends with one full stop too many;
  * the word ``Answer:`` is deleted wherever a target contains it;
  * QCM-ALE keeps ``BECAUSE:`` where nothing follows it.
"""

import re
from dataclasses import dataclass

from mmcot_data.errors import DataError
from mmcot_data.questions import OPTION_LETTERS, Question

__all__ = [
    "NO_CONTEXT",
    "PROMPT_FORMATS",
    "RATIONALE_FORMATS",
    "SOLUTION_CUE",
    "TARGET_FORMATS",
    "Prompt",
    "SourceParts",
    "build_prompt",
    "gold_rationale",
    "parse_answer",
    "rationale_target",
]

PROMPT_FORMATS = ("QCM-A", "QCM-E", "QCM-LE", "QCMG-A", "QCM-LEA", "QCM-ALE")
RATIONALE_FORMATS = ("QCM-E", "QCM-LE")
"""The formats of stage 1: their output is a rationale that stage 2 can read."""
TARGET_FORMATS = ("QCM-E", "QCM-LE", "QCM-LEA", "QCM-ALE")
"""The formats in which the model writes a rationale."""

SOLUTION_CUE = "Solution:"
"""Ends a source that asks for a rationale, and begins a rationale that is given."""
NO_CONTEXT = "N/A"
_LAST_ANSWER = re.compile(r"\s*(?:So )?[Tt]he answer is \(?[A-Z]\)?\.?$")
_ANSWER = re.compile(r"The answer is \(([A-Z])\)")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceParts:
    """What a source consists of, each part without its label; blanks in them do not matter."""

    question: str
    context: str = ""
    """Hint and caption; empty where there is neither."""
    options: tuple[str, ...] = ()
    """Each with its letter: ``(A) ice``."""
    rationale: str = ""
    """With its own ``Solution:`` at the front; empty where the format shows none."""
    cue: str
    """The last word, after which the model's own begin: ``Answer:`` or ``Solution:``."""

    def pieces(self) -> dict[str, str]:
        """The parts as they stand in the source, label and all, by name and in order."""
        return {
            "question": _one_line(f"Question: {self.question}"),
            "context": _one_line(f"Context: {self.context.strip() or NO_CONTEXT}"),
            "options": _one_line(" ".join(("Options:", *self.options))),
            "rationale": _one_line(self.rationale),
            "cue": _one_line(self.cue),
        }

    @property
    def text(self) -> str:
        """The source: one line with single blanks."""
        return " ".join(piece for piece in self.pieces().values() if piece)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A question as the model sees it; both texts are one line with single blanks."""

    parts: SourceParts
    target: str | None
    """What the model should write; None if it needs the answer and the data set hides that."""

    @property
    def source(self) -> str:
        """What the model reads."""
        return self.parts.text


def build_prompt(
    question: Question,
    prompt_format: str,
    *,
    caption: str | None = None,
    rationale: str | None = None,
    quirks: bool = True,
) -> Prompt:
    """Put a question into words for the model.

    Args:
        question: The question.
        prompt_format: One of ``PROMPT_FORMATS``.
        caption: Text for its picture, appended to the hint.
        rationale: QCMG-A only: the rationale to show, with its own ``Solution:`` at the front.
            None shows the gold one, lecture and solution.
        quirks: Reproduce the reference to the byte (see the module).

    Raises:
        DataError: If the format is unknown, or shows no rationale and one is given.
    """
    if prompt_format not in PROMPT_FORMATS:
        raise DataError(
            f"no prompt format {prompt_format!r}; expected one of {', '.join(PROMPT_FORMATS)}"
        )
    input_format, output_format = prompt_format.split("-")
    if input_format == "QCMG":
        if rationale is None:
            rationale = gold_rationale(question, "QCM-LE", quirks=quirks)
    elif rationale is not None:
        raise DataError(f"{prompt_format} shows the model no rationale; only QCMG-A does")
    parts = SourceParts(
        question=question.question,
        context=f"{question.hint} {caption or ''}",
        options=tuple(
            f"({letter}) {choice}"
            for letter, choice in zip(OPTION_LETTERS, question.choices, strict=False)
        ),
        rationale=rationale or "",
        cue="Answer:" if output_format == "A" else SOLUTION_CUE,
    )
    return Prompt(parts=parts, target=_target(question, output_format, quirks))


def gold_rationale(question: Question, prompt_format: str, *, quirks: bool = True) -> str:
    """The data set's own rationale, in the form in which stage 2 reads one.

    Stage 2 should train on the kind of text that it reads later: that of the stage-1 format.

    Args:
        question: The question.
        prompt_format: ``QCM-E`` for ``Solution: {solution}``, ``QCM-LE`` for
            ``Solution: {lecture} {solution}``.
        quirks: Write newlines as the reference does (see the module).

    Raises:
        DataError: If the format is not one of stage 1.
    """
    if prompt_format not in RATIONALE_FORMATS:
        raise DataError(
            f"{prompt_format!r} makes no rationale for stage 2; "
            f"expected one of {', '.join(RATIONALE_FORMATS)}"
        )
    lecture, solution = _explanation(question, quirks)
    return _one_line(
        f"Solution: {solution}" if prompt_format == "QCM-E" else f"Solution: {lecture} {solution}"
    )


def rationale_target(
    question: Question, prompt_format: str, rationale: str, answer: int | None
) -> str | None:
    """What the model should write where a rationale stands in for the data set's own.

    A student of Fine-tune-CoT (Ho et al., arXiv 2212.10071) learns such targets: with QCM-LEA the
    teacher's rationale and then the answer.

    Args:
        question: The question.
        prompt_format: One of ``TARGET_FORMATS``.
        rationale: With or without ``Solution:`` at the front.
        answer: The choice that the rationale draws; None takes the data set's.

    Returns:
        The target; None if it needs the answer, and neither names one.

    Raises:
        DataError: If the format has no rationale in its target.
    """
    if prompt_format not in TARGET_FORMATS:
        raise DataError(
            f"the model writes no rationale in {prompt_format}: a target can be given for "
            f"{', '.join(TARGET_FORMATS)}"
        )
    text = _one_line(rationale).removeprefix(SOLUTION_CUE).strip()
    if prompt_format in RATIONALE_FORMATS:
        return f"{SOLUTION_CUE} {text}".strip()
    answer = question.answer if answer is None else answer
    if answer is None:
        return None
    text = _LAST_ANSWER.sub("", text)  # it comes once, or it could not be parsed
    sentence = f"The answer is ({OPTION_LETTERS[answer]})."
    return f"{text} {sentence}" if prompt_format == "QCM-LEA" else f"{sentence} BECAUSE: {text}"


def parse_answer(text: str, num_choices: int) -> int | None:
    """The choice that a generated text names, as an index.

    Args:
        text: What the model wrote.
        num_choices: How many choices the question has.

    Returns:
        The index, or None unless ``The answer is (X)`` occurs exactly once and X is a choice.
        None counts as a wrong answer; nothing is guessed.
    """
    letters = _ANSWER.findall(text)
    if len(letters) != 1:
        return None
    index = OPTION_LETTERS.index(letters[0])
    return index if index < num_choices else None


def _target(question: Question, output_format: str, quirks: bool) -> str | None:
    lecture, solution = _explanation(question, quirks)
    because = _one_line(f"{lecture} {solution}")
    if output_format == "E":
        target = f"Solution: {solution}"
    elif output_format == "LE":
        target = f"Solution: {lecture} {solution}{'.' if quirks else ''}"
    elif question.answer is None:
        return None
    else:
        answer = f"The answer is ({OPTION_LETTERS[question.answer]})."
        if output_format == "A":
            target = answer
        elif output_format == "LEA":
            target = f"{because} {answer}"
        else:
            target = f"{answer} BECAUSE: {because}" if because or quirks else answer
    return _one_line(target.replace("Answer:", "") if quirks else target)


def _explanation(question: Question, quirks: bool) -> tuple[str, str]:
    newline = r"\n" if quirks else " "
    return question.lecture.replace("\n", newline), question.solution.replace("\n", newline)


def _one_line(text: str) -> str:
    return " ".join(text.split())
