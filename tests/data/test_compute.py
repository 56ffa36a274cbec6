"""Kernels, precisions and backends: what may change the features, and by how much."""

import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
import torch
from detr_models import relative_error
from torch import nn

from mmcot_data.encoders import EncoderConfig, cpu, load_encoder
from mmcot_data.encoders.backends import CompileBackend
from mmcot_data.encoders.compute import computing, fast_precisions
from mmcot_data.encoders.layers import cast_layers, channels_last, fold_norms
from mmcot_data.encoders.precision import choose_precision
from mmcot_data.errors import EncoderError

CPU = torch.device("cpu")
FLAGS = cpu.read_cpu().flags


def tiny(**settings):
    return load_encoder(EncoderConfig(name="tiny", device="cpu", **settings))


def pictures(number=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, 3, 112, 112), dtype=torch.uint8, generator=generator)


def rounding_settings():
    backends = torch.backends
    return [backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv]


@pytest.fixture
def other_settings():
    """A process that allows fewer bits everywhere."""
    settings = rounding_settings()
    before = [setting.fp32_precision for setting in settings]
    for setting, value in zip(settings, ("tf32", "tf32", "bf16", "bf16"), strict=True):
        setting.fp32_precision = value
    yield
    for setting, value in zip(settings, before, strict=True):
        setting.fp32_precision = value


def test_fp32_is_strict_whatever_the_process_allows_and_leaves_that_as_it_was(other_settings):
    """Linear layers and convolutions on a CPU with AMX really compute in bf16 where it's allowed.

    The oracle is float64.
    """
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(4, 64, 32, 32, generator=generator)
    layers = {"linear": nn.Linear(64, 64), "convolution": nn.Conv2d(64, 64, 3)}
    with torch.no_grad():
        inputs = {"linear": maps.permute(0, 2, 3, 1).reshape(-1, 64), "convolution": maps}
        for name, layer in layers.items():
            with computing(CPU, "fp32"):
                found = layer(inputs[name])
            exact = layer.double()(inputs[name].double())
            assert relative_error(found.double(), exact) < 2e-6, name
    assert [s.fp32_precision for s in rounding_settings()] == ["tf32", "tf32", "bf16", "bf16"]
    with pytest.raises(ZeroDivisionError), computing(CPU, "fp32"):
        _ = 1 / 0
    assert [s.fp32_precision for s in rounding_settings()] == ["tf32", "tf32", "bf16", "bf16"]


def test_tf32_is_allowed_only_where_it_is_asked_for():
    with computing(CPU, "tf32"):
        assert [s.fp32_precision for s in rounding_settings()[:2]] == ["tf32", "tf32"]
    with computing(CPU, "fp32"):
        assert [s.fp32_precision for s in rounding_settings()] == ["ieee"] * 4


@pytest.fixture
def another_cpu(monkeypatch):
    def claim(**facts):
        monkeypatch.setattr(cpu, "read_cpu", lambda: cpu.Cpu(name="a CPU", **facts))
        cpu.fp32_matmul.cache_clear()

    yield claim
    cpu.fp32_matmul.cache_clear()


@pytest.mark.skipif("amx_bf16" not in FLAGS, reason="needs a CPU with AMX")
def test_onednn_is_not_used_where_it_computes_in_bf16(another_cpu):
    """An AMD CPU with AMX: the vendor says yes, the measured error must say no."""
    another_cpu(vendor="AuthenticAMD", flags=frozenset({"avx512f"}))
    assert cpu.fp32_matmul() == "default"


