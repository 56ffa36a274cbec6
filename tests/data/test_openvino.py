"""The backend openvino against torch; skipped where OpenVINO isn't installed."""

import logging
import sys
from importlib.util import find_spec

import pytest
import torch
from detr_models import detr_config, random_pictures, relative_error, save_detr
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from mmcot_data.encoders import EncoderConfig, load_encoder
from mmcot_data.encoders.cpu import has_fast_bf16
from mmcot_data.errors import EncoderError

# Importing it in another way than the backend does would report that to its makers.
needs_openvino = pytest.mark.skipif(not find_spec("openvino"), reason="needs openvino")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "image_size": 32, "patch_size": 8}
    config = CLIPVisionConfig(num_hidden_layers=2, num_attention_heads=2, **sizes)
    folder = tmp_path_factory.mktemp("clip")
    CLIPVisionModel(config).save_pretrained(folder)
    return folder


def clip(folder, backend="openvino", **settings):
    return load_encoder(EncoderConfig(name="clip", model=str(folder), backend=backend, **settings))


def pictures(number):
    return torch.stack(random_pictures([(32, 32)] * number))


class Output:
    def __init__(self, last_hidden_state):
        self.last_hidden_state = last_hidden_state


class OnePicture(nn.Module):
    def forward(self, pixel_values):
        first = torch.zeros(1, 3, 1).expand(len(pixel_values), -1, -1)  # len isn't translated
        return Output(torch.cat([first, pixel_values.flatten(2)], 2))


class Constant(nn.Module):
    def forward(self, pixel_values):
        return Output(pixel_values.flatten(2) * float(len(pixel_values)))


class Strange(nn.Module):
    def forward(self, pixel_values):
        return Output(torch.linalg.eigvals(pixel_values[:, 0]).abs()[:, None])


def test_a_missing_openvino_is_explained(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EncoderError, match=r"needs the package openvino: .*mmcot\[openvino\]"):
        clip(folder)
    assert "openvino_telemetry" not in sys.modules


@needs_openvino
def test_features_are_those_of_torch_for_any_number_of_pictures(folder):
    """fp32 must be set: OpenVINO's own choice on a CPU with AMX is bf16."""
    encoder, plain = clip(folder), clip(folder, "torch")
    first = encoder.encode(pictures(1))
    kept = first.clone()
    for number in (1, 3, 8):
        expected = plain.encode(pictures(number))
        assert relative_error(encoder.encode(pictures(number)), expected) < 1e-5
    assert torch.equal(first, kept), "the memory of an earlier batch was used again"
    described = encoder.describe()
    assert described["backend"] == "openvino"
    assert described["versions"].keys() - plain.describe()["versions"].keys() == {"openvino"}
    different = {key for key in described if described[key] != plain.describe()[key]}
    assert different == {"backend", "versions"}


@needs_openvino
@pytest.mark.skipif(not has_fast_bf16(), reason="needs a CPU with bf16")
def test_bf16_is_another_precision_of_the_same_encoder(folder):
    encoder, plain = clip(folder), clip(folder, "torch").encode(pictures(4))
    assert encoder.precisions == ("bf16", "fp32")
    error = relative_error(encoder.at_precision("bf16").encode(pictures(4)), plain)
    assert 1e-4 < error < 1e-2
    assert relative_error(encoder.encode(pictures(4)), plain) < 1e-5
    with pytest.raises(EncoderError, match="computes in fp32 or bf16, not in fp16"):
        encoder.at_precision("fp16")


@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batches_that_were_started_together_keep_apart(folder, precision):
    """The engine starts a batch before it takes the features of the one before.

    The oracle is an encoder of its own for each batch; a request's outputs are in the same memory.
    """
    if precision == "bf16" and not has_fast_bf16():
        pytest.skip("needs a CPU with bf16")
    encoder = clip(folder, precision=precision)
    waiting = []
    for shift in range(3):
        pixels_BCHW = pictures(2) + 50 * shift
        waiting.append(encoder.start(pixels_BCHW))
        pixels_BCHW.zero_()  # the caller may use its memory again
    for shift, finish in enumerate(waiting):
        expected = clip(folder, precision=precision).encode(pictures(2) + 50 * shift)
        assert relative_error(finish(), expected) < 1e-6


@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_model_is_compiled_once(folder, precision, monkeypatch):
    """Checking the translation compiles it in fp32, which takes seconds for a large model."""
    import mmcot_data.encoders.openvino_backend as backend

    compiled, compile_model = [], backend.OpenvinoBackend._compile

    def count(self, precision):
        compiled.append(precision)
        return compile_model(self, precision)

    monkeypatch.setattr(backend.OpenvinoBackend, "_compile", count)
    encoder = clip(folder, precision=precision)
    assert compiled == ["fp32"]
    again = encoder.at_precision("bf16").at_precision("fp32")
    assert compiled == ["fp32", "bf16", "fp32"]
    assert torch.equal(again.encode(pictures(2)), encoder.encode(pictures(2)))


@needs_openvino
@pytest.mark.parametrize("dc5", [False, True])
def test_detr_takes_pictures_of_any_size(tmp_path, dc5):
    """What depends on the size of the picture it was translated with would show."""
    folder = str(save_detr(tmp_path, detr_config(dc5=dc5)))
    encoder, plain = (
        load_encoder(EncoderConfig(name="detr", model=folder, backend=backend))
        for backend in ("openvino", "torch")
    )
    assert not encoder.pads
    for size in ((64, 64), (61, 200), (130, 33), (64, 64)):
        pixels_BCHW = torch.stack(random_pictures([size] * 2))
        expected = plain.encode(pixels_BCHW)
        assert relative_error(encoder.encode(pixels_BCHW), expected) < 1e-5


@needs_openvino
def test_nothing_is_reported_to_openvinos_makers_or_on_the_screen(folder, caplog, capfd):
    clip(folder)
    assert "openvino_telemetry" not in sys.modules
    assert [record.getMessage() for record in caplog.records] == []
    assert capfd.readouterr().err == ""


@needs_openvino
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (OnePicture, "its translation holds for single pictures only"),
        (Constant, "other features for two pictures of 8 x 8 pixels"),
        (Strange, "OpConversionFailure"),
    ],
)
def test_a_model_whose_translation_is_not_right_is_refused(model, reason):
    """Translating follows one run; running a wrong translation once crashed the process."""
    from mmcot_data.encoders.openvino_backend import OpenvinoBackend

    with pytest.raises(EncoderError, match=rf"OpenVINO cannot run {model.__name__} \({reason}"):
        OpenvinoBackend(model(), (8, 8), (8, 8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_refused(folder):
    with pytest.raises(EncoderError, match="computes on CPUs, not on cuda"):
        clip(folder, device="cuda")


@needs_openvino
def test_other_warnings_of_the_process_are_still_heard(folder, caplog):
    """Would catch OpenVINO's converter, which leaves the root logger at errors only."""
    clip(folder).encode(pictures(2))
    logging.getLogger("mmcot_data").warning("an upper bound")
    assert "an upper bound" in caplog.text
