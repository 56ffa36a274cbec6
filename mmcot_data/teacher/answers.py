r"""Which choice a teacher's text names.

Markup (``**``, ``$``, ``\boxed{}``) is ignored. The text names a choice where it says ``the answer
is …``, ``answer: …``, and at its beginning if it continues such a sentence. There must follow

  * a letter: ``(B)``, ``[B]``, ``B.``, ``B:``, ``B`` alone, or ``B`` before a further word; a
    beginning ``A`` or ``I`` before a further word is no letter, for it may be an English word;
  * or a choice's text (the longest that fits, whatever the case), if exactly one fits and is not
    part of more, as ``iron`` is of ``iron oxide`` and ``1`` of ``1,000``: there follows the end,
    that of a sentence, or ``,;:)`` and a blank, and then no ``or``, ``and``, ``nor``, digit or
    operator.

A statement is passed over if a negation stands before it in its sentence and no ``so``, ``but`` or
the like between them. All other such places, and every further letter in their sentences, must name
the same choice. If there is no such place, a last line that is nothing but a letter or a choice's
text counts; in the continuation of ``the answer is``, also a single letter in parentheses, if
nothing is negated. Anything else is None: nothing is guessed.
"""

import re
from collections.abc import Sequence
from typing import Final

from mmcot_data.questions import OPTION_LETTERS

__all__ = ["read_answer"]

_MARKUP: Final = re.compile(r"\\(?:boxed|text|textbf|mathrm)\s*(?=\{)|[*_`${}]")
_STATEMENT: Final = re.compile(
    r"\banswer(?:\s+(?:is|would\s+be|should\s+be|must\s+be)\b\s*:?|\s*[:=])\s*", re.IGNORECASE
)
_FILLER: Final = re.compile(
    r"(?:[\s\"'“”\u2018\u2019:]|\b(?:option|choice|letter|therefore|thus|clearly)\b,?)*",
    re.IGNORECASE,
)
_SENTENCE: Final = re.compile(r".*?(?=[.!?](?:\s|$)|\n|$)", re.DOTALL)
_IN_PARENTHESES: Final = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")
_BARE: Final = re.compile(r"([A-Z])(?![\w'\u2019/-])")
_BARE_SURE: Final = re.compile(r"([B-HJ-Z])(?![\w'\u2019/-])|([AI])(?=[).:,;]|\s*(?:\n|$))")
_FURTHER: Final = re.compile(r"[(\[]([A-Z])[)\]]|\b(?:or|and|nor)\s+([A-Z])(?![\w'\u2019-])")
_ALONE: Final = re.compile(r"[(\[]?([A-Z])[)\]]?\.?")
_ENDED: Final = re.compile(
    r"""["'\u201d\u2019)\]]*
        (?: $ | [.!?]+ ["'\u201d\u2019)\]]* (?:\s|$)
          | [,;:)] \s (?! (?:or|and|nor)\b | [-+=/*<>\u2212\u2013\u00d7\u00f7\d] ) )""",
    re.VERBOSE,
)
_NEGATION: Final = re.compile(
    r"\b(?:not|never|neither|nor|none|except|cannot|wrong|incorrect)\b|n['\u2019]t\b", re.IGNORECASE
)
_NEW_CLAUSE: Final = re.compile(
    r"[.!?](?=\s)|\n|\b(?:so|thus|hence|therefore|consequently|but)\b", re.IGNORECASE
)
_CITED: Final = re.compile(r"[(\[]([A-Z])[)\]]")


def read_answer(text: str, choices: Sequence[str], *, continues: bool = False) -> int | None:
    """The choice that a text names, as an index; None if it names none, or several.

    Args:
        text: What the teacher wrote.
        choices: The texts of the choices.
        continues: The text continues a prompt that ends with ``the answer is``.
    """
    text = _MARKUP.sub("", text).strip()
    texts = [_comparable(choice) for choice in choices]
    named: set[int] = set()
    if continues:
        named |= _named_first(text, texts, _BARE_SURE)
    for match in _STATEMENT.finditer(text):
        clause = _NEW_CLAUSE.split(text[: match.start()])[-1]
        if not _NEGATION.search(clause):
            named |= _named_first(text[match.end() :], texts, _BARE)
    if not named:
        named = _named_last(text, texts)
    if not named and continues and not _NEGATION.search(text):
        named = {OPTION_LETTERS.index(letter) for letter in _CITED.findall(text)}
    if len(named) != 1:
        return None
    (index,) = named
    return index if index < len(choices) else None


def _named_first(text: str, texts: Sequence[str], bare: re.Pattern[str]) -> set[int]:
    """What the beginning of a text names: choices, or letters of none."""
    filler = _FILLER.match(text)
    rest = text[filler.end() if filler else 0 :]
    if cited := _IN_PARENTHESES.match(rest):
        named = {OPTION_LETTERS.index(cited[1].upper())}
    else:
        named, is_whole = _starting(rest, texts)
        if letter := bare.match(rest):
            named.add(OPTION_LETTERS.index(letter[0]))
        elif not is_whole:
            named = set()
    sentence = _SENTENCE.match(rest)
    if named and sentence:
        for match in _FURTHER.finditer(sentence[0]):
            named.add(OPTION_LETTERS.index(match[1] or match[2]))
    return named


def _starting(text: str, texts: Sequence[str]) -> tuple[set[int], bool]:
    """The longest choices with which a text starts, and whether it says nothing beyond them."""
    line = _comparable(text.partition("\n")[0])
    fitting = {
        index: len(choice)
        for index, choice in enumerate(texts)
        if choice and re.match(rf"{re.escape(choice)}(?!\w)", line)
    }
    longest = max(fitting.values(), default=0)
    starting = {index for index, length in fitting.items() if length == longest}
    return starting, _ENDED.match(line, longest) is not None


def _named_last(text: str, texts: Sequence[str]) -> set[int]:
    line = text.rpartition("\n")[2].strip()
    named = {index for index, choice in enumerate(texts) if choice and choice == _comparable(line)}
    if alone := _ALONE.fullmatch(line):
        named.add(OPTION_LETTERS.index(alone[1]))
    return named


def _comparable(text: str) -> str:
    return " ".join(_MARKUP.sub("", text).casefold().split()).strip("\"'“”\u2018\u2019").rstrip(".")
