"""The sections of a run card, as lines of Markdown."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcot_data.prompts import build_prompt
from mmcot_data.questions import Question
from mmcot_model.evaluation.buckets import BUCKETS
from mmcot_model.evaluation.tables import markdown_table
from mmcot_model.settings.config import TrainConfig
from mmcot_model.settings.descriptions import SETTINGS
from mmcot_model.settings.recipes import recipe_of
from mmcot_model.settings.values import plain_value

__all__ = [
    "is_hub_id",
    "licence_lines",
    "score_lines",
    "setting_lines",
    "stage_lines",
    "training_lines",
    "usage_lines",
]

_PLACES = ("artifacts", "output", "features", "report_to", "push_to_hub", "hub_private")
"""Settings that are not told: they say nothing of the models, and may name folders."""
_ALWAYS = ("learning_rate", "batch_size", "gradient_accumulation", "precision", "keep", "seed")
_RATIONALE_SCORES = {"bleu1": "BLEU-1", "bleu4": "BLEU-4", "rouge": "ROUGE-L"}
_EXAMPLE = Question(
    dataset="example",
    question_id="1",
    split="test",
    position=0,
    question="Which of these melts above 0 degrees?",
    choices=("ice", "stone"),
    answer=0,
)


def is_hub_id(model: str) -> bool:
    """Whether a model's name is one of the hub, not a preset or a folder."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None and not Path(model).exists()


def stage_lines(config: TrainConfig, run: Mapping[str, Any]) -> Iterator[str]:
    """What the stages read, learnt and were tested with."""
    reads = ["question", "context", "choices"]
    if config.captions is not None:
        reads.append(f"captions by {config.captions}")
    if specs := run["feature_specs"]:
        shapes = (
            f"{each['encoder']} ({each['num_patches']}, {each['feature_dim']})" for each in specs
        )
        reads.append(f"patch features of the picture: {' and '.join(shapes)}")
    yield (
        "[Multimodal Chain-of-Thought](https://arxiv.org/abs/2302.00923), trained by mmcot "
        f"{run['environment']['versions']['mmcot']}. It reads {', '.join(reads)}"
        f"{'' if specs else '; no picture'}."
    )
    yield ""
    rows = []
    if config.stage != "answer":
        learnt = _shown_source(config.target_rationales or "gold rationales")
        rows.append(("rationale", config.prompt_format, *_origin(config, "rationale", learnt), "-"))
    if config.stage != "rationale":
        learnt, tested = "gold answers", "-"
        if config.reads_rationales:
            learnt = f"gold answers, from {_learnt_from(config)}"
            tested = _shown_source(config.rationales or "what stage 1 writes")
        elif config.target_rationales is not None:
            learnt = _shown_source(config.target_rationales)
        rows.append(("answer", config.answer_format, *_origin(config, "answer", learnt), tested))
    yield markdown_table(
        ("stage", "format", "starts from", "learnt", "tested with rationales"),
        rows,
        num_text_columns=5,
    )


def _shown_source(source: str) -> str:
    """A producer's name, or a file's without the folders that it lies in."""
    return Path(source).name if source.endswith(".parquet") else source


def _origin(config: TrainConfig, stage: str, learnt: str) -> tuple[str, str]:
    """What a stage started from, and what it learnt; a model that was given learnt nothing here."""
    given = config.rationale_model if stage == "rationale" else config.answer_model
    if given is not None:
        return _shown_model(given), "nothing in this run"
    return _shown_model(config.model), learnt


def _shown_model(model: str) -> str:
    if model == "tiny":
        return "random weights"
    return model if is_hub_id(model) else f"a folder named {Path(model).name}"


def _learnt_from(config: TrainConfig) -> str:
    """The rationales that the answer stage read when it learnt."""
    if config.train_rationales is not None:
        return _shown_source(config.train_rationales)
    if config.rationales is not None:
        return f"{_shown_source(config.rationales)} where it covers the split, else gold rationales"
    return _shown_source(config.target_rationales or "gold rationales")


def score_lines(config: TrainConfig, scores: Mapping[str, Any] | None) -> Iterator[str]:
    """Accuracy by bucket, with numbers of questions and intervals; scores of the rationales."""
    if scores is None:
        yield f"None: stage 1 alone. What it wrote for {config.test_split}: rationales.parquet."
        return
    rows = []
    for key, bucket in BUCKETS.items():
        ends = scores["interval"][key]
        rows.append(
            (
                bucket.label,
                bucket.title,
                str(scores["n"][key]),
                scores["answer"][key] or "-",
                "-" if ends is None else f"{ends['low']:.1f} to {ends['high']:.1f}",
            )
        )
    yield f"On {config.test_split}, in percent:"
    yield ""
    yield markdown_table(
        ("bucket", "questions", "n", "accuracy", "95% interval"), rows, num_text_columns=2
    )
    yield ""
    how = "a letter was drawn for them" if scores["failures"] == "random" else "they count as wrong"
    yield (
        f"{scores['num_failed']} of {scores['n']['acc_average']} answers could not be read; {how}."
    )
    found = ((name, scores["rationale"][key]) for key, name in _RATIONALE_SCORES.items())
    if shown := ", ".join(f"{name} {value:.2f}" for name, value in found if value is not None):
        yield f"The rationales, against gold ones: {shown}."


