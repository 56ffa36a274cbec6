"""Load again the encoder that a feature set's spec describes, and tell what is another one now."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal, cast, get_args

from mmcot_data.encoders import ENCODERS, load_encoder
from mmcot_data.encoders.base import Alpha, Encoder, EncoderConfig, Precision, Resizer
from mmcot_data.encoders.compute import find_device
from mmcot_data.errors import EncoderError, ShardError, SpecMismatchError
from mmcot_data.images import describe_decoding
from mmcot_data.shards.schema import FeatureSpec, list_differences

__all__ = [
    "NotReextractableError",
    "check_encoder",
    "find_alpha",
    "find_config",
    "list_changes",
    "load_spec_encoder",
]

_MUST_BE_EQUAL = (
    "weights_sha256",
    "layer",
    "preprocessing",
    "precision",
    "num_patches",
    "feature_dim",
    "grid",
)
"""Fields of the spec without which features are others. A model's id may be another one: its
weights are compared."""

_REPLACED: Mapping[str, Precision] = {"tf32": "fp32"}
"""Precisions that only GPUs of NVIDIA have, and what they approximate."""

_Way = Literal["reference", "native"]


class NotReextractableError(ShardError):
    """Features that were imported do not say enough to be extracted anew, with any model."""


def load_spec_encoder(
    spec: FeatureSpec, *, model: str | None = None, device: str = "auto"
) -> Encoder:
    """Load the encoder that makes features as a spec says.

    torch runs it, whatever ran it before: torch.compile would compile a model for a few rows, and
    another backend is a better witness.

    Args:
        spec: What made the features.
        model: Local folder or hub id of the model, where the spec's own can't be found.
        device: As for ``EncoderConfig``.

    Raises:
        EncoderError: If the model can't be loaded, or the device doesn't have the precision.
        NotReextractableError, ShardError: As ``find_config``.
        SpecMismatchError: If what is found makes other features; lists what differs.
    """
    config = find_config(spec, model=model, device=device)
    expected = spec.to_json()["preprocessing"]
    mismatches: list[SpecMismatchError] = []
    refusals: list[EncoderError] = []
    for way in _likely_first(spec.preprocessing):
        try:
            encoder = load_encoder(replace(config, preprocessing=way))
        except EncoderError as error:
            if error.__cause__ is not None:  # a library can't load it, whatever the preprocessing
                raise
            refusals.append(error)
            continue
        mismatch = _find_mismatch(encoder, spec)
        if mismatch is None:
            return encoder
        if _describe(encoder)["preprocessing"] == expected:
            raise mismatch
        mismatches.append(mismatch)
    raise [*mismatches, *refusals][0]


def find_config(
    spec: FeatureSpec, *, model: str | None = None, device: str = "auto"
) -> EncoderConfig:
    """The configuration of the encoder that a spec describes, all but ``preprocessing``.

    Elsewhere than on a GPU of NVIDIA tf32 is replaced by fp32, which it approximates.

    Args:
        spec: What made the features.
        model: As for ``load_spec_encoder``.
        device: As for ``EncoderConfig``.

    Raises:
        EncoderError: If there is no such device.
        NotReextractableError: If the features were imported.
        ShardError: If their model came from a folder and ``model`` is None.
    """
    if spec.weights_sha256 is None or spec.precision not in get_args(Precision):
        raise NotReextractableError(
            f"features of {spec.encoder} that were imported can't be extracted anew: their spec "
            "does not say which weights, preprocessing and precision made them. `mmcot-data "
            "extract` makes features that can be"
        )
    named = spec.encoder in ENCODERS
    own = ENCODERS[spec.encoder].model_id if named else spec.encoder.removeprefix("hf:")
    is_default = named and spec.model_id == own
    if model is None and "/" not in spec.model_id and spec.revision is None and not is_default:
        raise ShardError(
            f"the model of these features came from a local folder named {spec.model_id!r}; say "
            f"where it is with --model FOLDER. Its weights have the sha256 {spec.weights_sha256}"
        )
    precision = cast(Precision, spec.precision)
    if precision in _REPLACED and find_device(device).type != "cuda":
        precision = _REPLACED[precision]
    return EncoderConfig(
        name=spec.encoder,
        model=model or (None if spec.model_id == own else spec.model_id),
        revision=spec.revision if model is None else None,
        random_weights=spec.random_weights,
        resize=_find_resizer(spec.preprocessing),
        alpha=find_alpha(spec.preprocessing),
        precision=precision,
        device=device,
    )


def find_alpha(steps: Sequence[Any]) -> Alpha:
    """What a spec's preprocessing does to transparent pixels; white if no step says so."""
    alphas: tuple[Alpha, ...] = get_args(Alpha)
    return next((alpha for alpha in alphas if describe_decoding(alpha) in steps), "white")


def check_encoder(encoder: Encoder, spec: FeatureSpec) -> None:
    """Refuse an encoder that makes other features than those of a spec.

    Raises:
        SpecMismatchError: Lists what differs.
    """
    mismatch = _find_mismatch(encoder, spec)
    if mismatch is not None:
        raise mismatch


def list_changes(encoder: Encoder, spec: FeatureSpec) -> list[str]:
    """What is another one now and may change the rounding of features, as sentences."""
    expected, found = spec.to_json(), _describe(encoder)
    changes = [
        f"the {name} {expected[name]} made them, {found[name]} computes now"
        for name in ("backend", "precision")
        if expected[name] != found[name]
    ]
    versions: Mapping[str, str] = found["versions"]
    for library, version in spec.versions.items():
        if library not in versions:
            changes.append(f"{library} {version} made them, and is not used now")
        elif versions[library] != version:
            changes.append(f"{library} {version} made them, {versions[library]} computes now")
    return changes


def _find_mismatch(encoder: Encoder, spec: FeatureSpec) -> SpecMismatchError | None:
    expected, found = spec.to_json(), _describe(encoder)
    if found["precision"] == _REPLACED.get(spec.precision):
        expected["precision"] = found["precision"]
    differences = {
        name: list_differences(expected[name], found[name], name) for name in _MUST_BE_EQUAL
    }
    lines = list(chain.from_iterable(differences.values()))
    if not lines:
        return None
    advice = "; --model FOLDER takes another model" if differences["weights_sha256"] else ""
    return SpecMismatchError(
        f"the encoder {encoder.name} with the model {found['model_id']} makes other features than "
        f"those of this feature set{advice}. What differs:\n  " + "\n  ".join(lines)
    )


def _describe(encoder: Encoder) -> dict[str, Any]:
    """An encoder's description as it is after it was written and read as JSON."""
    description: dict[str, Any] = json.loads(json.dumps(encoder.describe()))
    return description


def _find_resizer(steps: Sequence[Any]) -> Resizer:
    """What resizes; Pillow if no step says so."""
    found = {step.get("implementation") for step in _steps(steps, "resize")}
    resizers: tuple[Resizer, ...] = get_args(Resizer)
    return next((resizer for resizer in resizers if resizer in found), "pil")


def _likely_first(steps: Sequence[Any]) -> tuple[_Way, _Way]:
    """Both kinds of preprocessing; the second is only loaded where the first is another one.

    Only models' authors squash pictures or limit the longer side.
    """
    for step in _steps(steps, "resize"):
        if step.get("rule") == "square" or step.get("max_longer_side") is not None:
            return "native", "reference"
    return "reference", "native"


def _steps(steps: Sequence[Any], name: str) -> Iterator[Mapping[str, Any]]:
    return (step for step in steps if isinstance(step, Mapping) and step.get("step") == name)
