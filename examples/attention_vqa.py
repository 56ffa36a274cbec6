"""Another kind of VQA model on the same feature shards: bags of words that look at patches.

    python examples/attention_vqa.py --features shards/tiny

Each choice is scored: question and choice together attend to the patches of the picture, and what
they saw decides. The model is trained twice, without pictures and with them, because an accuracy
means little without the one that the text alone reaches. Of mmcot it uses the reading side only:
``read_questions``, ``select_split`` and ``open_features``.

Shape suffixes: B = batch, K = choices, T = words, P = patches, D = feature width, C = channels,
H = attention heads.
"""

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from mmcot_data.errors import MmcotError
from mmcot_data.questions import Question, read_questions, select_split
from mmcot_data.shards import FeatureSet, open_features

__all__ = ["AttentionVQA", "Batches", "main"]

_WIDTH, _NUM_HEADS = 128, 8
_BATCH_SIZE, _LEARNING_RATE = 64, 1e-3
_NO_WORD = 0


class AttentionVQA(nn.Module):
    """Scores each choice by what question and choice see in the patches.

    Args:
        num_words: Size of the vocabulary; word 0 is padding.
        feature_dim: Width D of the patch features.
    """

    def __init__(self, num_words: int, feature_dim: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(num_words, _WIDTH, mode="sum", padding_idx=_NO_WORD)
        self.norm = nn.LayerNorm(feature_dim)
        self.no_picture = nn.Parameter(torch.zeros(feature_dim))
        self.query = nn.Linear(2 * _WIDTH, _WIDTH)
        self.key = nn.Linear(feature_dim, _WIDTH)
        self.value = nn.Linear(feature_dim, _WIDTH)
        self.score = nn.Sequential(
            nn.Linear(3 * _WIDTH, 2 * _WIDTH), nn.GELU(), nn.Linear(2 * _WIDTH, 1)
        )
        with torch.no_grad():
            self.bag.weight *= 0.3

    def forward(
        self,
        question_BT: torch.Tensor,
        choices_BKT: torch.Tensor,
        valid_BK: torch.Tensor,
        features_BPD: torch.Tensor,
        mask_BP: torch.Tensor,
    ) -> torch.Tensor:
        """Scores (B, K), minus infinity where there is no such choice.

        Args:
            question_BT: Words of question and hint, as int64 numbers.
            choices_BKT: Words of each choice, as int64 numbers.
            valid_BK: True where a question has that many choices.
            features_BPD: Patch features of any floating dtype.
            mask_BP: True for valid patches; a question without a picture has none.
        """
        B, K, _ = choices_BKT.shape
        question_BKC = self.bag(question_BT)[:, None].expand(B, K, -1)
        choices_BKC = self.bag(choices_BKT.flatten(0, 1)).unflatten(0, (B, K))
        text_BKC = torch.cat([question_BKC, choices_BKC], -1)
        # One learned patch is always valid, so that attention is defined without a picture.
        no_picture_B1D = self.no_picture.expand(B, 1, -1)
        patches_BPD = torch.cat([no_picture_B1D, self.norm(features_BPD.float())], 1)
        mask_BP = functional.pad(mask_BP, (1, 0), value=True)
        query_BHKC, key_BHPC, value_BHPC = (
            part.unflatten(-1, (_NUM_HEADS, -1)).transpose(1, 2)
            for part in (self.query(text_BKC), self.key(patches_BPD), self.value(patches_BPD))
        )
        seen_BHKC = functional.scaled_dot_product_attention(
            query_BHKC, key_BHPC, value_BHPC, attn_mask=mask_BP[:, None, None]
        )
        seen_BKC = seen_BHKC.transpose(1, 2).flatten(2)
        scores_BK = self.score(torch.cat([text_BKC, seen_BKC], -1)).squeeze(-1)
        return scores_BK.masked_fill(~valid_BK, -torch.inf)


class Batches:
    """Turns questions into the arguments of ``AttentionVQA``.

    Args:
        questions: Their words are the vocabulary; other words are left out.
        features: Where pictures come from; None for a model without pictures.
    """

    def __init__(self, questions: Sequence[Question], features: FeatureSet | None) -> None:
        texts = (text for q in questions for text in (q.question, q.hint, *q.choices))
        words = sorted({word for text in texts for word in _split(text)})
        self.numbers = {word: number for number, word in enumerate(words, _NO_WORD + 1)}
        self.num_words = len(words) + 1
        self.features = features
        self.feature_dim = _WIDTH if features is None else features.spec.feature_dim

    def __call__(self, questions: Sequence[Question]) -> tuple[torch.Tensor, ...]:
        """Words (B, T) and (B, K, T), valid choices (B, K), features (B, P, D), mask (B, P)."""
        B, K = len(questions), max(len(q.choices) for q in questions)
        choices = [(*q.choices, *[""] * (K - len(q.choices))) for q in questions]
        num_choices_B = torch.tensor([len(q.choices) for q in questions])
        if self.features is None:
            features_BPD = torch.zeros(B, 0, self.feature_dim)
            mask_BP = torch.zeros(B, 0, dtype=torch.bool)
        else:
            found = self.features.gather([q.question_id for q in questions])
            features_BPD, mask_BP = map(torch.from_numpy, found)
        return (
            self._bags([f"{q.question} {q.hint}" for q in questions]),
            self._bags([text for texts in choices for text in texts]).unflatten(0, (B, K)),
            torch.arange(K) < num_choices_B[:, None],
            features_BPD,
            mask_BP,
        )

    def _bags(self, texts: Sequence[str]) -> torch.Tensor:
        numbers = [[self.numbers.get(word, _NO_WORD) for word in _split(text)] for text in texts]
        bags = [torch.tensor(bag or [_NO_WORD]) for bag in numbers]
        return pad_sequence(bags, batch_first=True, padding_value=_NO_WORD)


def _split(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _train(batches: Batches, questions: Sequence[Question], epochs: int, seed: int) -> AttentionVQA:
    torch.manual_seed(seed)
    model = AttentionVQA(batches.num_words, batches.feature_dim)
    optimizer = torch.optim.AdamW(model.parameters())
    num_steps = epochs * -(-len(questions) // _BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, num_steps)
    start = time.monotonic()
    for epoch in range(1, epochs + 1):
        total_loss = 0.0
        for places in torch.randperm(len(questions)).split(_BATCH_SIZE):
            batch = [questions[place] for place in places.tolist()]
            answers_B = torch.tensor([question.answer for question in batch])
            loss = functional.cross_entropy(model(*batches(batch)), answers_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total_loss += loss.item() * len(batch)
        mean, seconds = total_loss / len(questions), time.monotonic() - start
        print(f"  epoch {epoch}/{epochs}: loss {mean:.3f}, {seconds:.0f} s", flush=True)
    return model


@torch.no_grad()
def _answer(
    model: AttentionVQA, batches: Batches, questions: Sequence[Question]
) -> dict[str, bool]:
    """Whether the model is right, by question id."""
    correct: dict[str, bool] = {}
    for start in range(0, len(questions), _BATCH_SIZE):
        batch = questions[start : start + _BATCH_SIZE]
        chosen = model(*batches(batch)).argmax(1).tolist()
        correct |= {q.question_id: q.answer == c for q, c in zip(batch, chosen, strict=True)}
    return correct


def _make_table(
    splits: dict[str, list[Question]],
    features: FeatureSet | None,
    results: dict[str, dict[str, bool]],
) -> str:
    rows = [["split", "questions", "n", "with features", "chance", *results]]
    for split, questions in splits.items():
        for kind, has_image in (("image", True), ("text", False)):
            group = [q for q in questions if q.has_image == has_image]
            if not group:
                continue
            num_pictures = sum(features is not None and q.question_id in features for q in group)
            sums = [sum(1 / len(q.choices) for q in group)]
            sums += [sum(correct[q.question_id] for q in group) for correct in results.values()]
            shares = [f"{total / len(group):.1%}" for total in sums]
            rows.append([split, kind, str(len(group)), str(num_pictures), *shares])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(lines)


def _run(args: argparse.Namespace) -> None:
    features = open_features(args.features) if args.features else None
    questions = read_questions(args.artifacts or Path(args.features).parent)
    splits = {
        name: [q for q in select_split(questions, name) if q.answer is not None]
        for name in ("train", args.split)
    }
    train = splits["train"]
    if features is not None and not any(q.question_id in features for q in train):
        print("No training question has features: what pictures show cannot be learned.")
    results = {}
    for name in ["text only"] if args.text_only else ["text only", "with pictures"]:
        print(f"training {name}, {len(train)} questions")
        batches = Batches(train, features if name == "with pictures" else None)
        model = _train(batches, train, args.epochs, args.seed)
        results[name] = _answer(model, batches, [q for part in splits.values() for q in part])
    print(f"\n{_make_table(splits, features, results)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate and print a table.

    Raises:
        SystemExit: With a message, where an argument, the questions or the shards are at fault.
    """
    parser = argparse.ArgumentParser(description="Train a small VQA model on a feature set.")
    parser.add_argument("--features", help="feature set, such as shards/tiny")
    parser.add_argument("--artifacts", type=Path, help="artifact root (default: of --features)")
    parser.add_argument("--text-only", action="store_true", help="train without pictures only")
    parser.add_argument("--split", default="test", help="to evaluate on (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args(argv)
    if args.features is None and not (args.text_only and args.artifacts):
        parser.error("--features is needed, or --artifacts with --text-only")
    if args.epochs < 1:
        parser.error(f"--epochs is {args.epochs}, expected at least 1")
    try:
        _run(args)
    except MmcotError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
