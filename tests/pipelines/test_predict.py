"""mmcot-predict on runs whose models were drawn, not trained: what it reads and what it says."""

import hashlib
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel

from mmcot_data.cli import main as data_main
from mmcot_data.files import write_json
from mmcot_data.inputs import model_inputs
from mmcot_data.questions import read_questions, select_split
from mmcot_data.shards import open_features
from mmcot_model.batches import Collator
from mmcot_model.features import open_run_features
from mmcot_model.generation import generate
from mmcot_model.loading import load_model, new_model
from mmcot_model.runs.folder import read_config
from mmcot_model.runs.generating import tokenize_sources
from mmcot_model.settings.config import TrainConfig
from mmcot_model.trained import asking
from pipelines.picture_features import encode_picture
from pipelines.predict import main

TYPED = ["--question", "Which flag is farthest south?", "--choice", "blue", "--choice", "green"]


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory):
    """A small ViT in a folder, which a spec can't name."""
    folder = tmp_path_factory.mktemp("models") / "mine"
    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=64,
        patch_size=32,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def artifacts(sample, vision_model, tmp_path_factory):
    """Features by three encoders: fixed weights, drawn weights, and a model in a folder."""
    out = tmp_path_factory.mktemp("artifacts")
    extract = ["extract", str(sample), "--split", "test", "--batch-size", "4", "--out"]
    assert data_main([*extract, str(out), "--encoder", "tiny"]) == 0
    vit = ["--encoder", "vit", "--model", str(vision_model), "--dtype", "float32"]
    assert data_main([*extract, str(out), *vit]) == 0
    drawn = ["--encoder", "tiny", "--random-weights", "7"]
    assert data_main([*extract, str(out / "drawn"), *drawn]) == 0
    return out


@pytest.fixture(scope="module")
def make_run(artifacts, tmp_path_factory):
    """Makes a finished run without training it."""

    def make(name, *sets, stages=("rationale", "answer"), captions=None, **settings):
        folder = tmp_path_factory.mktemp("runs") / name
        features = open_run_features([artifacts / each for each in sets], ("question",))
        questions = read_questions(artifacts)
        texts = [pair.source for pair in model_inputs(questions, "QCM-E")]
        texts += ["Answer: The answer is (A). BECAUSE:"]
        for number, stage in enumerate(stages):
            model, tokenizer = new_model(
                "tiny",
                texts,
                vocab_size=512,
                layout=None if features is None else features.layout,
                seed=number,
            )
            model.save_pretrained(folder / stage)
            tokenizer.save_pretrained(folder / stage)
        limits = {"max_rationale": 5, "max_answer": 3}
        config = TrainConfig(
            artifacts=artifacts,
            output=folder,
            features=tuple(artifacts / each for each in sets),
            captions=captions,
            **limits | settings,
        )
        write_json(folder / "config.json", config.to_json())
        run = {
            "artifacts": str(artifacts),
            "test_split": "test",
            "features": [] if features is None else [str(place) for place in features.places],
            "feature_specs": [] if features is None else features.specs,
        }
        write_json(folder / "run.json", run)
        return folder

    return make


@pytest.fixture(scope="module")
def run(make_run):
    return make_run("both", "tiny")


@pytest.fixture(scope="module")
def asked(artifacts):
    """A test question with a picture."""
    return next(q for q in select_split(read_questions(artifacts), "test") if q.has_image)


def picture_of(sample, question):
    return sample / "images" / question.split / question.question_id / "image.png"


def typed(question, sample):
    choices = [word for choice in question.choices for word in ("--choice", choice)]
    picture = str(picture_of(sample, question))
    return ["--question", question.question, *choices, "--hint", question.hint, "--image", picture]


