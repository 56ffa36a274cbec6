"""Is a frog an amphibian? No picture."""

from numpy.random import Generator

from mmcot_data.sample.skill import Exercise, Labels, TextSkill, Wording, conclude

__all__ = ["ANIMALS"]

_CLASSES = {
    "amphibian": ("frog", "toad", "newt", "salamander"),
    "bird": ("duck", "eagle", "owl", "penguin", "robin"),
    "fish": ("cod", "salmon", "shark", "trout", "tuna"),
    "mammal": ("bat", "dog", "horse", "mouse", "whale"),
    "reptile": ("crocodile", "gecko", "lizard", "snake", "turtle"),
}
_ANIMALS = {animal: group for group, animals in _CLASSES.items() for animal in animals}
_TRUE_FALSE_SHARE = 0.25


def _write(rng: Generator) -> Exercise:
    animal = str(rng.choice(list(_ANIMALS)))
    group = _ANIMALS[animal]
    answer = int(rng.integers(2))
    asked = group if answer == 0 else str(rng.choice([g for g in _CLASSES if g != group]))
    this, truth, claim = _with_article(animal), _with_article(group), _with_article(asked)
    if rng.random() < _TRUE_FALSE_SHARE:
        wording = Wording(
            question=f"True or false: {this} is {claim}.",
            choices=("true", "false"),
            task="true-or false",
        )
    else:
        wording = Wording(question=f"Is {this} {claim}?", choices=("yes", "no"), task="yes or no")
    ending = "." if answer == 0 else f", not {claim}."
    return Exercise(
        wording=wording,
        answer=answer,
        solution=f"{this.capitalize()} is {truth}{ending} {conclude(wording.choices[answer])}",
    )


def _with_article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


ANIMALS = TextSkill(
    labels=Labels(
        subject="natural science",
        topic="biology",
        category="Animals",
        skill="Classify animals",
        grades=(2, 10),
        lecture="Animals with a backbone belong to one of five groups.",
    ),
    write=_write,
)
