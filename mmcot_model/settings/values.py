"""Values of settings: from the text of a flag, from a file, and as what a file can hold."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from mmcot_data.shards.remote import is_remote
from mmcot_model.settings.config import TrainConfig
from mmcot_model.settings.descriptions import SETTINGS

__all__ = ["NOTHING", "ValueKind", "kind_of", "plain_value"]

NOTHING = "none"
"""How a setting that may be absent is said to be, in flags and files."""
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""Numbers such as 8e-5, which YAML 1.1 reads as text: it wants 8.0e-5."""
_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueKind:
    """What values a setting takes."""

    element: type
    """int, float, bool, str or Path."""
    many: bool = False
    optional: bool = False
    """Whether it may be absent: None, or an empty tuple."""
    choices: tuple[str, ...] = ()
    may_be_url: bool = False

    @property
    def expected(self) -> str:
        """What to give, for errors."""
        if self.choices:
            one = f"one of {', '.join(self.choices)}"
        else:
            one = "a path" if self.element is Path else _EXPECTED[self.element]
        return (f"a list, each {one}" if self.many else one) + (
            f", or {NOTHING}" if self.optional else ""
        )

    def from_file(self, value: Any) -> Any:
        """The setting's value of one that was read from a file.

        Raises:
            ValueError: If it is of another type, or not allowed.
            ShardError: If a URL is not written as one.
        """
        if self.optional and (value is None or value == NOTHING or value == []):
            return () if self.many else None
        if self.many:
            if not isinstance(value, list) or not value:
                raise ValueError
            return tuple(self._element_from_file(each) for each in value)
        return self._element_from_file(value)

    def from_texts(self, texts: Sequence[str]) -> Any:
        """The setting's value of a flag's words.

        Raises:
            ValueError: If they say none, or one that is not allowed.
            ShardError: If a URL is not written as one.
        """
        if self.optional and list(texts) == [NOTHING]:
            return () if self.many else None
        values = [text if self._is_text else self.element(text) for text in texts]
        return self.from_file(values if self.many else values[0])

    @property
    def _is_text(self) -> bool:
        return self.element in (str, Path)

    def _element_from_file(self, value: Any) -> Any:
        if self.element is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
            return float(value)
        if self._is_text:
            fits = isinstance(value, str) and value != ""
        elif isinstance(value, bool):
            fits = self.element is bool
        else:
            fits = isinstance(value, self.element) or (self.element, type(value)) == (float, int)
        if not fits:
            raise ValueError
        return self._checked_text(value) if self._is_text else self.element(value)

    def _checked_text(self, text: str) -> str | Path:
        if self.choices and text not in self.choices:
            raise ValueError
        if self.may_be_url and is_remote(text):
            return text
        return Path(text) if self.element is Path else text


def kind_of(name: str) -> ValueKind:
    """What values a setting takes, by the type of its field.

    Raises:
        KeyError: If there is no such setting.
    """
    setting = SETTINGS[name]
    field_type: Any = TrainConfig.__dataclass_fields__[name].type
    many = get_origin(field_type) is tuple
    members = _members(get_args(field_type)[0] if many else field_type)
    types = [member for member in members if member is not NoneType]
    choices = setting.choices
    if get_origin(types[0]) is Literal:
        choices, types = get_args(types[0]), [str]
    return ValueKind(
        element=Path if Path in types else types[0],
        many=many,
        optional=len(types) < len(members) or (many and _default(name) == ()),
        choices=choices,
        may_be_url=Path in types and str in types,
    )


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def _default(name: str) -> Any:
    return TrainConfig.__dataclass_fields__[name].default


def plain_value(value: Any) -> Any:
    """A setting's value as what YAML, TOML and JSON can hold; paths as they were given."""
    if isinstance(value, tuple):
        return [plain_value(each) for each in value]
    return str(value) if isinstance(value, Path) else value
