"""Is a word a noun or a verb? No picture."""

from numpy.random import Generator

from mmcot_data.sample.skill import Exercise, Labels, TextSkill, Wording, conclude

__all__ = ["NOUNS"]

_NOUNS = (
    "apple",
    "bottle",
    "bridge",
    "chair",
    "child",
    "city",
    "coat",
    "cousin",
    "desert",
    "doctor",
    "farmer",
    "flower",
    "garden",
    "guitar",
    "house",
    "island",
    "kitchen",
    "lamp",
    "letter",
    "market",
    "music",
    "museum",
    "ocean",
    "pencil",
    "picture",
    "planet",
    "rabbit",
    "river",
    "school",
    "shoe",
    "spoon",
    "station",
    "table",
    "teacher",
    "tiger",
    "tree",
    "uncle",
    "village",
    "window",
    "zebra",
)
_VERBS = (
    "accept",
    "admire",
    "allow",
    "become",
    "begin",
    "behave",
    "believe",
    "bring",
    "build",
    "carry",
    "choose",
    "climb",
    "create",
    "decide",
    "deliver",
    "destroy",
    "discover",
    "eat",
    "enjoy",
    "explain",
    "forget",
    "grow",
    "hear",
    "invite",
    "jump",
    "learn",
    "listen",
    "obey",
    "prepare",
    "pretend",
    "protect",
    "read",
    "receive",
    "remember",
    "sing",
    "speak",
    "suggest",
    "think",
    "wander",
    "write",
)


def _write(rng: Generator) -> Exercise:
    answer = int(rng.integers(2))
    word = str(rng.choice((_NOUNS, _VERBS)[answer]))
    wording = Wording(question=f"Is the word {word} a noun or a verb?", choices=("noun", "verb"))
    meaning = ("names something", "tells what someone does")[answer]
    return Exercise(
        wording=wording,
        answer=answer,
        solution=f"The word {word} {meaning}. {conclude(wording.choices[answer])}",
    )


NOUNS = TextSkill(
    labels=Labels(
        subject="language science",
        topic="grammar",
        category="Nouns and verbs",
        skill="Tell nouns from verbs",
        grades=(1, 9),
        lecture="A noun names a person or a thing. A verb tells an action.",
    ),
    write=_write,
)
