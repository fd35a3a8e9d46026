"""Convolutions as images are torch's own of columns: values, gradients, gradients of gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from gansound.nn import images

# The narrow ones are images with channels last, 20 groups are more than that layout is for, `wide` has a weight larger
# than its input, `mono` is of windows, and the groups of `grouped` are wide enough to be convolved one by one.
WIDTHS = {
    "narrow": (4, 6, 2), "groups": (40, 20, 20), "wide": (24, 32, 1), "mono": (1, 5, 1), "grouped": (16, 6, 2),
}  # fmt: skip


def oracle(x, weight, bias, left, right, reflect, **how):
    padded = F.pad(x, (left, right), mode="reflect" if reflect else "constant")
    return F.conv1d(padded, weight, bias, **how)


@settings(max_examples=60)
@given(
    width=st.sampled_from(sorted(WIDTHS)),
    items=st.integers(1, 6),
    length=st.integers(9, 70),
    kernel=st.sampled_from([1, 3, 4, 7, 11]),
    left=st.integers(0, 8),
    right=st.integers(0, 8),
    reflect=st.booleans(),
    stride=st.integers(1, 5),
    dilation=st.integers(1, 2),
)
def test_a_convolution_and_its_gradients_are_torchs(
    width, items, length, kernel, left, right, reflect, stride, dilation
):
    reach = (kernel - 1) * dilation
    right = max(right, reach - left - length + 1)  # long enough for one output
    reflect = reflect and right < length
    ins, outs, groups = WIDTHS[width]
    torch.manual_seed(length)
    x = torch.randn(items, ins, length, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(outs, ins // groups, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(outs, dtype=torch.float64, requires_grad=True)
    how = {"stride": stride, "dilation": dilation, "groups": groups}
    expected = oracle(x, weight, bias, left, right, reflect, **how)
    grad = torch.randn_like(expected)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-4)):
        ours = [t.detach().to(dtype).requires_grad_() for t in (x, weight, bias)]
        y = images.convolve(*ours, left=left, right=right, reflect=reflect, **how)
        torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
        theirs = torch.autograd.grad(expected, [x, weight, bias], grad, retain_graph=True)
        for a, b in zip(torch.autograd.grad(y, ours, grad.to(dtype)), theirs, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


@settings(max_examples=40)
@given(
    items=st.integers(1, 6),
    length=st.integers(1, 70),
    ins=st.sampled_from([2, 24]),
    stride=st.integers(2, 5),
    more=st.integers(0, 6),
)
def test_a_transposed_convolution_and_its_gradients_are_torchs(items, length, ins, stride, more):
    torch.manual_seed(length)
    shape = (ins, 3, stride + more)
    padding = {"stride": stride, "padding": (more + 1) // 2, "output_padding": more % 2}
    exact = [
        torch.randn(size, dtype=torch.float64, requires_grad=True)
        for size in ((items, ins, length), shape, 3)
    ]
    expected = F.conv_transpose1d(*exact, **padding)
    grad = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, exact, grad)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-4)):
        ours = [t.detach().to(dtype).requires_grad_() for t in exact]
        y = images.convolve_transposed(*ours, **padding)
        torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
        for a, b in zip(torch.autograd.grad(y, ours, grad.to(dtype)), theirs, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("width", sorted(WIDTHS))
def test_a_penalty_on_gradients_learns_as_through_torchs(width):
    ins, outs, groups = WIDTHS[width]
    torch.manual_seed(0)
    x = torch.randn(4, ins, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(outs, ins // groups, 9, dtype=torch.float64, requires_grad=True)
    results = []
    for convolve in (oracle, images.convolve):
        y = convolve(x, weight, None, left=4, right=4, reflect=False, stride=4, groups=groups)
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(slope.square().sum(), weight)[0])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


def test_under_autocast_it_computes_and_answers_in_half_precision():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 8, 50), torch.randn(8, 8, 3, requires_grad=True), torch.randn(8)
    with torch.autocast("cpu", torch.bfloat16):
        y = images.convolve(x, weight, bias, left=1, right=1)
    assert y.dtype == torch.bfloat16
    assert y.transpose(1, 2).is_contiguous()  # channels last, for the next convolution
    torch.testing.assert_close(y.float(), F.conv1d(x, weight, bias, padding=1), rtol=0.03, atol=0.1)
    y.float().sum().backward()
    assert weight.grad.dtype == torch.float32
