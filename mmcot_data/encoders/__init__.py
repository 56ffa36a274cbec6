"""Vision encoders: pixels in, patch features out.

An encoder is a row in ``ENCODERS`` and a module of the same name (``_`` for ``-``) with a function
``load(config) -> Encoder``; ``hf:<model id>`` is the module ``huggingface``.
"""

from importlib import import_module
from typing import cast

from mmcot_data.encoders.base import (
    Alpha,
    Backend,
    Encoder,
    EncoderConfig,
    Precision,
    Resizer,
)
from mmcot_data.encoders.table import ENCODERS, EncoderFacts
from mmcot_data.errors import EncoderError, how_to_install

__all__ = [
    "ENCODERS",
    "Alpha",
    "Backend",
    "Encoder",
    "EncoderConfig",
    "EncoderFacts",
    "Precision",
    "Resizer",
    "load_encoder",
]


def load_encoder(config: EncoderConfig) -> Encoder:
    """Load an encoder: from the hub or its cache, from a folder, or with random weights.

    Raises:
        EncoderError: If there is no such encoder, its model cannot be found or does not fit, or
            the packages it needs are not installed.
    """
    if config.name in ENCODERS:
        module = config.name.replace("-", "_")
    elif config.name.startswith("hf:") and len(config.name) > len("hf:"):
        module = "huggingface"
    else:
        raise EncoderError(
            f"no encoder {config.name!r}; expected {', '.join(ENCODERS)} or hf:<model id>"
        )
    try:
        load = import_module(f"{__name__}.{module}").load
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"the encoder {config.name} needs the package {error.name}: {how_to_install('extract')}"
        ) from error
    return cast(Encoder, load(config))