def usage_lines(config: TrainConfig, run: Mapping[str, Any]) -> Iterator[str]:
    """Commands, and a few lines of Python."""
    yield from (
        "With `RUN` for this folder, or for what `hf download OWNER/NAME --local-dir RUN` makes of "
        "its repository:",
        "",
        "```",
        "mmcot-evaluate RUN --artifacts shards",
        _predict_line(config, run),
        "```",
        "",
    )
    stage = "answer" if config.stage == "answer" else "rationale"
    given = config.answer_model if stage == "answer" else config.rationale_model
    model = given or f"RUN/{stage}"
    if given is not None and not is_hub_id(given):
        model = "MODEL"
        yield from (
            f"`MODEL` is the {stage} stage that this run was given, {_shown_model(given)}. It is "
            "no part of this run, and the commands need it where config.json says.",
            "",
        )
    form = config.prompt_format
    source = build_prompt(
        _EXAMPLE, form, rationale="Solution: Stone does not." if form == "QCMG-A" else None
    ).source
    yield from (
        "A stage alone, on the text alone:" if run["feature_specs"] else "A stage alone:",
        "",
        "```python",
        "from mmcot_model.loading import load_model",
        "",
        f"model, tokenizer = load_model({model!r})",
        f"source = {source!r}",
        'tokens = model.generate(**tokenizer(source, return_tensors="pt"), max_new_tokens=128)',
        "print(tokenizer.decode(tokens[0], skip_special_tokens=True))",
        "```",
    )
    if run["feature_specs"]:
        yield from (
            "",
            "`generate` takes `image_features` (B, P, D) and `image_mask` (B, P) of "
            "`mmcot_data.shards.open_features(…).gather([question_id])`.",
        )


def _predict_line(config: TrainConfig, run: Mapping[str, Any]) -> str:
    """What the run can be asked, with what it needs and nothing that it refuses."""
    words = ["mmcot-predict RUN"]
    if run["feature_specs"]:
        words.append("--image X.png")
    words.append("--question 'Which melts?' --choice ice --choice stone")
    if config.captions is not None:
        words.append("--caption 'Ice.'")
    if config.stage == "answer" and config.reads_rationales:
        words.append("--rationale 'Ice melts.'")
    return " ".join(words)


def training_lines(
    config: TrainConfig, run: Mapping[str, Any], datasets: Sequence[str]
) -> Iterator[str]:
    """Questions, features, and what was cut off of too long texts."""
    named = f" of {', '.join(datasets)}" if datasets else ""
    yield f"Questions{named}, split {config.train_split}."
    if config.keep == "best" and (config.trains("rationale") or config.trains("answer")):
        yield f"The weights are the best of those that were evaluated on {config.val_split}."
    yield ""
    rows = [
        (
            spec["encoder"],
            spec["model_id"],
            (spec["weights_sha256"] or "unknown")[:12],
            f"({spec['num_patches']}, {spec['feature_dim']})",
            spec["precision"],
        )
        for spec in run["feature_specs"]
    ]
    if rows:
        heads = ("features", "model", "sha256 of the weights", "shape", "computed in")
        yield markdown_table(heads, rows, num_text_columns=5)
        yield ""
        yield "Preprocessing and versions of the libraries: `feature_specs` in run.json."
    for name, cuts in run["cuts"].items():
        for kind in ("sources", "targets"):
            if (cut := cuts[kind]) and cut["num_cut"]:
                yield (
                    f"{name}: {cut['num_cut']} of {cut['num']} {kind} were longer than "
                    f"{cut['limit']} tokens and were cut."
                )


def setting_lines(config: TrainConfig, environment: Mapping[str, Any]) -> Iterator[str]:
    """Those that differ from the defaults, and some that everybody asks for."""
    yield "The rest of `train.yaml` holds defaults."
    yield ""
    fields = TrainConfig.__dataclass_fields__
    recipe = recipe_of(config.model)
    rows = []
    for name in SETTINGS:
        value = getattr(config, name)
        default = getattr(recipe, name, fields[name].default)
        if name not in _PLACES and (name in _ALWAYS or value != default):
            plain = plain_value(value)
            shown = " ".join(plain) if isinstance(plain, list) else str(plain)
            if name.endswith(("rationales", "model")) and "/" in shown and not is_hub_id(shown):
                shown = Path(shown).name
            rows.append((name, shown))
    yield markdown_table(("setting", "value"), rows, num_text_columns=2)
    yield ""
    versions = environment["versions"]
    devices = (
        ", ".join(environment["gpus"]) or f"{environment['cores']} cores of {environment['cpu']}"
    )
    number = environment["processes"]
    together = f" by each of {number} processes" if number > 1 else ""
    yield (
        f"Trained on {devices}{together}, with Python {environment['python']}, torch "
        f"{versions['torch']}, transformers {versions['transformers']}."
    )
    for where, state in environment["git"].items():
        if state is not None:
            dirty = ", with changes that were not committed" if state["dirty"] else ""
            yield f"Commit of {where}: {state['commit']}{dirty}."


def licence_lines(config: TrainConfig, run: Mapping[str, Any]) -> Iterator[str]:
    """What is known; a licence of the model itself is not for us to choose."""
    for spec in run["feature_specs"]:
        yield f"- Pictures behind the features {spec['encoder']}: {spec['data_licence']}."
    if is_hub_id(config.model):
        yield f"- {config.model}: see its card."
    yield "- mmcot: Apache-2.0."
    yield ""
    yield "No licence of the model is named here: choose one that these allow to publish it."
