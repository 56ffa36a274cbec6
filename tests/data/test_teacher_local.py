"""Teachers on this machine: tiny models with random weights."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from teacher_models import save_llama, save_t5
from teacher_questions import make_question, write_root
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, T5EncoderModel

from mmcot_data.cli import main
from mmcot_data.errors import DataError, GenerationError
from mmcot_data.growing_artifact import GrowingArtifact, grow_artifact
from mmcot_data.questions import read_questions, write_questions
from mmcot_data.rationales import mark_kept, read_rationales
from mmcot_data.row_sampling import SeededSampling
from mmcot_data.teacher import (
    ClusterConfig,
    LocalConfig,
    Reports,
    TeacherConfig,
    generate_teacher_rationales,
)
from mmcot_data.teacher.base import Request
from mmcot_data.teacher.chains import Item
from mmcot_data.teacher.clusters import _encode
from mmcot_data.teacher.local import LocalTeacher
from mmcot_data.teacher.model_files import find_model_files
from mmcot_data.teacher.run import plan_batches
from mmcot_data.text_artifacts import read_made_by

KINDS = {"llama": save_llama, "t5": save_t5}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    folders = {name: save(root / name) for name, save in KINDS.items()}
    return folders | {"chat": save_llama(root / "chat", chat=True)}


@pytest.fixture(scope="module")
def teachers(models):
    return {name: open_teacher(folder, batch_size=3) for name, folder in models.items()}


def open_teacher(folder, **values):
    config = LocalConfig(model=str(folder), **{"precision": "fp32", "device": "cpu"} | values)
    return LocalTeacher(config, find_model_files(config.model, None))


def ask(prompt, *, temperature=0.0, seed=0, limit=12, top_p=1.0):
    return Request(
        prompt=prompt, max_new_tokens=limit, temperature=temperature, top_p=top_p, seed=seed
    )


PROMPTS = ["Q: Is it?\nA:", "x", "Q: A much longer question, with more words?\nA:", "Ü", "abc de"]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_writes_what_single_texts_get(teachers, kind, temperature):
    """Wrong padding, positions or shared random numbers would change texts beside others."""
    requests = [
        ask(prompt, temperature=temperature, seed=seed, top_p=0.95)
        for seed, prompt in enumerate(PROMPTS)
    ]
    together = teachers[kind].complete(requests)
    assert [teachers[kind].complete([request])[0] for request in requests] == together
    assert len({completion.text for completion in together}) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_what_transformers_generates(teachers, models, kind):
    """The oracle: the model's own generate for one prompt, by hand."""
    tokenizer = AutoTokenizer.from_pretrained(models[kind])
    auto = AutoModelForCausalLM if kind == "llama" else AutoModelForSeq2SeqLM
    model = auto.from_pretrained(models[kind], dtype=torch.float32).eval()
    inputs = tokenizer(PROMPTS[0], return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0].tolist()
    tokens = tokens[inputs["input_ids"].shape[1] :] if kind == "llama" else tokens[1:]
    (completion,) = teachers[kind].complete([ask(PROMPTS[0])])
    assert completion.text == tokenizer.decode(tokens, skip_special_tokens=True)
    assert completion.finish_reason == ("stop" if 1 in tokens else "length")


def test_sampling_draws_from_the_models_distribution():
    """Against the closed form: softmax at a temperature, cut to the nucleus, renormalised."""
    scores = torch.tensor([[2.0, -1.0, 0.5, 1.0, -torch.inf, 0.0]])
    num = 20000
    sampler = SeededSampling(list(range(num)), 0.8, 0.9, 1, torch.device("cpu"))
    chosen = sampler(None, scores.expand(num, -1))
    assert torch.equal(chosen.max(dim=1).values, torch.zeros(num))
    assert int(torch.isfinite(chosen).sum()) == num
    expected = np.exp(scores[0].double().numpy() / 0.8)
    expected /= expected.sum()
    order = np.argsort(-expected)
    nucleus = order[: int(np.searchsorted(np.cumsum(expected[order]), 0.9)) + 1]
    kept = np.zeros_like(expected)
    kept[nucleus] = expected[nucleus] / expected[nucleus].sum()
    found = np.bincount(chosen.argmax(dim=1).numpy(), minlength=6) / num
    assert 2 <= len(nucleus) <= 4
    np.testing.assert_allclose(found, kept, atol=4 * np.sqrt(0.25 / num))
    assert (found[kept == 0] == 0).all()


