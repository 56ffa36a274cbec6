import pytest
import torch
from torch import nn

from mmcot_data.errors import TrainingError
from mmcot_model.precision import autocast, choose_precision, uses_bf16

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch):
    """Makes torch tell of a GPU of a given compute capability."""

    def pretend(*capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")

    return pretend


def test_processors_compute_in_fp32_unless_asked():
    """Would catch results that differ with the machine though the command is the same."""
    assert choose_precision("auto", CPU) == choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (12, 0)])
def test_gpus_with_bf16_units_use_them(gpu, capability):
    """(12, 0) would catch a comparison of the minor number alone."""
    gpu(*capability)
    assert choose_precision("auto", CUDA) == choose_precision("bf16", CUDA) == "bf16"
    assert choose_precision("fp32", CUDA) == "fp32"


def test_older_gpus_refuse_bf16(gpu):
    """Would catch bfloat16 that torch emulates there, slower than fp32."""
    gpu(7, 5)
    assert choose_precision("auto", CUDA) == "fp32"
    with pytest.raises(TrainingError, match=r"Tesla T4 has no units .* --precision fp32"):
        choose_precision("bf16", CUDA)


def test_other_devices_refuse_bf16():
    assert choose_precision("auto", torch.device("mps")) == "fp32"
    with pytest.raises(TrainingError, match="mps has no units"):
        choose_precision("bf16", torch.device("mps"))


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision is 'fp16', expected auto, fp32 or bf16"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("auto", torch.float32), ("bf16", torch.bfloat16)],
)
def test_autocast_changes_the_arithmetic_and_no_weight(precision, dtype):
    layer = nn.Linear(4, 4)
    with autocast(precision, CPU):
        assert layer(torch.ones(1, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_the_trainer_is_told_of_this_process_device(monkeypatch, gpu):
    assert uses_bf16("bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu(9, 0)
    assert uses_bf16("auto")
    gpu(7, 0)
    assert not uses_bf16("auto")