def ask(capsys, *arguments):
    """The reply as JSON."""
    assert main([*map(str, arguments), "--json", "-"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("sets", "exact"), [(["tiny"], 0.9), (["drawn/tiny"], 0.9), (["vit", "tiny"], 0.5)]
)
def test_a_picture_gets_the_features_that_extraction_stored(
    artifacts, sample, vision_model, sets, exact
):
    """Would catch other preprocessing, weights, dtype, or another order of the sets."""
    stored = open_run_features([artifacts / name for name in sets], ("question",))
    specs = [store.spec for store in stored.stores]
    questions = select_split(read_questions(artifacts), "test")
    questions = [question for question in questions if question.has_image][:6]
    for question in questions:
        path = picture_of(sample, question)
        found = encode_picture(
            specs, path.read_bytes(), path.name, models={"vit": str(vision_model)}, device="cpu"
        )
        expected_BPD, mask_BP = stored.gather([question.question_id])
        found_BPD, found_mask_BP = found.gather([question.question_id])
        assert found_BPD.dtype == expected_BPD.dtype
        np.testing.assert_array_equal(found_mask_BP, mask_BP)
        np.testing.assert_allclose(
            found_BPD.astype(np.float32), expected_BPD.astype(np.float32), rtol=2e-3, atol=1e-4
        )
        assert (found_BPD == expected_BPD).mean() >= exact, "batches only change the rounding"
        assert found.notes == ()


def test_typed_and_stored_questions_get_the_same_reply(run, sample, asked, capsys):
    """Would catch a source that is put together in another way, or features of another row."""
    stored = ask(capsys, run, "--question-id", asked.question_id)
    typed_reply = ask(capsys, run, *typed(asked, sample))
    for stage in ("rationale", "answer"):
        one, other = stored["stages"][stage], typed_reply["stages"][stage]
        assert (one["source"], one["text"]) == (other["source"], other["text"])
        patches = [np.array(reply["attention"][0]["patches"]) for reply in (one, other)]
        np.testing.assert_allclose(*patches, rtol=1e-2, atol=1e-4)
    assert stored["right_answer"]["index"] == asked.answer
    assert typed_reply["right_answer"] is None


def test_the_reply_is_what_the_run_would_have_been_tested_with(run, artifacts, asked, capsys):
    """Would catch limits, prompts or rationales that differ from those of training."""
    config, features = read_config(run), open_features(artifacts / "tiny")
    reply = ask(capsys, run, "--question-id", asked.question_id)
    rationales = None
    for stage, prompt_format, limit in (("rationale", "QCM-E", 5), ("answer", "QCMG-A", 3)):
        model, tokenizer = load_model(str(run / stage))
        inputs = model_inputs([asked], prompt_format, None, rationales)
        (written,) = generate(
            model,
            tokenizer,
            tokenize_sources(tokenizer, inputs, config).examples,
            Collator(tokenizer.pad_token_id, features, pad_multiple=1),
            max_new_tokens=limit,
            batch_size=8,
        )
        rationales = {asked.question_id: written.text}
        assert reply["stages"][stage]["text"] == written.text


def test_what_the_json_holds(run, asked, capsys):
    reply = ask(capsys, run, "--question-id", asked.question_id)
    assert [choice["text"] for choice in reply["choices"]] == list(asked.choices)
    assert sum(choice["probability"] for choice in reply["choices"]) == pytest.approx(1)
    best = max(reply["choices"], key=lambda choice: choice["log_likelihood"])
    assert reply["most_probable"]["letter"] == best["letter"]
    assert reply["rationale_source"] == "rationale"
    assert reply["feature_specs"][0]["encoder"] == "tiny"
    for stage in reply["stages"].values():
        gates = [token["gate"] for token in stage["gate"]["tokens"]]
        assert stage["gate"]["mean"] == pytest.approx(np.mean(gates), rel=1e-4)
        assert sum(stage["attention"][0]["patches"]) == pytest.approx(1, rel=1e-4)
        assert len(stage["attention"][0]["patches"]) == 50
        read = "".join(token["token"] for token in stage["gate"]["tokens"])
        assert read.replace("▁", " ").strip() == f"{stage['source']}</s>"


def test_a_given_rationale_takes_the_place_of_stage_1(run, asked, capsys):
    given = ["--question-id", asked.question_id, "--rationale", "Green is south."]
    reply = ask(capsys, run, *given)
    assert list(reply["stages"]) == ["answer"]
    assert "Solution: Green is south. Answer:" in reply["stages"]["answer"]["source"]
    assert (reply["rationale"], reply["rationale_source"]) == ("Green is south.", "given")
    with_cue = [*given[:-1], "Solution: Green is south."]
    assert ask(capsys, run, *with_cue)["choices"] == reply["choices"]


def test_no_picture_is_absence(run, capsys):
    reply = ask(capsys, run, *TYPED)
    assert any("no picture" in note for note in reply["notes"])
    for stage in reply["stages"].values():
        assert (stage["gate"], stage["attention"]) == (None, None)


def test_several_encoders_need_their_models(make_run, sample, asked, vision_model, capsys):
    run = make_run("two", "vit", "tiny")
    assert main([str(run), *typed(asked, sample)]) == 1
    assert "--model" in capsys.readouterr().err
    assert main([str(run), *typed(asked, sample), "--model", str(vision_model)]) == 1
    assert "ENCODER=MODEL with an encoder of the run: vit, tiny" in capsys.readouterr().err
    reply = ask(capsys, run, *typed(asked, sample), "--model", f"vit={vision_model}")
    shares = reply["stages"]["answer"]["attention"]
    assert [(part["encoder"], len(part["patches"])) for part in shares] == [
        ("vit", 5),
        ("tiny", 50),
    ]
    assert sum(sum(part["patches"]) for part in shares) == pytest.approx(1, rel=1e-4)


def test_an_encoder_with_other_weights_is_refused(make_run, sample, asked, capsys):
    """Would catch features of another model that a run reads as if they were its own."""
    run = make_run("other", "tiny")
    described = json.loads((run / "run.json").read_text())
    described["feature_specs"][0]["weights_sha256"] = "ab" * 32
    write_json(run / "run.json", described)
    assert main([str(run), *typed(asked, sample)]) == 1
    error = capsys.readouterr().err
    assert "makes other features" in error
    assert "weights_sha256: expected 'abab" in error


def test_a_given_stage_with_other_weights_is_refused(make_run, asked, tmp_path, capsys):
    """Would catch replies of a model that was trained anew, in the name of a tested run."""
    run = make_run("given", "tiny")
    model = tmp_path / "model"
    (run / "answer").rename(model)
    config = json.loads((run / "config.json").read_text())
    write_json(run / "config.json", config | {"answer_model": str(model)})
    described = json.loads((run / "run.json").read_text())
    weights = model / "model.safetensors"
    tested = hashlib.sha256(weights.read_bytes()).hexdigest()
    sha256 = {"answer_model model.safetensors": tested, "questions": "ab" * 32}
    write_json(run / "run.json", described | {"sha256": sha256})
    ask(capsys, run, "--question-id", asked.question_id)
    weights.write_bytes((run / "rationale" / "model.safetensors").read_bytes())
    assert main([str(run), "--question-id", asked.question_id]) == 1
    error = capsys.readouterr().err
    assert "the answer stage of" in error
    assert f"expected weights with the sha256 {tested} (model.safetensors), found " in error


def test_a_plain_t5_is_no_trained_stage(make_run, asked, capsys):
    """Would catch a gate and attention of layers that were drawn a moment ago."""
    run = make_run("plain", "tiny")
    path = run / "rationale" / "config.json"
    write_json(path, json.loads(path.read_text()) | {"model_type": "t5"})
    assert main([str(run), "--question-id", asked.question_id]) == 1
    assert "is a plain T5 that has never seen a feature" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scores_and_weights_are_computed_as_the_text_is(
    make_run, asked, capsys, monkeypatch, precision
):
    """Would catch scores in float32 of a text that was written, and tested, in bfloat16."""
    computed = []

    def spy(name):
        wrapped = getattr(asking, name)

        def call(*arguments, **options):
            is_bf16 = torch.is_autocast_enabled("cpu")
            computed.append((name, "bf16" if is_bf16 else "fp32"))
            return wrapped(*arguments, **options)

        monkeypatch.setattr(asking, name, call)

    spy("explain")
    spy("score_answers")
    run = make_run(precision, "tiny", precision=precision)
    reply = ask(capsys, run, "--question-id", asked.question_id)
    calls = ["explain", "explain", "score_answers"]
    assert computed == [(name, precision) for name in calls]
    for stage in reply["stages"].values():
        assert sum(stage["attention"][0]["patches"]) == pytest.approx(1, rel=1e-3)
    assert sum(choice["probability"] for choice in reply["choices"]) == pytest.approx(1)


@pytest.mark.parametrize("prompt_format", ["QCM-A", "QCM-LEA", "QCM-ALE"])
def test_one_stage(make_run, asked, capsys, prompt_format):
    run = make_run("one", "tiny", stages=["answer"], stage="answer", prompt_format=prompt_format)
    reply = ask(capsys, run, "--question-id", asked.question_id)
    assert list(reply["stages"]) == ["answer"]
    cue = "Answer:" if prompt_format == "QCM-A" else "Solution:"
    assert reply["stages"]["answer"]["source"].endswith(cue)
    if prompt_format == "QCM-LEA":  # drawn weights: all that is written comes before the answer
        assert (reply["rationale"] or "") == reply["stages"]["answer"]["text"]
    assert sum(choice["probability"] for choice in reply["choices"]) == pytest.approx(1)
    assert main([str(run), "--question-id", asked.question_id, "--rationale", "x"]) == 1
    assert "reads a rationale" in capsys.readouterr().err


def test_a_run_that_only_writes_rationales(make_run, asked, capsys):
    run = make_run("why", "tiny", stages=["rationale"], stage="rationale")
    reply = ask(capsys, run, "--question-id", asked.question_id)
    assert (reply["answer"], reply["most_probable"]) == (None, None)
    assert all(choice["probability"] is None for choice in reply["choices"])
    assert main([str(run), "--question-id", asked.question_id]) == 0
    assert "answer  " not in capsys.readouterr().out


def test_a_run_that_answers_from_rationales_needs_one(make_run, asked, capsys):
    settings = {"stage": "answer", "prompt_format": "QCMG-A", "rationales": "stage1"}
    run = make_run("from", "tiny", stages=["answer"], **settings)
    assert main([str(run), "--question-id", asked.question_id]) == 1
    assert "give --rationale TEXT" in capsys.readouterr().err
    ask(capsys, run, "--question-id", asked.question_id, "--rationale", "Green is south.")


def test_text_alone(make_run, sample, asked, capsys):
    run = make_run("text")
    reply = ask(capsys, run, "--question-id", asked.question_id)
    assert not any("picture" in note for note in reply["notes"])
    assert main([str(run), *typed(asked, sample)]) == 1
    assert "trained on the text alone" in capsys.readouterr().err


def test_captions(make_run, artifacts, run, asked, tmp_path, capsys):
    """Would catch a caption of the data set's picture beside another picture."""
    (producer,) = (path.stem for path in (artifacts / "captions").glob("*.parquet"))
    captioned = make_run("captions", "tiny", captions=producer)
    stored = ask(capsys, captioned, "--question-id", asked.question_id)
    assert stored["caption"]
    assert stored["caption"] in stored["stages"]["rationale"]["source"]
    assert any("no caption" in note for note in ask(capsys, captioned, *TYPED)["notes"])
    other = Image.new("RGB", (40, 30), "green")
    other.save(tmp_path / "other.png")
    shown = ["--question-id", asked.question_id, "--image", tmp_path / "other.png"]
    reply = ask(capsys, captioned, *shown)
    assert reply["caption"] is None, "the stored one is of the stored picture"
    assert stored["caption"] not in reply["stages"]["rationale"]["source"]
    assert any("no caption" in note for note in reply["notes"])
    described = ask(capsys, captioned, *shown, "--caption", "A lawn.")
    assert described["caption"] == "A lawn."
    assert not any("no caption" in note for note in described["notes"])
    given = ask(capsys, captioned, *TYPED, "--caption", "A map.")
    assert "Context: A map. Options:" in given["stages"]["answer"]["source"]
    assert not any("no caption" in note for note in given["notes"])
    assert main([str(run), *TYPED, "--caption", "A map."]) == 1
    assert "trained without captions" in capsys.readouterr().err


def test_the_text_says_what_there_is(run, asked, tmp_path, capsys):
    path = tmp_path / "reply.json"
    assert main([str(run), "--question-id", asked.question_id, "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == asked.question
    choices = [line for line in lines if line[2:3] == "("]
    assert len(choices) == len(asked.choices)
    assert all(line.endswith("%") for line in choices)
    reply = json.loads(path.read_text())
    if reply["answer"] is None:
        assert any(line.startswith("answer     none: the model wrote") for line in lines)
    assert any("rationale stage: gate open" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--question", "Why?"], "--choice was given 0 times, expected 2 to 26"),
        (["--question", "Why?", "--choice", "a"], "--choice was given 1 times"),
        (["--question", "Why?", *["--choice", "a"] * 27], "--choice was given 27 times"),
        (["--question", "Why?", "--choice", "a", "--choice", " "], "a --choice is empty"),
        (["--question", " ", "--choice", "a", "--choice", "b"], "give --question TEXT"),
        ([*TYPED, "--data", "."], "--data goes with --question-id"),
        ([*TYPED, "--question-id", "3"], "exclude each other"),
        ([*TYPED, "--png", "why.jpg"], "ends in .png"),
        ([*TYPED, "--model", "clip=x"], "--model encodes the picture of --image"),
        (["--question-id", "3", "--model", "x"], "--model encodes the picture of --image"),
        (
            ["--question-id", "3", "--image", "x.png", "--features", "shards/tiny"],
            "--features are those of the question's own picture",
        ),
    ],
)
def test_wrong_usage_is_explained(arguments, expected, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", *arguments])
    assert expected in capsys.readouterr().err


def test_errors_come_before_anything_heavy(run, sample, asked, tmp_path):
    """Would catch seconds of imports before a misspelt name is told, and a need for Prefect."""
    text = tmp_path / "text.png"
    text.write_text("no picture")
    cases = [
        [str(tmp_path / "none"), *TYPED],
        [str(run), *TYPED, "--image", str(text)],
        [str(run), *TYPED, "--image", str(tmp_path / "none.png")],
        [str(run), "--question-id", "none"],
        [str(run), *TYPED, "--caption", "x"],
        [str(run), *typed(asked, sample), "--model", "clip=x"],
    ]
    script = (
        "import json, sys\n"
        "from pipelines.predict import main\n"
        "codes = [main(case) for case in json.loads(sys.argv[1])]\n"
        "heavy = {'torch', 'transformers', 'prefect', 'matplotlib'} & set(sys.modules)\n"
        "print(codes, sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(cases)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"{[1] * len(cases)} []"
    errors = done.stderr.splitlines()
    wanted = ("does not exist", "is not a picture", "does not exist", "has no question 'none'")
    for expected, error in zip(wanted, errors, strict=False):
        assert error.startswith("mmcot-predict: error: ")
        assert expected in error


def test_a_figure_needs_matplotlib_and_nothing_else_does(run, monkeypatch, tmp_path, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name)
    )
    assert main([str(run), *TYPED, "--png", str(tmp_path / "why.png")]) == 1
    assert "mmcot[flows]" in capsys.readouterr().err
    assert main([str(run), *TYPED]) == 0


def test_a_figure_of_the_data_sets_question(run, sample, asked, tmp_path, capsys):
    why = tmp_path / "why.png"
    stored = ["--question-id", asked.question_id, "--data", str(sample), "--png", str(why)]
    assert main([str(run), *stored]) == 0
    with Image.open(why) as image:
        image.load()
    other = tmp_path / "other"
    place = other / picture_of(sample, asked).relative_to(sample)
    place.parent.mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(place)
    assert main([str(run), *stored[:2], "--data", str(other)]) == 1
    assert "is not the picture" in capsys.readouterr().err


def test_features_that_moved_and_other_features(run, artifacts, asked, capsys):
    question = ["--question-id", asked.question_id]
    ask(capsys, run, *question, "--features", artifacts / "tiny")
    assert main([str(run), *question, "--features", str(artifacts / "drawn" / "tiny")]) == 1
    assert "weights_sha256" in capsys.readouterr().err


def test_another_picture_for_a_stored_question(run, sample, artifacts, asked, capsys):
    others = [q for q in read_questions(artifacts) if q.has_image]
    other = next(q for q in others if q.question_id != asked.question_id)
    picture = picture_of(sample, other)
    reply = ask(capsys, run, "--question-id", asked.question_id, "--image", picture)
    same = ask(capsys, run, *typed(asked, sample)[:-1], picture)
    assert reply["picture"]["image_sha256"] == same["picture"]["image_sha256"]
    assert reply["choices"] == same["choices"]
    assert reply["right_answer"] is None, "it is that to the question's own picture"
