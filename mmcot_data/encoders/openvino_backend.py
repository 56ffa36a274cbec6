"""A model run by OpenVINO, which is faster than torch on CPUs.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, cast

import torch
from torch import nn

from mmcot_data.encoders.backends import FeatureModule, Forward
from mmcot_data.encoders.base import Precision
from mmcot_data.encoders.compute import computing, fast_precisions
from mmcot_data.errors import EncoderError, how_to_install

__all__ = ["OpenvinoBackend"]

_HINTS: Final[dict[Precision, str]] = {"fp32": "f32", "bf16": "bf16"}
"""Without one OpenVINO computes in bf16 wherever the CPU can."""
_TELEMETRY = "openvino_telemetry"
_MAX_ERROR = 1e-3


class OpenvinoBackend:
    """A module translated once, for pictures of any size and batches of any number.

    Args:
        module: The model, as ``FeatureModule`` takes it, on the CPU; it has to stay unchanged,
            because OpenVINO uses its weights where they are.
        size: (height, width) of an input that it takes.
        other_size: Another one, if it takes several: the translation is tried on it.

    Raises:
        EncoderError: If OpenVINO isn't installed or can't translate the model.
    """

    libraries: tuple[str, ...] = ("openvino",)
    pads = False

    def __init__(
        self, module: nn.Module, size: tuple[int, int], other_size: tuple[int, int]
    ) -> None:
        self.precisions: tuple[Precision, ...] = fast_precisions(torch.device("cpu"))
        self._openvino = _import_openvino()
        self._module = FeatureModule(module)
        self._model = self._translate(size)
        self._core = self._openvino.Core()
        self._checked: Forward | None = self._check(other_size)
        """In fp32, for the first use; a second copy of the weights isn't kept for later ones."""

    def at(self, precision: Precision) -> Forward:
        """The model at a precision.

        Raises:
            EncoderError: If it is neither fp32 nor bf16.
        """
        if precision not in _HINTS:
            raise EncoderError(
                f"the backend openvino computes in {' or '.join(_HINTS)}, not in {precision}"
            )
        checked, self._checked = self._checked, None
        return checked if checked and precision == "fp32" else self._compile(precision)

    def _compile(self, precision: Precision) -> Forward:
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # threads that decode pictures share the cores
        }
        request = self._core.compile_model(self._model, "CPU", settings).create_infer_request()

        def forward(pixels_BCHW: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
            pixels = pixels_BCHW.contiguous().numpy()
            # The request's own outputs would be overwritten by the next batch.
            outputs = request.infer([pixels], share_inputs=True, share_outputs=False)
            return torch.from_numpy(outputs[0])

        return forward

    def _translate(self, size: tuple[int, int]) -> Any:
        pixels_BCHW = torch.zeros(1, 3, *size)
        any_shape = self._openvino.PartialShape([-1, 3, -1, -1])
        with _quiet(), torch.inference_mode():
            try:
                model = self._openvino.convert_model(
                    self._module, example_input=pixels_BCHW, input=[any_shape]
                )
            except Exception as error:  # OpenVINO documents none
                raise self._refusal(f"{type(error).__name__}: {error}") from error
        # Running such a model on two pictures can crash the process.
        if model.output(0).partial_shape[0].is_static:
            raise self._refusal("its translation holds for single pictures only")
        return model

    def _check(self, size: tuple[int, int]) -> Forward:
        """The model in fp32, if it is right for this size too.

        Translating follows one run; what depends on the input's shape may be frozen in it.
        """
        generator = torch.Generator().manual_seed(0)
        pixels_BCHW = torch.randn(2, 3, *size, generator=generator)
        with computing(torch.device("cpu"), "fp32"):
            expected = self._module(pixels_BCHW)
        try:
            forward = self._compile("fp32")
            found = forward(pixels_BCHW, None)
        except RuntimeError as error:
            raise self._refusal(f"two pictures of {size[1]} x {size[0]} fail: {error}") from error
        differs = found.shape != expected.shape
        if differs or not (found - expected).norm() < _MAX_ERROR * expected.norm():
            raise self._refusal(f"other features for two pictures of {size[1]} x {size[0]} pixels")
        return forward

    def _refusal(self, reason: str) -> EncoderError:
        name = type(self._module.model).__name__
        reason = " ".join(reason.split())
        return EncoderError(f"OpenVINO cannot run {name} ({reason:.400}): use the backend torch")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back warnings on what is checked or has no meaning here.

    torch warns of tracing; transformers of a loss function, which OpenVINO comes across when it
    looks through a model. Its converter sets the root logger to errors only, for the whole process.
    """
    root, root_level = logging.getLogger(), logging.getLogger().level
    root_filters = list(root.filters)
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        root.setLevel(root_level)
        root.filters[:] = root_filters


def _import_openvino() -> Any:
    """OpenVINO without its telemetry, which would report this import to its makers."""
    silenced = _TELEMETRY not in sys.modules
    if silenced:
        sys.modules[_TELEMETRY] = cast(Any, None)  # so importing it raises ImportError
    try:
        openvino = import_module("openvino")
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"the backend openvino needs the package {error.name}: {how_to_install('openvino')}"
        ) from error
    finally:
        if silenced:
            del sys.modules[_TELEMETRY]
    return openvino
