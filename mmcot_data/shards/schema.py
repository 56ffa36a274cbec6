"""What a shard says about itself: the spec of its features, its plan and its record."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self, get_args

from mmcot_data.errors import ShardError

__all__ = [
    "FORMAT_VERSION",
    "Container",
    "FeatureSpec",
    "PlanKey",
    "ShardRecord",
    "StorageDtype",
    "find_spec",
    "list_differences",
    "parse_fields",
]

FORMAT_VERSION = 1

Container = Literal["hdf5", "arrow"]
StorageDtype = Literal["float16", "float32"]

_MAX_SPEC_NBYTES = 2**20
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    str(int): (int,),
    str(str): (str,),
    str(int | None): (int, type(None)),
    str(str | None): (str, type(None)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSpec:
    """What made the features, and how they are stored. Equal specs give equal features.

    Raises:
        ShardError: If the shape or the storage dtype is impossible.
    """

    encoder: str
    model_id: str
    revision: str | None
    weights_sha256: str | None
    """None where it is not known, as for features that were imported."""
    random_weights: int | None
    """Seed of random weights; None for trained ones."""
    layer: str
    preprocessing: list[Any]
    """Every step with its parameters and implementation, as JSON values."""
    precision: str
    """Of the computation; ``dtype`` is that of the storage."""
    precision_error: float | None = field(compare=False)
    """Relative error against float32 that was measured when the precision was chosen; None if it
    was asked for. Not compared: the features are equal either way."""
    backend: str
    """What ran the model: ``torch``, ``compile``, ``openvino``; ``unknown`` for imports."""
    num_patches: int
    feature_dim: int
    grid: tuple[int, int] | None
    """Rows and columns: the last rows x columns patches lie on this grid over the (cropped)
    picture, row by row; those before them are class or register tokens. None if the patches have
    no place in the picture, as DETR's object queries."""
    versions: dict[str, str]
    """Versions of the libraries that computed the features."""
    dtype: StorageDtype
    data_licence: str
    """Licence of the pictures."""

    def __post_init__(self) -> None:
        if self.dtype not in get_args(StorageDtype):
            raise ShardError(
                f"storage dtype is {self.dtype!r}, expected {' or '.join(get_args(StorageDtype))}"
            )
        if self.num_patches < 1 or self.feature_dim < 1:
            raise ShardError(
                f"features have shape ({self.num_patches}, {self.feature_dim}), expected at least "
                "one patch and one feature"
            )
        if self.grid is not None and not 1 <= math.prod(self.grid) <= self.num_patches:
            raise ShardError(f"a grid of {self.grid} does not fit {self.num_patches} patches")

    @classmethod
    def from_json(cls, value: Any, where: str = "the spec") -> Self:
        """The spec from its JSON object; ``where`` names its place in errors.

        Raises:
            ShardError: If a field is missing or unknown.
        """
        found = parse_fields(cls, value, where)
        grid = found["grid"]
        return cls(**found | {"grid": grid and tuple(grid)})

    def to_json(self) -> dict[str, Any]:
        """The spec as a JSON object."""
        return asdict(self)

    @property
    def row_shape(self) -> tuple[int, int]:
        """(P, D): the shape of one picture's features."""
        return self.num_patches, self.feature_dim

    def differences(self, found: "FeatureSpec") -> list[str]:
        """Lines ``field: expected …, found …`` for all that differs; empty if the specs are equal.

        Args:
            found: The other spec; this one is what was expected.
        """
        found = replace(found, precision_error=self.precision_error)
        return list_differences(self.to_json(), found.to_json())


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanKey:
    """What decides, together with the spec, which row stands in which shard."""

    format: Container
    num_images: int
    """Distinct pictures, those that have no row included."""
    request_sha256: str
    """Digest of the (question id, image role) pairs asked for, in order; of the source, for
    features that were imported."""
    shard_size: int
    """Pictures in a full shard."""

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """The key from its JSON object; ``where`` names its place in errors.

        Raises:
            ShardError: If a field is missing or unknown.
        """
        return cls(**parse_fields(cls, value, where))

    def differences(self, found: "PlanKey") -> list[str]:
        """Lines ``field: expected …, found …`` for all that differs."""
        return list_differences(asdict(self), asdict(found))


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """One shard in the manifest. A shard all of whose pictures failed has a record but no file.

    With the offsets, rows and their checksums are read by memory map, without a library.
    """

    file: str
    """Name inside the feature set's folder."""
    rows: int
    failed: int
    """Pictures of its part of the plan that could not be decoded and have no row."""
    data_offset: int
    """Byte at which the features start, a multiple of 4096."""
    data_nbytes: int
    crc_offset: int
    """Byte at which the rows' CRC-32 start: one little-endian uint32 a row."""
    file_nbytes: int
    sha256: str
    """Hex digest of the whole file."""
    header_sha256: str
    """Hex digest of all that is before and after the features."""

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """The record from its JSON object; ``where`` names its place in errors.

        Raises:
            ShardError: If a field is missing or unknown.
        """
        return cls(**parse_fields(cls, value, where))

    @classmethod
    def without_rows(cls, file: str, *, failed: int) -> Self:
        """The record of a shard all of whose pictures failed; there is no such file."""
        return cls(
            file=file,
            rows=0,
            failed=failed,
            data_offset=0,
            data_nbytes=0,
            crc_offset=0,
            file_nbytes=0,
            sha256=hashlib.sha256().hexdigest(),
            header_sha256=hashlib.sha256().hexdigest(),
        )


