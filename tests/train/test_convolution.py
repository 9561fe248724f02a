"""A convolution on small maps is the same function by another route."""

import copy

import pytest
import torch
from torch import nn

from fer_fast.train.convolution import SMALL_MAP, as_products

CASES = [  # side, kernel, stride, padding, bias
    (3, 3, 1, 1, False),
    (2, 3, 1, 1, True),
    (3, 3, 2, 1, False),
    (5, 1, 2, 0, True),
    (1, 3, 1, 1, False),
    (7, (1, 7), 3, (0, 3), True),
]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("side", "kernel", "stride", "padding", "bias"), CASES)
def test_outputs_and_gradients_equal_the_convolution(side, kernel, stride, padding, bias, memory_format):
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 6, kernel, stride, padding, bias=bias).double().to(memory_format=memory_format)
    ours = as_products(copy.deepcopy(plain))
    assert type(ours) is not nn.Conv2d
    images = torch.randn(4, 5, side, side, dtype=torch.float64).contiguous(memory_format=memory_format)
    results = []
    for layer in (plain, ours):
        x = images.clone().requires_grad_()
        y = layer(x)
        assert y.shape[2] * y.shape[3] <= SMALL_MAP
        y.sin().sum().backward()
        results.append((y, x.grad, *(p.grad for p in layer.parameters())))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_maps_that_are_not_small_stay_convolutions():
    layer = as_products(nn.Conv2d(2, 3, 3, padding=1))
    images = torch.randn(1, 2, 4, 4)
    assert torch.equal(layer(images), nn.Conv2d.forward(layer, images))


def test_what_is_no_plain_convolution_is_left_alone():
    grouped, wide, string, circular = (
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    )
    as_products(nn.Sequential(grouped, wide, string, circular))
    assert {type(layer) for layer in (grouped, wide, string, circular)} == {nn.Conv2d}


def test_states_are_exchanged_with_plain_networks():
    plain, ours = nn.Sequential(nn.Conv2d(1, 2, 3)), as_products(nn.Sequential(nn.Conv2d(1, 2, 3)))
    ours.load_state_dict(plain.state_dict())
    images = torch.randn(2, 1, 5, 5)
    torch.testing.assert_close(ours(images), plain(images))
