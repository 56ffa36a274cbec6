"""BLEU-1, BLEU-4 and ROUGE-L of rationales, with the values of Multimodal-CoT's scorer.

Its evaluations.py calls nltk 3.6.6 and rouge 1.0.1 in ways of its own, which are reproduced here
so that figures are comparable; other programs' BLEU and ROUGE differ.

  * Both: a pair with an empty reference is left out.
  * BLEU: words are split at blanks and full stops; one reference, no smoothing. An order without
    a match has the precision ``sys.float_info.min``, so a perfect text of three words has a
    BLEU-4 of 1e-77.
  * ROUGE-L: sentences end at a full stop; words are counted once, however often they occur. The
    matches are the union of the longest common subsequences (LCS) of all pairs of sentences. Of
    several LCS one is chosen by a rule in which prediction and reference are not alike; the
    scorer exchanges the two, and so does this. An empty prediction is left out.

Where the original ends in an error (a text of full stops only) ROUGE-L is 0.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["RationaleScores", "bleu", "rouge_l", "score_rationales"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RationaleScores:
    """Means over all rationales, times 100; None where every pair was left out."""

    bleu1: float | None
    bleu4: float | None
    rouge: float | None


def score_rationales(pairs: Iterable[tuple[str, str]]) -> RationaleScores:
    """Score rationales.

    Args:
        pairs: Prediction and reference; blanks around them do not count.
    """
    stripped = [(prediction.strip(), reference.strip()) for prediction, reference in pairs]
    scored = [(prediction, reference) for prediction, reference in stripped if reference]
    return RationaleScores(
        bleu1=_mean([bleu(*pair, max_order=1) for pair in scored]),
        bleu4=_mean([bleu(*pair, max_order=4) for pair in scored]),
        rouge=_mean([rouge_l(*pair) for pair in scored if pair[0]]),
    )


def bleu(prediction: str, reference: str, max_order: int) -> float:
    """Sentence BLEU with equal weights for the orders 1 to ``max_order``; 0 to 1."""
    predicted_words, reference_words = _bleu_words(prediction), _bleu_words(reference)
    log_precisions = []
    for order in range(1, max_order + 1):
        predicted = _ngrams(predicted_words, order)
        num_matches = (predicted & _ngrams(reference_words, order)).total()
        if order == 1 and not num_matches:
            return 0.0
        precision = num_matches / max(1, predicted.total()) or sys.float_info.min
        log_precisions.append(math.log(precision) / max_order)
    log_brevity = min(0.0, 1 - len(reference_words) / len(predicted_words))
    return math.exp(log_brevity) * math.exp(math.fsum(log_precisions))


def rouge_l(prediction: str, reference: str) -> float:
    """Summary-level ROUGE-L F over distinct words; 0 to 1."""
    predicted, expected = _sentences(prediction), _sentences(reference)
    matches: set[str] = set()
    for sentence in predicted:
        for other in expected:
            matches |= _lcs_words(sentence, other)
    if not matches:
        return 0.0
    precision = len(matches) / len(set().union(*predicted))
    recall = len(matches) / len(set().union(*expected))
    return 2 * precision * recall / (precision + recall + 1e-8)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) * 100 if values else None


def _bleu_words(text: str) -> list[str]:
    return [word for word in re.split(r"\s|\.", text) if word]


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def _sentences(text: str) -> list[list[str]]:
    # A blank between two full stops is a sentence of one empty word, as in the original.
    return [sentence.split() or [""] for sentence in text.split(".") if sentence]


def _lcs_words(words: Sequence[str], others: Sequence[str]) -> set[str]:
    """The distinct words of one LCS; of several, that which gives up ``others`` first."""
    if set(words).isdisjoint(others):
        return set()
    lengths = [[0] * (len(others) + 1)]
    for word in words:
        above, row = lengths[-1], [0]
        for j, other in enumerate(others):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
        lengths.append(row)
    common: set[str] = set()
    i, j = len(words), len(others)
    while i and j:
        if words[i - 1] == others[j - 1]:
            common.add(words[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return common
