"""Sources that are too long lose what matters least, and not a word more than they must."""

import json
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from mmcot_data.cli import main
from mmcot_data.errors import DataError
from mmcot_data.inputs import ModelInput, encode_inputs, model_inputs
from mmcot_data.prompts import SourceParts, gold_rationale
from mmcot_data.questions import Question, write_questions
from mmcot_data.tokens import encode_sources
from mmcot_model.batches import tokenize
from mmcot_model.tokenizer import train_tokenizer

WORDS = ["a", "is", "farther", "north,", "Åbo", "½", "(A)", "Solution:", "N/A", "antidisestablish"]
SOURCE = SourceParts(
    question="Which is colder?",
    context="Look there. a cup",
    options=("(A) ice", "(B) very hot tea", "(C)"),
    rationale="Solution: Ice melts. It is cold.",
    cue="Answer:",
)


def end_with_s(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def word_tokenizer():
    """One token a word, so that lengths can be counted by eye."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return end_with_s(tokenizer)


def phrase_tokenizer():
    """Its tokens reach over blanks: a text less a word may have as many tokens, or more."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator([SOURCE.text, "Solution: a is farther north, N/A"] * 9, trainer)
    return end_with_s(tokenizer)


@pytest.fixture(scope="module")
def tokenizers():
    trained = train_tokenizer([SOURCE.text, "Context: N/A Question: is farther north, a"] * 30, 300)
    return {
        "trained": trained,
        "words": word_tokenizer(),
        "phrases": phrase_tokenizer(),
        "bytes": ByT5Tokenizer(),
    }


def words(max_size):
    return st.lists(st.sampled_from(WORDS), max_size=max_size).map(" ".join)


@st.composite
def sources(draw):
    choices = draw(st.lists(words(4), max_size=4))
    return SourceParts(
        question=draw(words(6)),
        context=draw(words(6)),
        options=tuple(f"({letter}) {text}" for letter, text in zip("ABCD", choices, strict=False)),
        rationale=draw(st.sampled_from(["", "Solution: "])) + draw(words(6)),
        cue=draw(st.sampled_from(["Answer:", "Solution:"])),
    )


def ever_shorter(source):
    """Texts of a source, each with a word less, written as the rules of the documentation."""
    question, context = source.question.split(), source.context.split()
    options = [option.split() for option in source.options]
    label, rationale = [], source.rationale.split()
    if rationale[:1] == ["Solution:"]:
        label, rationale = rationale[:1], rationale[1:]
    while True:
        yield " ".join(
            ["Question:", *question, "Context:", *(context or ["N/A"]), "Options:"]
            + [word for option in options for word in option]
            + [*label, *rationale, source.cue]
        )
        if context:
            context.pop()
        elif rationale:
            rationale.pop(0)
        elif question:
            question.pop()
        elif longest := max((option for option in options if option[1:]), key=len, default=None):
            longest.pop()
        else:
            return


def is_subsequence(part, whole):
    rest = iter(whole)
    return all(word in rest for word in part)


@settings(deadline=None, max_examples=150)
@given(sources(), st.integers(3, 60), st.sampled_from(["trained", "words", "bytes"]))
def test_the_first_of_all_shorter_texts_that_fits(tokenizers, source, limit, name):
    """A search that stops early loses words, one that stops late is over the limit."""
    tokenizer = tokenizers[name]
    texts = list(ever_shorter(source))
    assert texts[0] == source.text
    fitting = [text for text in texts if len(tokenizer(text)["input_ids"]) <= limit]
    if not fitting:
        with pytest.raises(DataError, match=f"may have {limit} tokens"):
            encode_sources(tokenizer, [source], limit, "keep")
        return
    (found,) = encode_sources(tokenizer, [source], limit, "keep")
    assert found.seen == fitting[0]
    assert found.ids == tokenizer(found.seen)["input_ids"]
    assert found.num_tokens == len(tokenizer(source.text)["input_ids"])
    assert (found.num_tokens > limit) == (found.num_cut > 0) == bool(found.cut)
    assert found.seen.endswith(source.cue)


@settings(deadline=None, max_examples=100)
@given(st.lists(sources(), max_size=4), st.integers(25, 70))
def test_any_tokenizer_gets_a_text_that_fits_and_would_not_with_one_word_more(
    tokenizers, drawn, limit
):
    """Lengths that were added up word by word would be wrong where tokens reach over blanks."""
    tokenizer = tokenizers["phrases"]

    def length(text):
        return len(tokenizer(text)["input_ids"])

    drawn = [source for source in drawn if length(list(ever_shorter(source))[-1]) <= limit]
    for source, found in zip(drawn, encode_sources(tokenizer, drawn, limit, "keep"), strict=True):
        texts = list(ever_shorter(source))
        place = texts.index(found.seen)
        assert len(found.ids) == length(found.seen) <= limit
        if length(source.text) <= limit:
            assert (place, found.cut, found.cut_parts) == (0, "", ())
        else:
            assert length(texts[place - 1]) > limit
        left = [word for word in found.seen.split() if word != "N/A"]
        assert is_subsequence(left, source.text.split())


@pytest.mark.parametrize(
    ("limit", "seen", "cut", "parts"),
    [
        (25, "Question: Which is colder? Context: Look there. a cup Options: (A) ice (B) very hot "
         "tea (C) Solution: Ice melts. It is cold. Answer:", "", ()),
        (24, "Question: Which is colder? Context: Look there. a Options: (A) ice (B) very hot "
         "tea (C) Solution: Ice melts. It is cold. Answer:", "cup", ("context",)),
        (21, "Question: Which is colder? Context: N/A Options: (A) ice (B) very hot "
         "tea (C) Solution: melts. It is cold. Answer:", "Look there. a cup … Ice",
         ("context", "rationale")),
        (19, "Question: Which is colder? Context: N/A Options: (A) ice (B) very hot "
         "tea (C) Solution: is cold. Answer:", "Look there. a cup … Ice melts. It",
         ("context", "rationale")),
        (15, "Question: Which Context: N/A Options: (A) ice (B) very hot tea (C) Solution: Answer:",
         "is colder? … Look there. a cup … Ice melts. It is cold.",
         ("question", "context", "rationale")),
        (12, "Question: Context: N/A Options: (A) ice (B) very (C) Solution: Answer:",
         "Which is colder? … Look there. a cup … hot tea … Ice melts. It is cold.",
         ("question", "context", "options", "rationale")),
        (10, "Question: Context: N/A Options: (A) (B) (C) Solution: Answer:",
         "Which is colder? … Look there. a cup … ice … very hot tea … Ice melts. It is cold.",
         ("question", "context", "options", "rationale")),
    ],
)  # fmt: skip
def test_what_goes_first_and_what_stays(tokenizers, limit, seen, cut, parts):
    """Written by hand, one token a word and one for the end: the order in which words go."""
    (found,) = encode_sources(tokenizers["words"], [SOURCE], limit, "keep")
    assert (found.seen, found.cut, found.cut_parts) == (seen, cut, parts)


def test_the_last_word_of_a_context_is_not_lost_to_the_longer_na():
    """One letter of context fits where the three of N/A do not: halving alone would cut on.

    Of the 17 words that can go the first half are the context's 8.
    """
    letters = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("."), "isolated")]
    )
    source = replace(SOURCE, context="a b c d e f g h", rationale="Solution: It melts.")
    fits = replace(source, context="a")
    limit = len(fits.text.replace(" ", "")) + 1
    (found,) = encode_sources(end_with_s(letters), [source], limit, "keep")
    assert found.seen == fits.text


