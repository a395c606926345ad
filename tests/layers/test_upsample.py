"""Tests of every kind of upsampling against an independent formula, and of what all kinds have in common."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golden_modules import count_parameters, load_case
from sn2fpn.errors import ArgumentError
from sn2fpn.layers import CARAFE, SNI, Bilinear, Deconv, DySample, Nearest, Upsample, Upsampling, get_upsample

FIXED = ["nearest", "bilinear", "bilinear_corners", "sni", "sni:0.6"]
DOUBLING = ["deconv", "carafe", "dysample", "dysample:dyscope"]
KINDS = [*FIXED, "sni:learned", *DOUBLING]
SIZES = [(10, 14), (9, 14), (10, 13), (9, 13)]  # of the fine map, for a coarse one of 5 x 7
COARSE = (5, 7)


def expected(kind: str, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return what the definition of a fixed kind gives."""
    mode = "bilinear" if "bilinear" in kind else "nearest"
    y = F.interpolate(x, size, mode=mode, align_corners=kind == "bilinear_corners" if mode == "bilinear" else None)
    factors = {"sni": x[0, 0].numel() / (size[0] * size[1]), "sni:0.6": 0.6, "sni:learned": 0.25}
    return y * factors.get(kind, 1.0)


def randomised(kind: Upsampling, channels: int = 8) -> Upsample:
    """Return a module with weights that are far from the initial ones."""
    module = get_upsample(kind, channels)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize("kind", [*FIXED, "sni:learned"])
@pytest.mark.parametrize("size", [*SIZES, (5, 14), (20, 20)])
def test_fixed_kinds_follow_their_definition(kind: str, size: tuple[int, int]) -> None:
    x, fine = torch.randn(2, 3, *COARSE), torch.randn(2, 3, *size)
    module = get_upsample(kind, 3)
    assert torch.allclose(module(x, size), expected(kind, x, size), atol=1e-6)
    assert torch.allclose(module.add(fine, x), fine + expected(kind, x, size), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "make", "names"),
    [
        ("carafe", CARAFE, {"compress": "channel_compressor", "encoder": "content_encoder"}),
        ("dysample_lp", DySample, {"offset": "offset"}),
        ("dysample_lp_dyscope", partial(DySample, dynamic_scope=True), {"offset": "offset", "scope": "scope"}),
    ],
)
def test_golden(name: str, make: Callable[..., Upsample], names: dict[str, str]) -> None:
    case = load_case(name)
    x = case.inputs["x"]
    module = make(x.shape[1], **{k: v for k, v in case.hyper.items() if k in ("compressed_channels", "groups")})
    case.load_into(module, names)
    case.check({"y": module(x, (2 * x.shape[2], 2 * x.shape[3]))})


@pytest.mark.parametrize("kind", ["deconv", "dysample", "dysample:dyscope"])
def test_fresh_learned_kinds_are_bilinear_in_the_interior(kind: str) -> None:
    module = get_upsample(kind, 8)
    if kind.startswith("dysample"):
        nn.init.zeros_(module.offset.weight)
    x = torch.randn(2, 8, *COARSE)
    found, bilinear = module(x, (10, 14)), F.interpolate(x, (10, 14), mode="bilinear")
    assert torch.allclose(found[:, :, 1:-1, 1:-1], bilinear[:, :, 1:-1, 1:-1], atol=1e-5)
    borders_agree = torch.allclose(found, bilinear, atol=1e-5)
    assert borders_agree == kind.startswith("dysample")
    if kind == "deconv":  # pixels beyond the border count as 0
        assert torch.allclose(found[:, :, 0, 1:-1], 0.75 * bilinear[:, :, 0, 1:-1], atol=1e-5)


def test_dysample_reads_at_the_shifted_positions() -> None:
    """The scope is 1/4, so an offset of 4 moves the position by one coarse pixel, in x or y of one group only."""
    module = DySample(4, groups=2)
    nn.init.zeros_(module.offset.weight)
    with torch.no_grad():
        module.offset.bias[0:4] = 4.0  # x of the first group, at all four fine pixels
        module.offset.bias[12:16] = -4.0  # y of the second group
    x = torch.randn(1, 4, 6, 6)
    bilinear, found = F.interpolate(x, (12, 12), mode="bilinear"), module(x, (12, 12))
    assert torch.allclose(found[:, :2, :, 1:-3], bilinear[:, :2, :, 3:-1], atol=1e-5)
    assert torch.allclose(found[:, 2:, 3:-1], bilinear[:, 2:, 1:-3], atol=1e-5)


def test_carafe_with_uniform_kernels_is_the_mean_of_the_window() -> None:
    module = CARAFE(3)
    nn.init.zeros_(module.content_encoder.weight)
    x = torch.randn(2, 3, *COARSE)
    means = F.avg_pool2d(x, 5, stride=1, padding=2)  # the zeros beyond the border count
    assert torch.allclose(module(x, (10, 14)), F.interpolate(means, (10, 14)), atol=1e-6)


