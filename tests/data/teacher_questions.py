"""A small artifact root for teachers."""

from mmcot_data.questions import Question, write_questions

__all__ = ["SECRETS", "make_question", "write_root"]

SECRETS = ("SECRETLECTURE", "SECRETSOLUTION")

_THINGS = ("iron", "glass", "copper", "wool", "rubber", "nickel", "paper", "steel")


def make_question(number, split="train", **values):
    thing = _THINGS[number % len(_THINGS)]
    fields = {
        "dataset": "d",
        "question_id": str(number),
        "split": split,
        "position": number,
        "question": f"Is {thing} number {number} magnetic?",
        "choices": ("yes", "no", "maybe so")[: 2 + number % 2],
        "answer": number % 2,
        "hint": f"A hint\nabout {thing}." if number % 3 else "",
        "lecture": SECRETS[0],
        "solution": SECRETS[1],
    }
    return Question(**fields | values)


def write_root(root, num_train=6, num_test=2):
    """Question ids 0, 1, … of train, then those of test."""
    questions = [make_question(number) for number in range(num_train)]
    questions += [
        make_question(number, "test") for number in range(num_train, num_train + num_test)
    ]
    write_questions(root / "questions.parquet", questions)
    return questions