def test_a_limit_without_room_for_the_frame_is_explained(tokenizers):
    """Without question and choices nothing can be learned; the cue alone would train in silence."""
    with pytest.raises(DataError, match=r"have 9 tokens.*take 10 in 'Question: .*at least 10"):
        encode_sources(tokenizers["words"], [SOURCE], 9, "keep")
    with pytest.raises(ValueError, match="'left', expected one of keep, right"):
        encode_sources(tokenizers["words"], [SOURCE], 99, "left")


def test_right_cuts_as_the_tokenizer_and_names_what_is_lost(tokenizers):
    """The reference's way: compared with the tokenizer's own truncation at every limit."""
    for limit in range(2, 27):
        for tokenizer in (tokenizers["words"], tokenizers["trained"]):
            (found,) = encode_sources(tokenizer, [SOURCE], limit, "right")
            expected = tokenizer(SOURCE.text, truncation=True, max_length=limit)["input_ids"]
            assert found.ids == expected
            assert found.seen + found.cut == SOURCE.text
    lost = [
        encode_sources(tokenizers["words"], [SOURCE], limit, "right")[0].cut_parts
        for limit in (25, 24, 23, 18, 17, 10, 9, 5, 4)
    ]
    end = ("options", "rationale", "cue")
    assert lost == [
        (),
        ("cue",),
        ("rationale", "cue"),
        ("rationale", "cue"),
        end,
        end,
        ("context", *end),
        ("context", *end),
        ("question", "context", *end),
    ]
    all_but_one = len(SOURCE.text)  # bytes, and one token for the end
    (found,) = encode_sources(tokenizers["bytes"], [SOURCE], all_but_one, "right")
    assert (found.cut, found.cut_parts) == (":", ("cue",))


