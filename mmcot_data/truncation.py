"""Shorten sources that are too long, so that what matters is kept.

A source ends with what the model needs most: the rationale to answer from, and the cue that says
what to write. Cutting its end, as Multimodal-CoT does, takes these away first. Here whole words go,
the least important first, until the rest fits:

  1. the context, from its end: the caption, then the hint. One of which nothing is left reads
     ``N/A``, as where there is none;
  2. the rationale, from its front: its conclusion stands at its end. Its ``Solution:`` stays;
  3. the question, from its end: ScienceQA asks first, then quotes the text that it asks about;
  4. the options, each time the last word of the longest; their letters stay.

The labels, the letters and the cue are never cut.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from mmcot_data.errors import DataError
from mmcot_data.prompts import NO_CONTEXT, SOLUTION_CUE, SourceParts

__all__ = ["Truncation", "cut_words", "num_removable", "shorten", "words_to_cut"]

Truncation = Literal["keep", "right"]
"""How a source that is too long is cut: as this module does it, or its end, as Multimodal-CoT."""


def words_to_cut(
    sources: Sequence[SourceParts],
    max_tokens: int,
    count_tokens: Callable[[list[str]], list[int]],
) -> list[int]:
    """How many words of each source have to go; the number is meant for ``shorten``.

    Whole shortened texts are counted, so that this holds for any tokenizer: no result exceeds the
    limit, and with the word that went last it would.

    Args:
        sources: Sources that exceed the limit.
        max_tokens: Most tokens of a source.
        count_tokens: Tokens of texts, those that the tokenizer adds included.

    Raises:
        DataError: If the limit has no room for labels, letters and cue.
    """
    if not sources:
        return []
    bare = [shorten(source, num_removable(source)).text for source in sources]
    lengths = count_tokens(bare)
    if (longest := max(lengths)) > max_tokens:
        raise DataError(
            f"a source may have {max_tokens} tokens, but labels, option letters and cue alone take "
            f"{longest} in {bare[lengths.index(longest)]!r}: expected a limit of at least "
            f"{longest}, and more for what is asked"
        )
    words = sorted({word for source in sources for word in source.text.split()} | {NO_CONTEXT})
    empty, *with_word = count_tokens(["", *words])
    tokens_of = {word: tokens - empty for word, tokens in zip(words, with_word, strict=True)}

    def add_up(texts: list[str]) -> list[int]:
        return [empty + sum(tokens_of[word] for word in text.split()) for text in texts]

    guesses = _search(sources, max_tokens, add_up, [()] * len(sources))
    # "N/A" may be longer than the last word of a context: asked first whether that word can stay,
    # what is left to search has ever fewer tokens.
    last_word = [len(source.context.split()) - 1 for source in sources]
    hints = [(last, guess, guess - 1) for last, guess in zip(last_word, guesses, strict=True)]
    return _search(sources, max_tokens, count_tokens, hints)


def _search(
    sources: Sequence[SourceParts],
    max_tokens: int,
    count_tokens: Callable[[list[str]], list[int]],
    hints: Sequence[tuple[int, ...]],
) -> list[int]:
    """Bisection of all sources at once; each tries its hints first."""
    too_few, enough = [0] * len(sources), [num_removable(source) for source in sources]
    while open_ones := [i for i in range(len(sources)) if enough[i] - too_few[i] > 1]:
        tried = [
            next(
                (hint for hint in hints[i] if too_few[i] < hint < enough[i]),
                (too_few[i] + enough[i]) // 2,
            )
            for i in open_ones
        ]
        texts = [shorten(sources[i], words).text for i, words in zip(open_ones, tried, strict=True)]
        for i, words, tokens in zip(open_ones, tried, count_tokens(texts), strict=True):
            (enough if tokens <= max_tokens else too_few)[i] = words
    return enough


def num_removable(source: SourceParts) -> int:
    """How many words of a source can go."""
    return sum(map(len, _removable(source)))


def shorten(source: SourceParts, num_words: int) -> SourceParts:
    """A source without its ``num_words`` least important words, at most ``num_removable``."""
    (context, rationale, question, *options), _ = _divide(source, num_words)
    label = [SOLUTION_CUE] if _has_label(source) else []
    letters = [option.split()[:1] for option in source.options]
    return replace(
        source,
        context=" ".join(context),
        rationale=" ".join(label + rationale),
        question=" ".join(question),
        options=tuple(" ".join(a + b) for a, b in zip(letters, options, strict=True)),
    )


def cut_words(source: SourceParts, num_words: int) -> str:
    """What ``shorten`` takes away, in the order of the source; `` … `` between places."""
    _, (context, rationale, question, *options) = _divide(source, num_words)
    places = (question, context, *options, rationale)
    return " … ".join(" ".join(words) for words in places if words)


def _divide(source: SourceParts, num_words: int) -> tuple[list[list[str]], list[list[str]]]:
    """The words that stay and those that go, by place."""
    places = _removable(source)
    num_gone = [0] * len(places)
    for place in range(3):  # context, rationale, question
        num_gone[place] = min(num_words, len(places[place]))
        num_words -= num_gone[place]
    for _ in range(num_words):
        longest = max(range(3, len(places)), key=lambda i: len(places[i]) - num_gone[i])
        num_gone[longest] += 1
    stay, go = [], []
    for place, (words, gone) in enumerate(zip(places, num_gone, strict=True)):
        at = gone if place == 1 else len(words) - gone  # a rationale loses its front
        first, last = words[:at], words[at:]
        stay.append(last if place == 1 else first)
        go.append(first if place == 1 else last)
    return stay, go


def _removable(source: SourceParts) -> list[list[str]]:
    """The words that can go, by place: context, rationale, question, and each option."""
    rationale = source.rationale.split()
    return [
        source.context.split(),
        rationale[1:] if _has_label(source) else rationale,
        source.question.split(),
        *(option.split()[1:] for option in source.options),
    ]


def _has_label(source: SourceParts) -> bool:
    return source.rationale.split()[:1] == [SOLUTION_CUE]
