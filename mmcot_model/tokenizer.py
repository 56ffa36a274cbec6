"""T5's tokenizer: trained on the questions where no pretrained model is given."""

import math
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import T5Tokenizer

__all__ = ["train_tokenizer"]

_NUM_SENTINELS = 100
_SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")


def train_tokenizer(texts: Iterable[str], vocab_size: int = 8000) -> T5Tokenizer:
    """Train a tokenizer of T5's kind, without any download.

    A Unigram model with T5's layout of ids: ``<pad>`` 0, ``</s>`` 1, ``<unk>`` 2, the pieces, and
    100 ``<extra_id_N>`` at the end, so that a pretrained tokenizer is only a change of path. Its
    pieces are those of a byte-pair encoding, scored by their frequency: unlike Unigram's own
    trainer that keeps frequent words whole on a text of any size. An option letter, ``(A)``, is
    one piece wherever it stands.

    Args:
        texts: Training texts; their whitespace is not kept.
        vocab_size: Upper bound of the number of ids; a small text yields fewer.
    """
    corpus = list(texts)
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.normalizer = normalizers.NFKC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace("▁", prepend_scheme="always"),
            pre_tokenizers.Split(Regex(r"[.,:;?!]"), behavior="isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - _NUM_SENTINELS,
        min_frequency=2,
        special_tokens=list(_SPECIAL_TOKENS),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    counts: Counter[str] = Counter()
    for encoding in bpe.encode_batch(corpus):
        counts.update(encoding.tokens)
    total = counts.total()
    pieces = sorted(bpe.get_vocab().items(), key=lambda entry: entry[1])
    vocab = [
        (piece, 0.0 if piece in _SPECIAL_TOKENS else math.log((counts[piece] + 0.5) / total))
        for piece, _ in pieces
    ]
    vocab += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(_NUM_SENTINELS))]
    return T5Tokenizer(vocab=vocab, extra_ids=_NUM_SENTINELS)