def test_the_search_tokenizes_few_texts(tokenizers):
    """Trying word after word would take minutes on a data set of long passages."""
    long = [replace(SOURCE, context=" ".join(f"w{i}" for i in range(n))) for n in range(99, 999, 9)]
    tokenizer, seen = tokenizers["trained"], []

    def spy(texts, **options):
        seen.append(sum(len(text.split()) > 50 for text in texts))
        return tokenizer(texts, **options)

    encode_sources(spy, long, 120, "keep")
    assert sum(seen) <= 5 * len(long), "whole, last word, the guess and the one before, result"


def inputs_of(num_words):
    parts = [replace(SOURCE, context=" ".join("w" * n)) for n in num_words]
    return [
        ModelInput(question_id=str(n), parts=part, target="t " * n)
        for n, part in zip(num_words, parts, strict=True)
    ]


def test_what_is_cut_is_counted(tokenizers):
    """A text that just reaches its limit is whole; the old warning counted it as cut.

    21 tokens without a context, one for each word of it; targets have one token more than words.
    """
    rows = inputs_of([1, 4, 5, 9])
    encoded = encode_inputs(tokenizers["words"], rows, max_source=25, max_target=6)
    assert [len(source.ids) for source in encoded.sources] == [22, 25, 25, 25]
    assert [len(target.ids) for target in encoded.targets] == [2, 5, 6, 6]
    cuts = encoded.cuts
    assert cuts.to_json() == {
        "truncation": "keep",
        "sources": {"limit": 25, "num": 4, "num_cut": 2, "tokens_cut": 6, "most_tokens_cut": 5},
        "source_parts": {"context": 2},
        "targets": {"limit": 6, "num": 4, "num_cut": 1, "tokens_cut": 4, "most_tokens_cut": 4},
    }
    assert json.loads(json.dumps(cuts.to_json())) == cuts.to_json()
    assert cuts.sentences(target_flag="--max-answer") == [
        "2 of 4 sources are longer than 25 tokens: they are shortened, the context in 2; "
        "6 tokens in all, at most 5 of one; --max-source raises the limit",
        "1 of 4 targets is longer than 6 tokens: it is cut off at the end; "
        "4 tokens in all; --max-answer raises the limit",
    ]
    (sentence,) = encode_inputs(
        tokenizers["words"], rows, max_source=19, max_target=None, truncation="right"
    ).cuts.sentences()
    assert "cut off at the end, the cue in 4, the rationale in 4, the options in 1" in sentence
    unread = encode_inputs(tokenizers["words"], rows, max_source=99, max_target=None)
    assert [target.ids for target in unread.targets] == [[1]] * 4
    assert unread.cuts.to_json()["targets"] is None
    assert unread.cuts.sentences() == []


def test_the_command_shows_what_training_reads(tokenizers, tmp_path, capsys):
    """A report by other code than the training's would drift from what the model sees."""
    tokenizer = tokenizers["trained"]
    questions = [
        Question(
            dataset="hand",
            question_id=str(n),
            split="train",
            position=n,
            question="Which is colder?",
            choices=("ice", "hot tea"),
            answer=0,
            hint="Look there. " * n,
            solution="Ice melts. " * 3,
        )
        for n in range(12)
    ]
    write_questions(tmp_path / "questions.parquet", questions)
    tokenizer.save_pretrained(tmp_path / "model")
    shown = {q.question_id: gold_rationale(q, "QCM-E") for q in questions}
    rows = model_inputs(questions, "QCMG-A", rationales=shown)
    arguments = ["inputs", str(tmp_path), "--stage", "answer", "--out", str(tmp_path / "x.parquet")]
    arguments += ["--tokenizer", str(tmp_path / "model"), "--max-target", "3"]
    for truncation in ("keep", "right"):
        assert main([*arguments, "--max-source", "60", "--truncation", truncation]) == 0
        table = pl.read_parquet(tmp_path / "x.parquet")
        printed = capsys.readouterr().out
        read = tokenize(tokenizer, rows, max_source=60, max_target=3, truncation=truncation)
        cut = table.filter(pl.col("source_cut") != "").height
        assert 0 < cut == read.cuts.sources.num_cut < len(questions)
        for sentence in read.cuts.sentences(target_flag="--max-target"):
            assert sentence in printed
        assert "--max-target raises the limit" in printed
        assert table["source"].to_list() == [row.source for row in rows], "the whole texts"
        for row, example in zip(table.iter_rows(named=True), read.examples, strict=True):
            seen = tokenizer(row["source_seen"])["input_ids"]
            assert seen == example.input_ids
            assert row["source_tokens"] == len(tokenizer(row["source"])["input_ids"])
    assert main([*arguments, "--max-source", "5"]) == 1
    assert "labels, option letters and cue alone take" in capsys.readouterr().err
