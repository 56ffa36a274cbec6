"""Which word is a noun? No picture."""

from numpy.random import Generator

from mmcot_data.sample.skill import Exercise, Labels, TextSkill, Wording, conclude

__all__ = ["NOUNS"]

_NOUNS = (
    "apple",
    "chair",
    "city",
    "doctor",
    "garden",
    "house",
    "kitchen",
    "letter",
    "music",
    "rabbit",
    "river",
    "school",
    "table",
    "teacher",
    "tree",
    "window",
)
_VERBS = (
    "become",
    "begin",
    "bring",
    "build",
    "carry",
    "choose",
    "eat",
    "forget",
    "hear",
    "jump",
    "learn",
    "read",
    "sing",
    "speak",
    "think",
    "write",
)


def _write(rng: Generator) -> Exercise:
    noun, verb = str(rng.choice(_NOUNS)), str(rng.choice(_VERBS))
    answer = int(rng.integers(2))
    choices = (noun, verb) if answer == 0 else (verb, noun)
    return Exercise(
        wording=Wording(question="Which word is a noun?", choices=choices),
        answer=answer,
        solution=f"The word {noun} names something. The word {verb} tells what someone does. "
        f"{conclude(noun)}",
    )


NOUNS = TextSkill(
    labels=Labels(
        subject="language science",
        topic="grammar",
        category="Nouns and verbs",
        skill="Find the noun",
        grades=(1, 9),
        lecture="A noun names a person, a place, or a thing.",
    ),
    write=_write,
)
