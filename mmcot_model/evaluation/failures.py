"""What counts for a question that was not answered, or not in a way that can be read.

``wrong``: it is wrong. ``random``: a choice is drawn, as in Multimodal-CoT's main.py, where it is
right in about a fifth of the cases. Its draws depend on those before; these depend on a seed and
the question alone.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from mmcot_data.prompts import parse_answer
from mmcot_data.questions import Question
from mmcot_data.row_seeds import row_seed
from mmcot_model.evaluation.predictions import Prediction

__all__ = ["FAILURES", "Failures", "settled_answers"]

Failures = Literal["wrong", "random"]
FAILURES: tuple[Failures, ...] = ("wrong", "random")

_NUM_OPTIONS = 5
"""The reference knows the letters A to E, however many choices a question has."""


def settled_answers(
    questions: Iterable[Question],
    predictions: Mapping[str, Prediction],
    failures: Failures = "wrong",
    seed: int = 42,
) -> dict[str, int | None]:
    """The answers that are scored.

    Args:
        questions: The questions to score.
        predictions: By question id; some may be absent.
        failures: ``wrong`` leaves a failure without an answer. ``random`` draws one of five
            options for it, unless the model's text names a letter up to E that is none of the
            question's choices: the reference takes that for an answer, which is wrong.
        seed: Of the draws.

    Returns:
        An index by question id, which may be beyond the choices; None for no answer.
    """
    answers: dict[str, int | None] = {}
    for question in questions:
        prediction = predictions.get(question.question_id)
        answer = None if prediction is None else prediction.answer
        if answer is None and failures == "random":
            text = "" if prediction is None else prediction.text or ""
            answer = parse_answer(text, _NUM_OPTIONS)
            if answer is None:
                answer = row_seed(seed, question_id=question.question_id) % _NUM_OPTIONS
        answers[question.question_id] = answer
    return answers