@pytest.mark.skipif("avx512f" not in FLAGS, reason="needs a CPU with AVX-512")
def test_onednn_is_used_on_amd_and_stays_in_fp32():
    """In a process whose oneDNN knows no AMX, which makes this CPU one like AMD's."""
    script = """
        import torch
        from mmcot_data.encoders import cpu
        from mmcot_data.encoders.compute import computing

        found = cpu.read_cpu()
        cpu.read_cpu = lambda: cpu.Cpu(name="x", vendor="GenuineIntel", flags=found.flags)
        assert cpu.fp32_matmul() == "default"
        cpu.fp32_matmul.cache_clear()
        cpu.read_cpu = lambda: cpu.Cpu(name="x", vendor="AuthenticAMD", flags=found.flags)
        assert cpu.fp32_matmul() == "onednn"
        x, w = torch.randn(200, 300), torch.randn(400, 300)
        with computing(torch.device("cpu"), "fp32"):
            assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
            y = torch.nn.functional.linear(x, w)
        exact = x.double() @ w.double().T
        assert (y - exact).norm() < 1e-6 * exact.norm()
        assert torch.get_float32_matmul_precision() == "highest"  # raises if the setting stays
    """
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    subprocess.run(command, env=environment, check=True)


def test_what_the_cpu_computes_well(another_cpu, monkeypatch):
    for flags, expected in (
        ({"avx512_bf16"}, ("bf16", "fp32")),
        ({"amx_bf16"}, ("bf16", "fp32")),
        ({"avx512f"}, ("fp32",)),
    ):
        facts = cpu.Cpu(name="a CPU", vendor=None, flags=frozenset(flags))
        monkeypatch.setattr(cpu, "read_cpu", lambda facts=facts: facts)
        assert fast_precisions(CPU) == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/cpuinfo")
def test_the_environment_is_told():
    facts = tiny().environment()
    assert facts["device"] == "cpu"
    assert facts["threads"] == torch.get_num_threads()
    assert facts["device_name"]
    assert facts["fp32_matmul"] in ("default", "onednn")
    assert facts["cpu_capability"] == torch.backends.cpu.get_cpu_capability()


class Mixed(nn.Module):
    """Layers that autocast casts, keeps and that use their weights in their own way."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 16, 4, 4)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.standardised = Standardised(16, 16)
        self.shared = self.linear = nn.Linear(16, 16)
        self.register_buffer("scale", torch.rand(16))

    def forward(self, pixels):
        tokens = self.convolution(pixels).flatten(2).transpose(1, 2)
        tokens = self.norm(tokens * self.scale)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return self.linear(self.shared(self.standardised(tokens)))


class Standardised(nn.Linear):
    def forward(self, tokens):
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return nn.functional.linear(tokens, weight, self.bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_casting_layers_once_gives_what_autocast_gives(dtype):
    """To the bit; casting what a layer computes with first, or norms, would show."""
    torch.manual_seed(0)
    module = Mixed().eval().requires_grad_(False)
    cast = cast_layers(module, dtype)
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        assert torch.equal(cast(pixels), module(pixels))
    assert cast.linear.weight.dtype == cast.convolution.bias.dtype == dtype
    assert cast.linear is cast.shared
    assert module.linear.weight.dtype == torch.float32
    for name in ("norm.weight", "scale", "standardised.weight"):
        first, second = (m.state_dict()[name].data_ptr() for m in (module, cast))
        assert first == second, f"{name} was copied"


class Norms(nn.Module):
    """A norm that follows a convolution and one that doesn't, named so as to mislead."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn2 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn1 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.bn3 = nn.BatchNorm2d(8)

    def forward(self, pixels):
        maps = self.bn1(self.conv2(self.bn2(self.conv1(pixels)).relu()))
        return self.bn3(maps.relu())


