"""Names and shapes of a FusionT5's weights, here and in checkpoints of the reference.

The reference's first generation (2023-02, UnifiedQA, fusion after the encoder) and its second
(2023-08, FLAN-Alpaca, fusion inside of it) differ in a prefix of eight names; ours are those of
the second. Both store the token embeddings three times, and the head beside them.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch

from mmcot_data.errors import TrainingError
from mmcot_model.fusion import FusionT5, FusionT5Config

__all__ = [
    "FUSION_TENSORS",
    "REFERENCE_ARCHITECTURE",
    "canonical_name",
    "canonical_state_dict",
    "check_shapes",
    "generation",
    "some_of",
    "stored_shapes",
]

REFERENCE_ARCHITECTURE = "T5ForMultimodalGeneration"
"""Class of the reference's models, in the ``architectures`` of their config.json."""

_PREFIX = "encoder."
_FIRST_GENERATION = (
    "image_dense.weight",
    "image_dense.bias",
    "mha_layer.in_proj_weight",
    "mha_layer.in_proj_bias",
    "mha_layer.out_proj.weight",
    "mha_layer.out_proj.bias",
    "gate_dense.weight",
    "gate_dense.bias",
)
FUSION_TENSORS = tuple(_PREFIX + name for name in _FIRST_GENERATION)
"""What a FusionT5 has and a T5 has not."""

_EMBEDDINGS = "shared.weight"
_EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"
_NUM_NAMED = 5


def generation(names: Iterable[str]) -> int | None:
    """Generation of the reference, 1 or 2, that names tensors so; None: they hold no fusion."""
    found = set(names)
    if found & set(_FIRST_GENERATION):
        return 1
    return 2 if found & set(FUSION_TENSORS) else None


def canonical_name(name: str) -> str:
    """Our name of a tensor of either generation."""
    return _PREFIX + name if name in _FIRST_GENERATION else name


def canonical_state_dict(
    state: Mapping[str, torch.Tensor], *, tied: bool, where: str
) -> dict[str, torch.Tensor]:
    """A checkpoint of either generation under our names, in float32, each tensor once.

    Args:
        state: Tensors by name.
        tied: Whether the head is the token embeddings, by the checkpoint's configuration.
        where: Names the checkpoint in errors.

    Raises:
        TrainingError: If two tensors have the same meaning and differ.
    """
    named: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        ours = canonical_name(name)
        if ours in named:
            raise TrainingError(
                f"{where} holds both {ours} and {ours.removeprefix(_PREFIX)}, the names of two "
                "generations: expected the weights of one model"
            )
        named[ours] = tensor
    copies = [(name, named.pop(name)) for name in _EMBEDDING_COPIES if name in named]
    if copies:
        named.setdefault(_EMBEDDINGS, copies[0][1])
    if tied and _HEAD in named:
        copies.append((_HEAD, named.pop(_HEAD)))
    for name, copy in copies:
        if _EMBEDDINGS in named and not torch.equal(copy, named[_EMBEDDINGS]):
            raise TrainingError(
                f"{where}: {name} differs from {_EMBEDDINGS}, expected a copy of it: does "
                "config.json belong to these weights? (A head of its own has "
                "`tie_word_embeddings: false` there.)"
            )
    return {name: tensor.float() for name, tensor in named.items()}


def stored_shapes(config: FusionT5Config, *, tied: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that ``canonical_state_dict`` gives for a whole checkpoint."""
    with torch.device("meta"):
        model = FusionT5(config)
    copies = (*_EMBEDDING_COPIES, _HEAD) if tied else _EMBEDDING_COPIES
    return {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name not in copies
    }


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """See that nothing is missing, left over, or of another shape.

    Raises:
        TrainingError: If not; names some of each.
    """
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    common = sorted(expected.keys() & found.keys())
    misshapen = [
        f"{name} {found[name]} instead of {expected[name]}"
        for name in common
        if found[name] != expected[name]
    ]
    faults = {"missing": missing, "unknown": unknown, "of another shape": misshapen}
    told = [f"{len(all_)} {fault}: {some_of(all_)}" for fault, all_ in faults.items() if all_]
    if told:
        raise TrainingError(
            f"{where} does not hold the {len(expected)} tensors that its config.json asks for. "
            f"{'; '.join(told)}. Was the checkpoint copied whole, and with its own config.json?"
        )


def some_of(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(names[:_NUM_NAMED]) + more
