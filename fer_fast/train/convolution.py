"""Convolutions whose maps are smaller than their filters are matrix products; on a CPU they are computed as such."""

from torch import Tensor, nn
from torch.nn import functional as F

SMALL_MAP = 9  # positions


class SmallMapConv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, by unfolding and one product on a CPU where the output has at most `SMALL_MAP` positions.

    There the weights outweigh the images, and the time of oneDNN's gradient of the weights does not fall with the map:
    512 channels in and out, 3×3, on 64 maps of 2×2 take 18.6 ms for that gradient, 0.9 ms as a product (two cores with
    AMX, bfloat16), and ResNet-18 on 64 images of 48 pixels 136 ms a step in place of 204.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = (
            (side + 2 * pad - kernel) // stride + 1
            for side, pad, kernel, stride in zip(x.shape[2:], self.padding, self.kernel_size, self.stride, strict=True)
        )
        if x.device.type != "cpu" or height * width > SMALL_MAP:
            return super().forward(x)
        patches = F.unfold(x, self.kernel_size, padding=self.padding, stride=self.stride)
        # Of two dimensions: without gradients bfloat16 took 25 times as long in three.
        rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
        product = F.linear(rows, self.weight.flatten(1), self.bias)
        return product.view(-1, height, width, product.shape[1]).movedim(-1, 1)


def as_products(network: nn.Module) -> nn.Module:
    """Make small-map convolutions of all plain ones of a network, in place; parameters and their names stay."""
    for module in network.modules():
        plain = type(module) is nn.Conv2d and module.groups == 1 and module.dilation == (1, 1)
        if plain and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = SmallMapConv2d
    return network


def as_convolutions(network: nn.Module) -> nn.Module:
    """The reverse of `as_products`, in place: a graph for other programs says what is computed, not how on this CPU."""
    for module in network.modules():
        if type(module) is SmallMapConv2d:
            module.__class__ = nn.Conv2d
    return network