def test_folded_norms_compute_the_same():
    torch.manual_seed(0)
    module = Norms().eval().requires_grad_(False)
    for layer in (module.bn1, module.bn2, module.bn3):
        for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            tensor.uniform_(0.5, 2)
    pixels = torch.rand(2, 3, 16, 16)
    expected = module(pixels)
    fold_norms(module, nn.BatchNorm2d, eps=1e-5)
    assert relative_error(module(pixels), expected) < 1e-6
    norms = [type(layer) for layer in (module.bn1, module.bn2, module.bn3)]
    assert norms == [nn.Identity, nn.Identity, nn.BatchNorm2d]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_channels_last_keeps_values_and_changes_strides():
    layer = nn.Conv2d(3, 4, 3)
    before = layer.weight.clone()
    assert channels_last(nn.Sequential(layer, nn.Conv3d(1, 1, 1)))[0] is layer
    assert torch.equal(layer.weight, before)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_another_precision_of_one_encoder_is_that_of_a_loaded_one(precision):
    encoder, loaded = tiny(), tiny(precision=precision)
    changed = encoder.at_precision(precision)
    assert torch.equal(changed.encode(pictures()), loaded.encode(pictures()))
    assert changed.describe() == loaded.describe()
    assert encoder.describe() == tiny().describe(), "the first encoder changed"
    again = changed.at_precision("fp32")
    assert torch.equal(again.encode(pictures()), encoder.encode(pictures()))


def test_auto_starts_in_fp32_and_says_what_was_chosen():
    encoder = tiny(precision="auto")
    assert encoder.describe()["precision"] == "fp32"
    assert encoder.describe()["precision_error"] is None
    decided = encoder.at_precision("bf16", error=0.00123)
    assert decided.describe()["precision_error"] == 0.00123


class Noisy:
    """An encoder whose error at each precision is known."""

    name = "noisy"
    num_patches = feature_dim = 2
    precisions = ("fp16", "bf16", "tf32", "fp32")
    pads = False

    def __init__(self, errors, precision="bf16", error=None):
        self.errors, self.precision, self.error = errors, precision, error

    def describe(self):
        return {"precision": self.precision, "precision_error": self.error}

    def environment(self):
        return {}

    def input_size(self, width, height):
        return height, width

    def prepare(self, image):
        raise NotImplementedError

    def at_precision(self, precision, error=None):
        return Noisy(self.errors, precision, error)

    def start(self, pixels_BCHW, sizes=None):
        features = torch.tensor([[[3.0, 4.0]]])
        features[0, 0, 1] += 5 * self.errors.get(self.precision, 0.0)
        return lambda: features


@pytest.mark.parametrize(
    ("errors", "limit", "chosen"),
    [
        ({"fp16": 1e-3, "bf16": 1e-2, "tf32": 1e-4}, 1e-2, ("fp16", 1e-3)),
        ({"fp16": torch.inf, "bf16": 4.568e-3, "tf32": 1e-4}, 1e-2, ("bf16", 4.57e-3)),
        ({"fp16": torch.nan, "bf16": 0.02, "tf32": 1.231e-4}, 1e-2, ("tf32", 1.23e-4)),
        ({"fp16": torch.nan, "bf16": 0.02, "tf32": 0.02}, 1e-2, ("fp32", 0.0)),
        ({"fp16": 1e-3, "bf16": 1e-3, "tf32": 1e-3}, 0.0, ("fp32", 0.0)),
    ],
)
def test_auto_takes_the_first_precision_within_the_limit(errors, limit, chosen):
    described = choose_precision(Noisy(errors), pictures(), limit).describe()
    assert described == {"precision": chosen[0], "precision_error": pytest.approx(chosen[1])}
    assert described["precision_error"] == chosen[1], "not rounded to three digits"


def test_auto_measures_the_real_error(monkeypatch):
    flags = frozenset({"avx512_bf16"})
    facts = cpu.Cpu(name="a CPU", vendor=None, flags=flags)
    monkeypatch.setattr(cpu, "read_cpu", lambda: facts)
    encoder = tiny(precision="auto")
    chosen = choose_precision(encoder, pictures())
    exact, found = encoder.encode(pictures()), chosen.encode(pictures())
    assert chosen.describe()["precision"] == "bf16"
    measured = chosen.describe()["precision_error"]
    assert measured == float(f"{relative_error(found, exact):.2e}")
    assert 1e-4 < measured < 1e-2
    assert choose_precision(encoder, pictures(), limit=1e-4).describe()["precision"] == "fp32"


