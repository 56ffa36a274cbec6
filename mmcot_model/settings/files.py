"""Settings of a training run as a file: YAML, TOML, or the config.json of a run."""

import json
import sys
import textwrap
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from mmcot_data import __version__
from mmcot_data.errors import MmcotError, TrainingError
from mmcot_data.files import write_bytes
from mmcot_model.settings.config import TrainConfig
from mmcot_model.settings.descriptions import GROUPS, SETTINGS
from mmcot_model.settings.values import kind_of, plain_value

__all__ = ["read_config_file", "write_config_file"]

_FORMATS = (".yaml", ".yml", ".toml", ".json")
_LINE_BREAKS = frozenset("\x85\u2028\u2029")
"""Of YAML, beside those of ASCII; only if they are escaped are they read as they are."""
_COMMENT = textwrap.TextWrapper(98, break_on_hyphens=False)
_HEAD = """\
# Settings of a run of mmcot-train {version}. To train with them again:
#   mmcot-train --config train.yaml --output ANOTHER_FOLDER
# A flag on the command line wins over the value here. Relative paths are relative to the working
# directory, as they are on the command line.
"""


def read_config_file(path: Path) -> dict[str, Any]:
    """The settings that a file names, as values of fields of ``TrainConfig``.

    Keys are the names of the fields. A file need not name all of them; what is not there has its
    default. What else stands in a run's config.json (digests, number of processes) is passed
    over.

    Args:
        path: A .yaml, .yml, .toml or .json file.

    Raises:
        TrainingError: If the file cannot be read, or holds unknown settings or values that they
            cannot have; all of them are named.
    """
    values, faults = {}, []
    for key, value in _read_mapping(path).items():
        if path.suffix == ".json" and _is_record(str(key)):
            continue
        if key not in SETTINGS:
            near = get_close_matches(str(key).replace("-", "_").lower(), SETTINGS, n=1)
            hint = f", did you mean {near[0]}" if near else ""
            faults.append(f"unknown setting {key!r}{hint}")
            continue
        kind = kind_of(key)
        try:
            values[key] = kind.from_file(value)
        except ValueError:
            faults.append(f"{key} is {value!r}, expected {kind.expected}")
        except MmcotError as error:  # of a URL
            faults.append(f"{key}: {error}")
    if faults:
        raise TrainingError(
            f"{path}: {'; '.join(faults)}. `mmcot-train --help` tells what each setting means; its "
            "name is that of the flag, with _ for -"
        )
    return values


def _is_record(key: str) -> bool:
    """Whether a key of config.json says what the run found, not what it was asked for."""
    return key == "processes" or key.startswith("sha256 of ")


def write_config_file(path: Path, config: TrainConfig) -> None:
    """Write every setting as commented YAML, atomically; paths are written as they were given.

    ``TrainConfig(**read_config_file(path))`` is equal to ``config``.
    """
    lines = _HEAD.format(version=__version__).splitlines()
    for title, group in GROUPS.items():
        lines += ["", f"# {title} ".ljust(100, "-")]
        for setting in group:
            comment = f"{setting.text} (default: {setting.default_text})"
            lines += ["", *(f"# {line}" for line in _COMMENT.wrap(comment))]
            lines.append(_yaml_line(setting.name, getattr(config, setting.name)))
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def _yaml_line(name: str, value: Any) -> str:
    plain = plain_value(value)
    is_readable = not _LINE_BREAKS.intersection(json.dumps(plain, ensure_ascii=False))

    def dump(value: Any, *, in_one_line: bool) -> str:
        text: str = yaml.safe_dump(
            value, allow_unicode=is_readable, width=sys.maxsize, default_flow_style=in_one_line
        )
        return text.rstrip("\n")

    if isinstance(plain, list):
        return f"{name}: {dump(plain, in_one_line=True)}"
    return dump({name: plain}, in_one_line=False)


def _read_mapping(path: Path) -> Mapping[Any, Any]:
    if path.suffix not in _FORMATS:
        raise TrainingError(f"{path}: expected a file of settings, {', '.join(_FORMATS)}")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            found = json.loads(text, object_pairs_hook=_unique)
        else:
            _unique([(key.value, None) for key, _ in _top_level(text)])
            found = yaml.safe_load(text)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        kind = {".toml": "TOML", ".json": "JSON"}.get(path.suffix, "YAML")
        raise TrainingError(f"{path}: not valid {kind}: {error}") from error
    if found is None:  # only comments
        return {}
    if not isinstance(found, dict):
        raise TrainingError(
            f"{path}: expected settings by name, as `batch_size: 8`, found {type(found).__name__}"
        )
    return found


def _top_level(text: str) -> list[Any]:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return node.value if isinstance(node, yaml.MappingNode) else []


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dict of pairs, of which YAML and JSON would take the last of equal keys in silence."""
    keys = [key for key, _ in pairs]
    if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
        raise ValueError(f"{', '.join(twice)} stands there more than once")
    return dict(pairs)