def parse_fields(cls: type[Any], value: Any, where: str) -> dict[str, Any]:
    """Check that a JSON object has exactly the fields of a dataclass.

    Raises:
        ShardError: If it has not; names what is missing and what is unknown.
    """
    if not isinstance(value, dict):
        raise ShardError(f"{where}: expected a JSON object, found {type(value).__name__}")
    expected = {field.name for field in fields(cls)}
    if problems := [
        *(f"{name} is missing" for name in sorted(expected - value.keys())),
        *(f"{name} is unknown" for name in sorted(value.keys() - expected)),
    ]:
        raise ShardError(f"{where} is damaged or of another version: {', '.join(problems)}")
    for item in fields(cls):
        allowed = _JSON_TYPES.get(str(item.type))
        if allowed is not None and type(value[item.name]) not in allowed:
            raise ShardError(
                f"{where}: {item.name} is {value[item.name]!r:.100}, expected "
                f"{getattr(item.type, '__name__', item.type)}"
            )
    return value


def find_spec(header: bytes) -> dict[str, Any]:
    """The spec that a shard repeats, as JSON object, from the bytes around its features.

    Both containers hold it as plain text. Their libraries are not asked, since a damaged file can
    make them hang or crash.

    Raises:
        ValueError: If there is none, or if it is no JSON.
    """
    start = re.search(rb'\{\s*"encoder"\s*:', header)
    if start is None:
        raise ValueError("there is no spec")
    text = header[start.start() :][:_MAX_SPEC_NBYTES].decode(errors="replace")
    value: dict[str, Any] = json.JSONDecoder().raw_decode(text)[0]
    return value


def list_differences(expected: Any, found: Any, name: str = "") -> list[str]:
    """Lines ``field: expected …, found …`` of two JSON values; nested fields are dotted.

    Args:
        expected: A JSON value, as an object.
        found: The other one.
        name: Of the value itself, within a larger one.
    """
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        keys = {**expected, **found}
        pairs = [(str(key), expected.get(key, _NOTHING), found.get(key, _NOTHING)) for key in keys]
    elif _is_list(expected) and _is_list(found) and len(expected) == len(found):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(expected, found, strict=True))]
    else:
        same = expected == found
        return [] if same else [f"{name}: expected {_show(expected)}, found {_show(found)}"]
    return [
        line
        for key, left, right in pairs
        for line in list_differences(left, right, f"{name}.{key}" if name else key)
    ]


_NOTHING = object()


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _show(value: Any) -> str:
    return "nothing" if value is _NOTHING else repr(value)