def test_carafe_pixel_by_pixel() -> None:
    module = randomised("carafe", 3).double()
    x = torch.randn(2, 3, *COARSE, dtype=torch.float64)
    logits = F.pixel_shuffle(module.content_encoder(module.channel_compressor(x)), 2)  # (N, 25, 10, 14)
    padded, y = F.pad(x, (2, 2, 2, 2)), module(x, (10, 14))
    for i in range(10):
        for j in range(14):
            weights = logits[:, :, i, j].softmax(dim=1).view(2, 1, 5, 5)
            window = padded[:, :, i // 2 : i // 2 + 5, j // 2 : j // 2 + 5]
            assert torch.allclose(y[:, :, i, j], (window * weights).sum((2, 3)))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "deconv"])  # its weights need not sum to 1
def test_constant_maps_stay_constant(kind: str) -> None:
    y = randomised(kind)(torch.full((1, 8, 9, 9), 3.0), (18, 18))
    if kind == "carafe":  # the window is whole only away from the border
        y = y[:, :, 4:-4, 4:-4]
    assert torch.allclose(y, y[0, 0, 0, 0].expand_as(y), atol=1e-5)
    if not kind.startswith("sni"):
        assert y[0, 0, 0, 0].item() == pytest.approx(3.0, abs=1e-5)


def test_a_fresh_deconv_keeps_constant_maps_in_the_interior() -> None:
    y = Deconv(4)(torch.full((1, 4, 5, 6), 3.0), (10, 12))
    assert torch.allclose(y[:, :, 1:-1, 1:-1], torch.tensor(3.0))
    assert y[0, 0, 0, 0].item() == pytest.approx(3.0 * 0.75**2)


@pytest.mark.parametrize("kind", DOUBLING)
@pytest.mark.parametrize("size", SIZES)
def test_doubling_kinds_drop_the_last_row_or_column_on_odd_sizes(kind: str, size: tuple[int, int]) -> None:
    module, x, fine = randomised(kind), torch.randn(2, 8, *COARSE), torch.randn(2, 8, *size)
    found = module(x, size)
    assert torch.equal(found, module(x, (10, 14))[:, :, : size[0], : size[1]])
    assert torch.equal(module.add(fine, x), fine + found)