def test_an_encoder_of_one_precision_is_refused():
    fixed = SimpleNamespace(name="fixed")
    with pytest.raises(EncoderError, match="has only one precision"):
        choose_precision(fixed, pictures())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "tf32"}, "tf32 is a precision of CUDA devices, and this is cpu"),
        ({"precision": "int8"}, "no precision 'int8': expected fp32, tf32, bf16, fp16 or auto"),
        ({"backend": "onnx"}, "no backend 'onnx': expected torch, compile or openvino"),
        ({"backend": "openvino", "precision": "tf32"}, "tf32 is a precision of CUDA"),
    ],
)
def test_what_the_device_or_the_backend_lacks_is_refused(settings, message):
    with pytest.raises(EncoderError, match=message):
        tiny(**settings)
    if settings == {"precision": "tf32"}:
        with pytest.raises(EncoderError, match=message):
            tiny().at_precision("tf32")


def test_too_little_memory_is_explained(monkeypatch):
    encoder = tiny()

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. More advice")

    monkeypatch.setattr(encoder, "_forward", fail)
    with pytest.raises(EncoderError, match=r"2 pictures of 112 x 112 .*a smaller --batch-size"):
        encoder.start(pictures())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batches_that_were_started_together_keep_apart(precision):
    """The engine starts a batch before it takes the features of the one before.

    The oracle is an encoder of its own for each batch.
    """
    encoder = tiny(precision=precision)
    waiting = []
    for seed in range(3):
        pixels_BCHW = pictures(2, seed)
        waiting.append(encoder.start(pixels_BCHW))
        pixels_BCHW.zero_()  # the caller may use its memory again
    for seed, finish in enumerate(waiting):
        assert torch.equal(finish(), tiny(precision=precision).encode(pictures(2, seed)))


class Means(nn.Module):
    def forward(self, pixel_values):
        return Output(pixel_values.mean(1))


class Output:
    def __init__(self, last_hidden_state):
        self.last_hidden_state = last_hidden_state


@pytest.fixture
def compiled_shapes(monkeypatch):
    """Shapes of the batches that a model is asked for where torch compiles nothing."""
    shapes = []

    def compile_nothing(module, **_):
        def run(pixels_BCHW):
            shapes.append(tuple(pixels_BCHW.shape))
            return module(pixels_BCHW)

        return run

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return shapes


def test_compile_refuses_many_sizes_of_pictures(compiled_shapes):
    """torch would run the ninth shape uncompiled and only log it."""
    forward = CompileBackend(Means(), CPU).at("fp32")
    for width in range(8):
        forward(torch.zeros(1, 3, 4, 4 + width), None)
    forward(torch.zeros(1, 3, 4, 4), None)
    for shape in ((1, 3, 4, 12), (2, 3, 4, 4)):
        with pytest.raises(EncoderError, match="more than 8 with 8 sizes of pictures: use the"):
            forward(torch.zeros(shape), None)
    assert len(compiled_shapes) == 9
    assert len(set(compiled_shapes)) == 8


@pytest.mark.parametrize(
    ("batch_sizes", "expected"),
    [
        ([20, 20, 7, 20, 19, 1, 11, 18], [20] * 8),
        ([7, 8, 3], [7, 8, 8]),
        ([31, 9, 33, 32], [31, 31, 64, 64]),
        (range(1, 66), [1, 2, 4, 4, *[8] * 4, *[16] * 8, *[32] * 16, *[64] * 32, 128]),
    ],
)
def test_compile_meets_few_shapes_whatever_number_of_pictures(
    compiled_shapes, batch_sizes, expected
):
    """Pictures that failed and last batches make batches of any size.

    Catches a shape for each of them, which the ninth ended, and features of the filling. The
    oracle is the mean of the channels.
    """
    forward = CompileBackend(Means(), CPU).at("fp32")
    generator = torch.Generator().manual_seed(0)
    for batch_size in batch_sizes:
        pixels_BCHW = torch.rand(batch_size, 3, 4, 6, generator=generator)
        assert torch.equal(forward(pixels_BCHW, None), pixels_BCHW.mean(1))
    assert [shape[0] for shape in compiled_shapes] == expected


