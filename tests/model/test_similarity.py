"""Sentence similarity on a small BERT that is made here, against its formula in numpy."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from mmcot_data.errors import DataError
from mmcot_data.questions import Question, write_questions
from mmcot_model.cli.evaluate import main
from mmcot_model.evaluation.similarity import score_similarity

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]
PAIRS = [("a b c", "a b d"), ("e", "f g h a b c d e"), ("", "a"), ("c c c", "c c c"), (".", " b ")]
LIMIT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model in the layout of sentence-transformers."""
    path = tmp_path_factory.mktemp("sentences") / "model"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,  # else all texts are alike
    )
    BertModel(config).save_pretrained(path)
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    ).save_pretrained(path)
    set_modules(path, "Transformer", "Pooling", "Normalize")
    set_pooling(path, {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False})
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LIMIT}))
    return path


def set_modules(path, *names):
    modules = [
        {"path": "" if name == "Transformer" else f"{place}_{name}", "type": f"library.{name}"}
        for place, name in enumerate(names)
    ]
    (path / "modules.json").write_text(json.dumps(modules))


def set_pooling(path, settings):
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps(settings))


def expected(folder, text):
    """One text at a time, without padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    ids = tokenizer(text.strip(), truncation=True, max_length=LIMIT).input_ids
    with torch.no_grad():
        states_SC = model.eval()(torch.tensor([ids])).last_hidden_state[0].numpy()
    mean_C = states_SC.astype(np.float64).mean(axis=0)
    return mean_C / np.linalg.norm(mean_C)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_similarity_is_the_cosine_of_mean_token_states(folder, batch_size):
    """Catches padding in the means, pairs that are mixed up, and texts that are not cut."""
    cosines = [expected(folder, a) @ expected(folder, b) for a, b in PAIRS]
    assert max(cosines) - min(cosines) > 0.3, "the model can tell texts apart"
    found = score_similarity(PAIRS, str(folder), batch_size=batch_size)
    assert found.mean == pytest.approx(100 * np.mean(cosines), abs=1e-4)
    assert found.model == str(folder)


def test_equal_texts_are_wholly_alike_and_no_texts_have_no_mean(folder):
    assert score_similarity([("a b", "a b ")], str(folder)).mean == pytest.approx(100, abs=1e-4)
    assert score_similarity([], str(folder)).mean is None


def test_models_that_make_embeddings_otherwise_are_refused(folder, tmp_path):
    """Catches a figure that is silently not that of the model."""
    for path in folder.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    set_pooling(tmp_path, {"pooling_mode": "cls"})
    with pytest.raises(DataError, match=r"in another way than by their mean \(cls\)"):
        score_similarity(PAIRS, str(tmp_path))
    set_pooling(tmp_path, {"pooling_mode": "mean"})
    assert score_similarity(PAIRS, str(tmp_path)) is not None
    set_modules(tmp_path, "Transformer", "Pooling", "Dense")
    with pytest.raises(DataError, match="has the modules Transformer, Pooling, Dense; expected"):
        score_similarity(PAIRS, str(tmp_path))
    (tmp_path / "modules.json").unlink()
    with pytest.raises(DataError, match=r"no readable modules.json; expected a model of sentence-"):
        score_similarity(PAIRS, str(tmp_path))


def test_command_prints_and_writes_the_similarity(folder, tmp_path, capsys):
    question = Question(
        dataset="hand",
        question_id="0",
        split="test",
        position=0,
        question="?",
        choices=("x", "y"),
        answer=1,
        solution="a b",
    )
    write_questions(tmp_path / "questions.parquet", [question])
    path, output = tmp_path / "p.jsonl", tmp_path / "scores.json"
    path.write_text('{"question_id": "0", "answer": 1, "rationale": "Solution: a b"}\n')
    arguments = ["--predictions", str(path), "--artifacts", str(tmp_path)]
    assert main([*arguments, "--similarity", str(folder), "--json", str(output)]) == 0
    assert f"Sentence similarity: 100.00 ({folder})." in capsys.readouterr().out
    scores = json.loads(output.read_text())
    assert scores["similarity"] == {"mean": pytest.approx(100, abs=1e-3), "model": str(folder)}
    assert set(scores["rationale"]) == {"bleu1", "bleu4", "rouge"}
    path.write_text('{"question_id": "0", "answer": 1}\n')
    assert main([*arguments, "--similarity", str(folder)]) == 1
    assert "holds no rationales: there is nothing for --similarity" in capsys.readouterr().err