def test_seeds_decide_what_is_drawn(teachers):
    """Equal seeds must repeat a text, others give others, or k samples would be one."""
    texts = [
        teachers["llama"].complete([ask("x", temperature=1.0, seed=seed)])[0].text
        for seed in (1, 1, 2, 3)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_a_text_ends_where_the_model_asks_the_next_question(teachers, monkeypatch):
    """A base model goes on with other questions; those are no part of the rationale."""
    requests = [ask("x", limit=40), ask(PROMPTS[0], limit=40)]
    whole = teachers["llama"].complete(requests)
    pairs = [whole[0].text[place : place + 2] for place in range(3, 30)]
    stop = next(pair for pair in pairs if "\ufffd" not in pair and pair not in whole[1].text)
    monkeypatch.setattr("mmcot_data.teacher.local.STOP", stop)
    cut = teachers["llama"].complete(requests)
    assert (cut[0].text, cut[0].finish_reason) == (whole[0].text.partition(stop)[0], "stop")
    assert cut[1] == whole[1]


def test_a_chat_model_gets_its_template_unless_told_otherwise(teachers, models):
    """The same weights: with the template they read other text, and off they read the plain one."""
    prompt = "Q: a?\nA:"
    assert teachers["chat"].complete([ask(prompt)]) == teachers["llama"].complete(
        [ask(f"<u>{prompt}</u><a>")]
    )
    off = open_teacher(models["chat"], chat="off")
    assert off.complete([ask(prompt)]) == teachers["llama"].complete([ask(prompt)])
    with pytest.raises(GenerationError, match="no chat template"):
        open_teacher(models["llama"], chat="on")


def test_a_chat_template_is_told_not_to_think(tmp_path, teachers):
    """Qwen3's thinks unless told: 512 tokens of thoughts are no rationale."""
    folder = save_llama(tmp_path / "thinker", chat=True)
    template = folder / "chat_template.jinja"
    switch = "{% if enable_thinking is not false %}<think>{% endif %}"
    template.write_text(template.read_text() + switch)
    prompt = "Q: a?\nA:"
    assert open_teacher(folder).complete([ask(prompt)]) == teachers["chat"].complete([ask(prompt)])


@pytest.mark.parametrize("place", ["generate", "to"])
def test_too_little_memory_is_explained(tmp_path, models, monkeypatch, capsys, place):
    """A traceback does not say that a smaller batch would do."""
    write_root(tmp_path / "shards")

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(f"transformers.LlamaForCausalLM.{place}", fail)
    given = ["rationales", "teacher", str(tmp_path / "shards"), "--model", str(models["llama"])]
    assert main([*given, "--device", "cpu", "--batch-size", "4"]) == 1
    told = capsys.readouterr().err
    assert "cpu has too little memory" in told
    assert ("a smaller --batch-size" if place == "generate" else "a smaller model") in told


def test_a_prompt_beyond_the_window_is_an_outcome_of_its_own(tmp_path):
    """It must neither stop the run of all other questions nor be cut in silence."""
    teacher = open_teacher(save_llama(tmp_path / "short", window=40))
    long, short = teacher.complete([ask("x" * 29, limit=12), ask("x" * 28, limit=12)])
    assert (long.text, long.finish_reason) == ("", "too_long")
    assert short.finish_reason != "too_long"


def test_unusable_models_are_explained(tmp_path, models):
    """A traceback of transformers says nothing to someone who mistyped a folder."""
    with pytest.raises(GenerationError, match="does not exist"):
        find_model_files(str(tmp_path / "none"), None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GenerationError, match="or weights"):
        find_model_files(str(tmp_path / "empty"), None)
    with pytest.raises(GenerationError, match="has no meaning"):
        find_model_files(str(models["t5"]), "main")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "vit"}')
    (broken / "model.safetensors").write_bytes(b"")
    with pytest.raises(GenerationError, match="cannot be loaded as a text model"):
        open_teacher(broken)


