"""The settings of a training run in words: what --help says, and the comments in train.yaml."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any

from mmcot_data.prompts import PROMPT_FORMATS
from mmcot_data.questions import split_names
from mmcot_model.runs.reporters import REPORTERS
from mmcot_model.settings.config import TrainConfig
from mmcot_model.settings.recipes import RECIPES, Recipe

__all__ = ["GROUPS", "SETTINGS", "Setting", "flag_of"]

_SPLITS = tuple(split_names())
_SOURCE = "SOURCE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One field of ``TrainConfig``, which is one flag of mmcot-train and one key of a file."""

    name: str
    text: str
    """What it means, without its default."""
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    """Allowed values, where the field's type doesn't name them."""
    default: str | None = None
    """In words, where it is not the field's own default."""

    @property
    def default_text(self) -> str:
        """What holds if nothing is given."""
        if self.default is not None:
            return self.default
        if self.name in Recipe.__dataclass_fields__:
            tiny, other = (_shown(getattr(RECIPES[key], self.name)) for key in ("tiny", "default"))
            return tiny if tiny == other else f"{tiny} for the model tiny, {other} for any other"
        default = TrainConfig.__dataclass_fields__[self.name].default
        return "to be given" if default is MISSING else _shown(default)


def _shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def flag_of(name: str) -> str:
    """The flag of a setting: ``--batch-size`` of ``batch_size``."""
    return f"--{name.replace('_', '-')}"