def test_torch_compiles_as_often_as_shapes_are_counted(monkeypatch):
    """Counted by torch's own compiler, without the generation of code."""
    from torch._dynamo.testing import CompileCounter

    counter, compile_module = CompileCounter(), torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda module, **options: compile_module(module, **options | {"backend": counter}),
    )
    encoder, plain = tiny(backend="compile"), tiny()
    for number in (3, 1, 2, 4, 3):
        pixels_BCHW = pictures(number, number)
        assert relative_error(encoder.encode(pixels_BCHW), plain.encode(pixels_BCHW)) < 1e-5
    assert counter.frame_count == 2  # for three and four pictures


def test_compile_refuses_what_it_cannot_compile_whole():
    class Printing(Means):
        def forward(self, pixel_values):
            torch._dynamo.graph_break()
            return super().forward(pixel_values)

    forward = CompileBackend(Printing(), CPU).at("fp32")
    with pytest.raises(EncoderError, match=r"torch.compile cannot compile Printing"):
        forward(torch.zeros(1, 3, 4, 4), None)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_features_are_those_of_torch(precision):
    compiled, plain = (
        tiny(backend=backend, precision=precision) for backend in ("compile", "torch")
    )
    limit = 1e-5 if precision == "fp32" else 5e-3
    for number in (3, 2):
        found = compiled.encode(pictures(number))
        assert len(found) == number
        assert relative_error(found, plain.encode(pictures(number))) < limit
    assert compiled.describe()["backend"] == "compile"
    assert not compiled.pads


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
def test_gpu_batches_in_flight_keep_apart():
    """A pinned or device block used again too early would mix batches up."""
    encoder = load_encoder(EncoderConfig(name="tiny", device="cuda"))
    plain = tiny()
    waiting, expected = [], []
    for seed in range(20):
        pixels_BCHW = pictures(8, seed)
        expected.append(plain.encode(pixels_BCHW))
        waiting.append(encoder.start(pixels_BCHW))
        pixels_BCHW.zero_()  # the caller may use its memory again
    found = [finish() for finish in reversed(waiting)][::-1]
    assert all(features.device.type == "cpu" for features in found)
    assert max(map(relative_error, found, expected)) < 1e-4


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    ("precision", "limit"), [("fp32", 1e-5), ("tf32", 5e-3), ("fp16", 5e-3), ("bf16", 2e-2)]
)
@pytest.mark.parametrize("backend", ["torch", pytest.param("compile", marks=pytest.mark.slow)])
def test_gpu_features_are_those_of_the_cpu(precision, limit, backend):
    settings = {"name": "tiny", "device": "cuda", "precision": precision, "backend": backend}
    encoder, plain = load_encoder(EncoderConfig(**settings)), tiny()
    for number, seed in ((4, 0), (4, 1), (2, 2), (4, 0)):
        found = encoder.encode(pictures(number, seed))
        assert relative_error(found, plain.encode(pictures(number, seed))) < limit


@pytest.mark.gpu
@needs_gpu
def test_gpu_chooses_a_precision_and_tells_its_environment():
    encoder = load_encoder(EncoderConfig(name="tiny", device="cuda", precision="auto"))
    chosen = choose_precision(encoder, pictures(8))
    assert chosen.describe()["precision"] == "fp16"
    facts = encoder.environment()
    assert facts["device_name"] == torch.cuda.get_device_name()