def test_what_identifies_a_model_is_its_content(tmp_path):
    """Another folder with the same files is the same teacher; other weights are another."""
    one, two, three = (
        find_model_files(str(save_llama(tmp_path / name / "m", seed=seed)), None)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one.model_id == two.model_id == "m"
    assert one.weights_sha256() == two.weights_sha256() != three.weights_sha256()
    assert one.texts_sha256() == three.texts_sha256()


def config(root, folder, **values):
    teacher = LocalConfig(model=str(folder), precision="fp32", device="cpu", batch_size=4)
    return TeacherConfig(artifacts=root, teacher=teacher, **{"max_new_tokens": 16} | values)


SAMPLED = {"samples": 2, "temperature": 0.9, "top_p": 0.9}


def test_the_table_holds_how_each_row_came_about(tmp_path, models):
    """The two prompts must be those whose texts are beside them, and gold only judges."""
    root = tmp_path / "shards"
    write_root(root)
    done = []
    summary = generate_teacher_rationales(
        config(root, models["llama"], **SAMPLED), Reports(written=lambda *at: done.append(at))
    )
    assert (summary.num_rationales, summary.num_new, summary.num_questions) == (12, 12, 6)
    assert done[0] == (0, 12)
    assert done[-1] == (12, 12)
    table = pl.read_parquet(summary.path)
    assert table.select("question_id", "sample").rows() == [
        (str(q), s) for q in range(6) for s in range(2)
    ]
    teacher = open_teacher(models["llama"])
    questions = {q.question_id: q for q in read_questions(root)}
    for row in table.iter_rows(named=True):
        assert row["rationale"] == f"Solution: {' '.join(row['completion'].split())}".strip()
        if not row["completion"].strip():
            assert (row["answer_prompt"], row["answer"], row["kept"]) == (None, None, False)
            continue
        assert row["answer_prompt"] == (
            f"{row['prompt']} {row['completion'].strip()}\nTherefore, among A through "
            f"{'ABC'[len(questions[row['question_id']].choices) - 1]}, the answer is"
        )
        (answered,) = teacher.complete([ask(row["answer_prompt"], limit=32)])
        assert row["answer_completion"] == answered.text
    assert table["finish_reason"].to_list().count("length") == summary.num_truncated > 0
    assert len(read_rationales(summary.path, list(questions.values()))) == 12
    made_by = read_made_by(summary.path)
    assert made_by["settings"]["teacher"]["model"] == "llama"
    assert str(tmp_path) not in str(made_by)
    assert made_by["splits"]["train"]["rationales"] == 12


def test_a_rerun_opens_no_teacher_and_changes_nothing(tmp_path, models, monkeypatch):
    """Loading a model of many GB to find nothing to do would make resuming costly."""
    root = tmp_path / "shards"
    write_root(root)
    request = config(root, models["llama"], limit=3)
    path = generate_teacher_rationales(request).path
    before = (path.read_bytes(), path.stat().st_mtime_ns)

    def fail(*_):
        raise AssertionError("a teacher was opened")

    monkeypatch.setattr("mmcot_data.teacher.local.LocalTeacher.__init__", fail)
    assert generate_teacher_rationales(request).num_new == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize("method", ["zero-shot-cot", "least-to-most", "auto-cot"])
def test_a_killed_run_goes_on_to_what_an_undisturbed_one_makes(
    tmp_path, models, method, monkeypatch
):
    """A row must not depend on where the run was killed, or results could not be repeated."""
    values = {"method": method, **SAMPLED}
    if method == "auto-cot":
        pytest.importorskip("sklearn")
        values |= {"answer_extraction": "two-step"}
    tables = []
    for name in ("whole", "killed"):
        root = tmp_path / name
        write_root(root, 12)
        request = config(root, models["llama"], **values)
        if method == "auto-cot":
            write_demonstrations_of(root, request)
        if name == "killed":
            kill_after_batches(request, 2, monkeypatch)
            assert not (root / "rationales" / "teacher.parquet").exists()
            assert (root / "rationales" / ".teacher.journal.jsonl").exists()
        summary = generate_teacher_rationales(request)
        assert summary.num_new == (24 if name == "whole" else 24 - 8)
        tables.append(pl.read_parquet(summary.path))
    assert tables[0].equals(tables[1])


def write_demonstrations_of(root, request):
    """As if the random model's chains had answers."""
    from mmcot_data.teacher import auto_cot
    from mmcot_data.teacher.opening import find_teacher
    from mmcot_data.teacher.prompts import question_block

    train = [q for q in read_questions(root) if q.split == "train"]
    blocks = [question_block(q) for q in train]
    settings = auto_cot._settings(request, find_teacher(request.teacher), train, blocks)
    row = dict.fromkeys(auto_cot._SCHEMA) | {
        "question_id": "3",
        "sample": 0,
        "answer": 1,
        "kept": True,
        "completion": "R.",
        "cluster": 0,
    }
    path = root / "rationales" / "teacher.demonstrations.parquet"
    with grow_artifact(path, auto_cot._SCHEMA, ("question_id", "sample"), settings) as artifact:
        artifact.add([row])
        artifact.finish({"3": 0}, {})


class Killed(BaseException):
    """What nothing catches."""


def kill_after_batches(request, num_batches, monkeypatch):
    """Rows are on the disk once ``add`` returns; a real kill is in test_teacher_endpoint.py."""
    add, added = GrowingArtifact.add, []

    def add_and_die(self, rows):
        add(self, rows)
        added.append(self)
        if len(added) == num_batches:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(GrowingArtifact, "add", add_and_die)
        with pytest.raises(Killed):
            generate_teacher_rationales(request)


def test_more_questions_and_samples_extend_a_table(tmp_path, models):
    """A trial must not be thrown away; what it wrote stays as it is."""
    root = tmp_path / "shards"
    write_root(root)
    request = config(root, models["t5"], limit=2, **SAMPLED | {"samples": 1})
    first = pl.read_parquet(generate_teacher_rationales(request).path)
    more = replace(request, limit=None, samples=3, splits=("train", "test"))
    summary = generate_teacher_rationales(more)
    assert (summary.num_new, summary.num_rationales) == (24 - 2, 24)
    table = pl.read_parquet(summary.path)
    trial = table.filter(pl.col("question_id").is_in(["0", "1"]), pl.col("sample") == 0)
    assert trial.equals(first)
    again = generate_teacher_rationales(request)
    assert (again.num_rationales, again.num_new) == (2, 0)
    assert pl.read_parquet(summary.path).height == 24


def test_other_settings_or_texts_refuse_to_continue(tmp_path, models):
    """A table of two kinds of rows has no meaning."""
    root = tmp_path / "shards"
    questions = write_root(root)
    request = config(root, models["llama"], limit=2)
    generate_teacher_rationales(request)
    for values, said in (
        ({"temperature": 0.5}, "temperature was 0.0, now 0.5"),
        ({"top_p": 0.5}, "top_p was 1.0, now 0.5"),
        ({"seed": 9}, "seed was 0, now 9"),
        ({"max_new_tokens": 7}, "max_new_tokens"),
        ({"method": "least-to-most"}, "method"),
        ({"answer_extraction": "direct"}, "answer_extraction"),
        ({"teacher": replace(request.teacher, model=str(models["t5"]))}, "weights_sha256"),
    ):
        with pytest.raises(DataError, match=said):
            generate_teacher_rationales(replace(request, **values))
    changed = [replace(q, hint="Another hint.") for q in questions]
    write_questions(root / "questions.parquet", changed)
    with pytest.raises(DataError, match="another text of the question"):
        generate_teacher_rationales(request)


def test_batches_are_of_like_length_and_of_the_request_alone():
    """Were they of what is missing, a resumed run would round differently."""
    items = [
        Item.of(make_question(n, hint="x" * (n * 37 % 50)), s, None)
        for n in range(9)
        for s in (0, 1)
    ]
    batches = plan_batches(items, 4)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 2]
    assert sorted(item.key for batch in batches for item in batch) == sorted(i.key for i in items)
    lengths = [len(item.block) for batch in batches for item in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert plan_batches(items, None) == [items]


def test_the_mark_of_an_earlier_rule_stays(tmp_path, models):
    """A rerun without a rule must not undo what `rationales keep` marked."""
    root = tmp_path / "shards"
    write_root(root)
    request = config(root, models["llama"])
    path = generate_teacher_rationales(request).path
    every = pl.read_parquet(path)["kept"].to_list()
    assert any(every)
    mark_kept(path, "correct")
    marked = pl.read_parquet(path)
    assert marked["kept"].to_list() == [c is True for c in marked["correct"].to_list()]
    generate_teacher_rationales(request)
    assert pl.read_parquet(path).equals(marked)
    generate_teacher_rationales(replace(request, keep="all"))
    assert pl.read_parquet(path)["kept"].to_list() == every


def test_a_text_encoder_gives_means_of_its_states_without_padding(models):
    """Against one text at a time, averaged by hand: padding must not count."""
    folder = models["t5"]
    texts = ["a", "a longer one", "the longest of all of them"]
    found = _encode(texts, ClusterConfig(model=str(folder)))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = T5EncoderModel.from_pretrained(folder).eval()
    for text, vector in zip(texts, found, strict=True):
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)