GROUPS: Mapping[str, tuple[Setting, ...]] = {
    "what it reads": (
        Setting(
            name="features",
            text="feature set, as shards/detr, or its URL, as s3://bucket/shards/detr; several are "
            "read together, as shards/detr shards/clip; none trains on the text alone",
            metavar="DIR",
        ),
        Setting(
            name="artifacts",
            text="artifact root: the folder with questions.parquet, captions/ and rationales/",
            metavar="DIR",
            default="the folder that holds the feature sets",
        ),
        Setting(
            name="captions",
            text="captions/PRODUCER.parquet is added to the context",
            metavar="PRODUCER",
        ),
        Setting(
            name="image_roles",
            text="the first of these roles that a question has is its picture",
            metavar="ROLE",
        ),
        Setting(name="train_split", text="questions to learn from", choices=_SPLITS),
        Setting(
            name="val_split",
            text="questions that choose the best weights; read with keep best only",
            choices=_SPLITS,
        ),
        Setting(
            name="test_split", text="questions to answer when training is over", choices=_SPLITS
        ),
    ),
    "what it trains": (
        Setting(
            name="stage",
            text="rationale: stage 1, which writes rationales; answer: one model that answers; "
            "both: stage 1, then stage 2, which answers from the rationales of stage 1",
        ),
        Setting(
            name="prompt_format",
            text="what stage 1 reads and writes: QCM-E (solution) or QCM-LE (lecture and "
            "solution). With stage answer: QCM-A (answer alone), QCMG-A (answer from a given "
            "rationale), QCM-LEA (explanation, then answer) or QCM-ALE (answer, then explanation)",
            choices=PROMPT_FORMATS,
            default="QCM-E; QCM-A with stage answer",
        ),
        Setting(
            name="model",
            text="tiny (from scratch, with a tokenizer of its own), or the folder or hub id of a "
            "T5 or FusionT5; the paper's is declare-lab/flan-alpaca-base",
            metavar="MODEL",
        ),
        Setting(
            name="rationale_model",
            text="folder or hub id of a trained stage 1 that is used as it is, as runs/a/rationale "
            "or what mmcot-convert made",
            metavar="MODEL",
        ),
        Setting(
            name="answer_model",
            text="folder or hub id of a trained answer stage that is used as it is",
            metavar="MODEL",
        ),
        Setting(
            name="vocab_size",
            text="most pieces of the tokenizer that is trained for the model tiny",
            metavar="N",
        ),
        Setting(name="seed", text="of weights, data order and dropout", metavar="N"),
        Setting(
            name="output",
            text="run folder; it is never overwritten",
            metavar="DIR",
            default="runs/FEATURES-MODEL",
        ),
    ),
    "rationales (SOURCE: a producer in rationales/, a .parquet file, gold-e or gold-le)": (
        Setting(
            name="target_rationales",
            text="what stage 1 learns to write, such as teacher; with QCM-LEA answers, too",
            metavar=_SOURCE,
            default="the gold ones of the prompt format",
        ),
        Setting(
            name="train_rationales",
            text="what the answer stage learns from; stage1-kfold is like what it is tested with",
            metavar=_SOURCE,
            default="gold ones of the form of the tested ones, or the tested table if it covers "
            "the split",
        ),
        Setting(
            name="val_rationales",
            text="what the answer stage is validated with",
            metavar=_SOURCE,
            default="the same as for the test",
        ),
        Setting(
            name="rationales",
            text="what the answer stage is tested with",
            metavar=_SOURCE,
            default="what the run's own stage 1 writes",
        ),
    ),
    "how long it trains": (
        Setting(name="rationale_epochs", text="passes of stage 1 over the split", metavar="N"),
        Setting(name="answer_epochs", text="passes of the answer stage", metavar="N"),
        Setting(name="max_steps", text="optimizer steps of each stage, not epochs", metavar="N"),
        Setting(
            name="keep",
            text="weights that a stage ends with: those of the best evaluation, which is made "
            "after each epoch on generated texts (rationales: ROUGE-L, answers: accuracy), or the "
            "last",
        ),
        Setting(
            name="early_stopping",
            text="stop after so many evaluations in a row without a better one; with keep best",
            metavar="N",
            default="none, train to the end",
        ),
        Setting(
            name="eval_questions",
            text="most questions of an evaluation in training, chosen by their ids",
            metavar="N",
        ),
    ),
    "how it trains": (
        Setting(name="batch_size", text="questions a batch and device", metavar="N"),
        Setting(
            name="gradient_accumulation",
            text="batches a step and device; each token counts the same in whatever batch",
            metavar="N",
        ),
        Setting(
            name="learning_rate",
            text="of AdamW at its peak; it falls to 0 linearly",
            metavar="RATE",
        ),
        Setting(name="warmup", text="share of the steps in which the rate rises", metavar="SHARE"),
        Setting(name="weight_decay", text="of AdamW, on all but biases and norms", metavar="RATE"),
        Setting(
            name="max_source", text="tokens of a source; more are cut, and counted", metavar="N"
        ),
        Setting(name="max_rationale", text="tokens of a rationale, learnt or written", metavar="N"),
        Setting(name="max_answer", text="tokens of an answer, learnt or written", metavar="N"),
    ),
    "speed and memory": (
        Setting(
            name="precision",
            text="of the arithmetic; auto takes bf16 on GPUs that have units for it. Weights and "
            "optimizer stay in float32",
        ),
        Setting(
            name="length_window",
            text="batches that are sorted by length together, to save padding; 1 sorts nothing, "
            "which a small model learns better from",
            metavar="N",
        ),
        Setting(
            name="gradient_checkpointing",
            text="compute activations twice instead of keeping them: less memory, slower",
        ),
        Setting(
            name="compile", text="compile the model: minutes at the start, faster steps on a GPU"
        ),
        Setting(name="eval_batch_size", text="questions at once in generation", metavar="N"),
        Setting(
            name="loader_workers",
            text="processes that make batches ahead; 0 makes them in between",
            metavar="N",
        ),
    ),
    "likeness to the reference (the other value is its behaviour; --reference sets all)": (
        Setting(
            name="absent_image",
            text="what a question without a picture gets: its text state (text), or zero features "
            "(zeros)",
        ),
        Setting(
            name="label_padding",
            text="the padding of targets is ignored by the loss, or counted in it",
        ),
        Setting(
            name="truncation",
            text="too long a source keeps cue and rationale (keep), or loses its end (right)",
        ),
        Setting(
            name="padding",
            text="a batch is padded to its longest text, or every text to the limits (fixed)",
        ),
        Setting(
            name="failures",
            text="an answer that cannot be read is wrong, or a letter is drawn for it (random)",
        ),
    ),
    "where it reports": (
        Setting(
            name="report_to",
            text="experiment trackers, which must be installed; none for none",
            metavar="TRACKER",
            choices=REPORTERS,
        ),
        Setting(
            name="push_to_hub",
            text="repository on the Hugging Face hub that gets the finished run: models, tables "
            "and card. Needs HF_TOKEN or `hf auth login`; looked at before training",
            metavar="OWNER/NAME",
        ),
        Setting(name="hub_private", text="make the repository private if it is new"),
    ),
}
"""The settings by purpose, in the order of --help and of train.yaml."""

SETTINGS: Mapping[str, Setting] = {
    setting.name: setting for group in GROUPS.values() for setting in group
}
"""By name; every field of ``TrainConfig`` is there."""