@pytest.mark.parametrize("kind", DOUBLING)
@pytest.mark.parametrize("size", [(5, 14), (11, 14), (10, 12), (20, 28)])
def test_doubling_kinds_refuse_other_sizes(kind: str, size: tuple[int, int]) -> None:
    words = rf"coarse map of \(5, 7\) pixels, .* must be 2n or 2n - 1, found {re.escape(str(size))}"
    with pytest.raises(ValueError, match=words):
        get_upsample(kind, 8)(torch.ones(1, 8, *COARSE), size)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_sizes(kind: str) -> None:
    """A map that has the target size is returned unchanged; a factor other than the area ratio still scales it."""
    x, module = torch.randn(1, 8, *COARSE), get_upsample(kind, 8)
    factor = {"sni:0.6": 0.6, "sni:learned": 0.25}.get(kind)
    if factor is None:
        assert module(x, COARSE) is x
    else:
        assert torch.allclose(module(x, COARSE), x * factor)
    assert torch.allclose(module.add(x, x), x + module(x, COARSE))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    small = partial(CARAFE, compressed_channels=2, kernel=3)  # gradcheck takes time per weight
    module = randomised(small if kind == "carafe" else kind, 4).double()
    x = torch.randn(1, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    fine = torch.randn(1, 4, 3, 6, dtype=torch.float64, requires_grad=True)
    if kind.startswith("dysample"):  # bilinear reading has kinks at pixel centres and edges; small offsets avoid them
        nn.init.normal_(module.offset.weight, std=0.01)
        nn.init.zeros_(module.offset.bias)
    assert torch.autograd.gradcheck(lambda a, b, *_: module.add(a, b), (fine, x, *module.parameters()))
    module.add(fine, x).square().sum().backward()
    assert all(p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_autocast(kind: str, dtype: torch.dtype) -> None:
    module, x, fine = get_upsample(kind, 8), torch.randn(2, 8, *COARSE), torch.randn(2, 8, 9, 14)
    with torch.autocast("cpu", dtype):
        for coarse, receiver in ((x, fine), (x.to(dtype), fine.to(dtype))):
            found = module.add(receiver, coarse)
            assert found.dtype == receiver.dtype
            assert torch.allclose(found.float(), module.float().add(fine, x), atol=0.06)


@pytest.mark.parametrize("kind", KINDS)
def test_layouts_and_devices(kind: str) -> None:
    module, x, fine = randomised(kind), torch.randn(2, 8, *COARSE), torch.randn(2, 8, 9, 13)
    inside = [t.contiguous(memory_format=torch.channels_last) for t in (fine, x)]
    found = module.add(*inside)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found, module.add(fine, x), atol=1e-3)
    assert module.to("meta").add(fine.to("meta"), x.to("meta")).shape == fine.shape


class Step(nn.Module):
    """One top-down step as a module that can be traced and compiled."""

    def __init__(self, kind: str, channels: int = 8) -> None:
        super().__init__()
        self.upsample = get_upsample(kind, channels)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.upsample.add(fine, coarse)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")  # fvcore still traces in this way
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes are constant here
@pytest.mark.parametrize("kind", KINDS)
def test_traces(kind: str) -> None:
    step, maps = Step(kind).eval(), (torch.randn(1, 8, 9, 14), torch.randn(1, 8, *COARSE))
    plain = step(*maps)
    assert torch.allclose(torch.jit.trace(step, maps)(*maps), plain, atol=1e-5)
    assert torch.allclose(torch.export.export(step, maps).module()(*maps), plain, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiles_in_one_graph(kind: str) -> None:
    torch._dynamo.reset()
    step, maps = Step(kind), (torch.randn(1, 8, 9, 14), torch.randn(1, 8, *COARSE))
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(*maps), step(*maps), atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("kind", "parameters", "multiply_adds"),
    [
        ("nearest", 0, 0),
        ("sni:learned", 1, 0),
        ("deconv", 16 * 256**2 + 256, 16 * 256**2),
        ("carafe", 257 * 64 + (9 * 64 + 1) * 100, 256 * 64 + 9 * 64 * 100 + 100 * 256),
        ("dysample", 8 * 4 * 257, 8 * 4 * 256),
        ("dysample:dyscope", 8 * 4 * 513, 8 * 4 * 512),
    ],
)
def test_costs_at_256_channels(kind: str, parameters: int, multiply_adds: int) -> None:
    """Parameters, and multiply-adds per coarse pixel that fvcore counts beside plain interpolation.

    CARAFE's paper rounds its counts to 74 k parameters and 199 k operations (two per multiply-add, with biases).
    """
    fvcore = pytest.importorskip("fvcore.nn", reason="counts with fvcore, which is not installed")
    step = Step(kind, 256)
    counter = fvcore.FlopCountAnalysis(step, (torch.zeros(1, 256, 10, 12), torch.zeros(1, 256, 5, 6)))
    operators = counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    assert count_parameters(step) == parameters
    assert operators["conv"] + operators["matmul"] == multiply_adds * 30
    if kind == "carafe":
        assert parameters == 74_148
        assert 2 * multiply_adds + 2 * (64 + 100) == 199_496


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        *((kind, []) for kind in FIXED),
        ("sni:learned", ["alpha"]),
        ("deconv", ["conv.weight", "conv.bias"]),
        (
            "carafe",
            [f"{conv}.{part}" for conv in ("channel_compressor", "content_encoder") for part in ("weight", "bias")],
        ),
        ("dysample", ["offset.weight", "offset.bias"]),
        ("dysample:dyscope", ["offset.weight", "offset.bias", "scope.weight"]),
    ],
)
def test_state_dict_names(kind: str, names: list[str]) -> None:
    assert list(get_upsample(kind, 8).state_dict()) == names


@pytest.mark.parametrize("kind", FIXED)
def test_kinds_without_weights_draw_no_random_numbers(kind: str) -> None:
    before = torch.get_rng_state()
    get_upsample(kind, 8)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_call_of_get_upsample_makes_a_module() -> None:
    assert isinstance(get_upsample("nearest", 8), Nearest)
    assert isinstance(get_upsample(lambda channels: Bilinear(align_corners=True), 8), Bilinear)
    assert get_upsample(partial(DySample, groups=2), 8).groups == 2
    assert get_upsample("sni:.5", 8).alpha == 0.5
    assert str(get_upsample("sni:learned", 8)) == str(SNI(alpha="learned"))
    first, second = get_upsample("carafe", 8), get_upsample("carafe", 8)
    assert not torch.equal(first.channel_compressor.weight, second.channel_compressor.weight)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: get_upsample("nearst", 8), "upsample: unknown value 'nearst'; did you mean 'nearest'"),
        (
            lambda: get_upsample("sni:learnt", 8),
            "upsample: expected 'learned' or a positive number after 'sni:', found 'learnt'",
        ),
        (lambda: get_upsample("sni:nan", 8), "found 'nan'"),
        (lambda: get_upsample("snl:0.5", 8), "upsample: unknown value 'snl:0.5'; did you mean 'sni:0.5'"),
        (lambda: get_upsample(None, 8), "upsample: expected a name or a callable that makes the module, found None"),
        (lambda: get_upsample(Nearest(), 8), r"upsample: expected a name or a callable .*, found Nearest\(\)"),
        (lambda: get_upsample(nn.Identity, 8), r"expected a callable that makes an Upsample; it made Identity\(\)"),
        (lambda: CARAFE(8, kernel=4), "kernel: expected an odd number of at least 1, found 4"),
        (lambda: DySample(6), "groups: expected a divisor of the 6 channels, found 4"),
    ],
)
def test_mistakes_are_named(make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ArgumentError, match=words):
        make()
