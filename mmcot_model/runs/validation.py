"""Scores of generated texts of the validation split, by which the best weights are chosen."""

from collections.abc import Mapping, Sequence

from mmcot_data.prompts import gold_rationale, parse_answer
from mmcot_data.questions import Question
from mmcot_data.rationales import Rationale
from mmcot_model.evaluation import score_answers, score_rationales

__all__ = ["validate_answers", "validate_rationales"]


def validate_answers(questions: Sequence[Question], texts: Sequence[str]) -> dict[str, float]:
    """Accuracy in percent; an answer that cannot be read is wrong.

    Args:
        questions: Those that were asked.
        texts: What the model wrote, in their order.
    """
    answers = {
        question.question_id: parse_answer(text, len(question.choices))
        for question, text in zip(questions, texts, strict=True)
    }
    score = score_answers(questions, answers).buckets["acc_average"]
    return {"accuracy": score.num_correct / score.n * 100}


def validate_rationales(
    questions: Sequence[Question],
    texts: Sequence[str],
    prompt_format: str,
    targets: Mapping[str, Sequence[Rationale]] | None,
) -> dict[str, float]:
    """ROUGE-L times 100, an empty rationale counted as 0.

    Args:
        questions: Those that were asked.
        texts: What the model wrote, in their order.
        prompt_format: Of stage 1.
        targets: What it learns to write instead of gold rationales; a question of which there is
            none is compared with its gold one.
    """
    pairs = [
        (text, _reference(question, prompt_format, targets))
        for question, text in zip(questions, texts, strict=True)
    ]
    scored = [score_rationales([pair]).rouge or 0.0 for pair in pairs if pair[1].strip()]
    return {"rougeL": sum(scored) / len(scored) if scored else 0.0}


def _reference(
    question: Question, prompt_format: str, targets: Mapping[str, Sequence[Rationale]] | None
) -> str:
    rows = (targets or {}).get(question.question_id)
    return rows[0].rationale if rows else gold_rationale(question, prompt_format)
