"""Takes the picture of a drawn face: pose, occlusion, shadow, tone curve, blur, noise. Elementwise, batch by batch."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from fer_fast.data.face_drawing import REACH


def photograph(drawing: Tensor, face: SimpleNamespace, size: int) -> Tensor:
    """Upright faces (n, channels, side, side) in [0, 1] -> pictures (n, channels, size, size), uint8."""
    x, y = _frame(size)
    image = F.grid_sample(drawing, _pose(face, x, y), mode="bilinear", padding_mode="reflection", align_corners=False)
    image = _occlude(image, face, x, y)
    shadow = ((x * face.shadow_x + y * face.shadow_y - face.shadow_at) * 6).clamp_(0, 1)
    image = image * (1 - 0.6 * face.shadow.clamp(min=0) * shadow).unsqueeze(1)
    image = torch.lerp(image, image.square(), face.gamma.unsqueeze(1))
    image = (image - 0.5) * face.contrast.unsqueeze(1) + (0.5 + face.brightness).unsqueeze(1)
    width = 2 * round(size / 48) + 1
    soft = F.avg_pool2d(F.pad(image, (width // 2,) * 4, mode="replicate"), width, stride=1)
    image = torch.lerp(image, soft, face.blur.clamp(min=0).unsqueeze(1))
    image = image + (_grain(face.grain_seed, size) * face.noise).unsqueeze(1)
    return image.mul_(255).round_().clamp_(0, 255).byte()


def _frame(size: int) -> tuple[Tensor, Tensor]:
    axis = ((torch.arange(size) + 0.5) * (2 / size) - 1).float()
    return axis.view(1, 1, -1), axis.view(1, -1, 1)


def _pose(face: SimpleNamespace, x: Tensor, y: Tensor) -> Tensor:
    """Where each output pixel looks on the drawing, (n, size, size, 2)."""
    x, y = (x - face.shift_x) * face.inverse_zoom, (y - face.shift_y) * face.inverse_zoom
    x, y = face.cos * x + face.sin * y, face.cos * y - face.sin * x
    # Turning the head moves what is near the viewer, the middle of the face, and leaves its outline where it is.
    nearness = (1 - x * x - 0.8 * y * y).clamp(min=0)
    return torch.stack((x - face.yaw * nearness, y - face.pitch * nearness), dim=-1) / REACH


def _occlude(image: Tensor, face: SimpleNamespace, x: Tensor, y: Tensor) -> Tensor:
    """A plain block, a hand or a scarf, over a part of some faces."""
    outside = torch.maximum((x - face.block_x).abs() / face.block_width, (y - face.block_y).abs() / face.block_height)
    block = ((1 - outside) * 8).clamp_(0, 1) * (face.occlusion > 0)
    return torch.lerp(image, face.block_colour.expand_as(image), block.unsqueeze(1).expand_as(image))


def _grain(seed: Tensor, size: int) -> Tensor:
    """Triangular noise (n, size, size) in (-1, 1): a hash of seed (n, 1, 1) and pixel, so batches do not matter."""
    state = seed + torch.arange(size * size).view(1, size, size) * 0x9E3779B1
    state = (state ^ state >> 15) * 0x2545F491
    state ^= state >> 13
    return ((state & 0x7FFF) + (state >> 15 & 0x7FFF)).float().div_(0x7FFF).sub_(1)
