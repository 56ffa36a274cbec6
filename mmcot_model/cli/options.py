"""Options that the commands share which train models: a flag for each setting of a run."""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mmcot_data.errors import MmcotError
from mmcot_data.shards.remote import is_remote
from mmcot_model.settings.config import TrainConfig
from mmcot_model.settings.descriptions import GROUPS, SETTINGS, Setting, flag_of
from mmcot_model.settings.files import read_config_file
from mmcot_model.settings.recipes import REFERENCE, recipe_of
from mmcot_model.settings.values import ValueKind, kind_of

__all__ = ["add_file_options", "add_setting_options", "config_from", "feature_set"]


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Options that stand for many settings."""
    many = parser.add_argument_group("many settings at once")
    many.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings of a .yaml, .toml or .json file, such as the train.yaml of a run: the flags "
        "below without --, with _ for -. Flags win over it (default: none)",
    )
    many.add_argument(
        "--reference",
        action="store_true",
        help="behave as Multimodal-CoT's released code, to compare with it: "
        + ", ".join(f"{name} {_shown(value)}" for name, value in REFERENCE.items())
        + ", and train_rationales gold-le. Wins over --config; flags win over it (default: off)",
    )


def _shown(value: Any) -> str:
    return "+".join(value) if isinstance(value, tuple) else str(value)


def add_setting_options(parser: argparse.ArgumentParser, leave_out: Collection[str] = ()) -> None:
    """A flag for each setting, by purpose; what is not given stays out of the namespace.

    Args:
        parser: Gets the options.
        leave_out: Settings that the command has no flag for, or another.
    """
    for title, settings in GROUPS.items():
        wanted = [setting for setting in settings if setting.name not in leave_out]
        group = parser.add_argument_group(title) if wanted else parser
        for setting in wanted:
            _add_option(group, setting)


def _add_option(group: "argparse._ActionsContainer", setting: Setting) -> None:
    kind = kind_of(setting.name)
    flag, text = flag_of(setting.name), f"{setting.text} (default: {setting.default_text})"
    if kind.element is bool:
        group.add_argument(
            flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
        )
        return
    group.add_argument(
        flag,
        action=_SettingAction,
        kind=kind,
        nargs="+" if kind.many else None,
        metavar=setting.metavar or (f"{{{','.join(kind.choices)}}}" if kind.choices else None),
        default=argparse.SUPPRESS,
        help=text,
    )


class _SettingAction(argparse.Action):
    """Stores the value of a setting that a flag's text says."""

    def __init__(self, *args: Any, kind: ValueKind, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        _flag: str | None = None,
    ) -> None:
        """As argparse wants it."""
        texts = [values] if isinstance(values, str) else list(values or ())
        try:
            value = self.kind.from_texts(texts)
        except ValueError as error:
            given = " ".join(texts)
            raise argparse.ArgumentError(
                self, f"expected {self.kind.expected}, got {given!r}"
            ) from error
        except MmcotError as error:  # of a URL
            raise argparse.ArgumentError(self, str(error)) from error
        setattr(namespace, self.dest, value)


def feature_set(text: str) -> Path | str:
    """For ``type=``: a folder or the URL of a feature set."""
    try:
        return text if is_remote(text) else Path(text)
    except MmcotError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def config_from(arguments: argparse.Namespace, prefix: str = "") -> TrainConfig:
    """The run that the options describe: flags win over --reference, that over --config.

    Args:
        arguments: Of a parser with options of this module; attributes with the names of settings
            count as flags.
        prefix: Of the default run folder's name.

    Raises:
        ValueError: If there is nothing to read, or settings exclude each other.
        TrainingError: If the file of --config cannot be used.
    """
    given = {name: value for name, value in vars(arguments).items() if name in SETTINGS}
    file: Path | None = getattr(arguments, "config", None)
    is_reference: bool = getattr(arguments, "reference", False)
    values = {} if file is None else read_config_file(file)
    values |= (dict(REFERENCE) if is_reference else {}) | given
    features = values.setdefault("features", ())
    model = values.setdefault("model", "tiny")
    if "artifacts" not in values:
        values["artifacts"] = _artifacts_of(features)
    if "prompt_format" not in values:
        values["prompt_format"] = "QCM-A" if values.get("stage") == "answer" else "QCM-E"
    if "output" not in values:
        read = "+".join(map(_name, features)) or "text"
        values["output"] = Path("runs") / f"{prefix}{read}-{Path(model).name}"
    config = TrainConfig(**asdict(recipe_of(model)) | values)
    if is_reference and config.reads_rationales and "train_rationales" not in given:
        return replace(config, train_rationales="gold-le")
    return config


def _artifacts_of(features: Sequence[Path | str]) -> Path:
    """The folder that holds the feature sets."""
    if not features:
        raise ValueError(
            "nothing to train on: give --features DIR (a feature set), or --artifacts DIR (the "
            "folder of questions.parquet) for a run on the text alone"
        )
    folders = {place.resolve().parent for place in features if isinstance(place, Path)}
    if not folders:
        raise ValueError(
            f"--features {features[0]} is a URL: give --artifacts DIR too, a local folder with "
            "questions.parquet"
        )
    if len(folders) > 1:
        raise ValueError(
            f"--features stand in several folders ({', '.join(map(str, sorted(folders)))}): give "
            "--artifacts DIR too, the one with questions.parquet"
        )
    return folders.pop()


def _name(features: Path | str) -> str:
    """``detr`` of shards/detr."""
    return PurePosixPath(features).name if isinstance(features, str) else features.resolve().name
