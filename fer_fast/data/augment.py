"""From uint8 images to network input, in batches on their device: augmentation, equalisation, test-time views."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fer_fast.data.dataset import FaceDataset, check_images, resize, to_channels
from fer_fast.errors import InputError

CROPS = (1, 5, 10)  # views of an image whose predictions are averaged at test time
FOURTEEN_ANGLES = (0.0, -15.0, -10.0, -5.0, 5.0, 10.0, 15.0)  # degrees, variant loss paper, section on data


@dataclass(frozen=True)
class AugmentConfig:
    """What `Augment` does to an image and what the network receives. Zero switches a step off.

    Args:
        size: side length of the output in pixels.
        channels: 1 (gray) or 3 (RGB); gray images are repeated, RGB images become their luma.
        mean, deviation: normalisation of values in [0, 1], one number or one per channel.
        equalize: histogram equalisation of each image, before everything else; also at evaluation.
        crop_padding: random crop after padding by this fraction of the side; a shift of up to as much.
        scale: random zoom, smallest and largest factor; above 1 the face grows.
        mirror: chance of a left-right flip.
        rotation: largest angle in degrees, either way.
        shear: largest shear in degrees, either way.
        brightness, contrast, saturation: factors drawn from [1 - value, 1 + value].
        grayscale: chance that an RGB image loses its colour; gray images are as they are.
        blur: chance of a Gaussian blur, its deviation up to 2 % of the side.
        erasing: chance that a rectangle is replaced by the mean.
        erasing_area: smallest and largest part of the image that is erased.
        crops: views of an image whose predictions are averaged when a split is reported: 1, 5 or 10 (see `views`).
            Epochs are selected by single views (measured on FER2013, ResNet-18: 3 % of an epoch, five crops 19 %).
    """

    size: int = 48
    channels: int = 1
    mean: float | tuple[float, ...] = 0.5
    deviation: float | tuple[float, ...] = 0.25
    equalize: bool = False
    crop_padding: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    mirror: float = 0.0
    rotation: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    erasing: float = 0.0
    erasing_area: tuple[float, float] = (0.02, 0.2)
    crops: int = 1

    def __post_init__(self) -> None:
        limits = {  # field: smallest and largest value allowed
            "size": (8, 4096), "crop_padding": (0, 1), "mirror": (0, 1), "rotation": (0, 180), "shear": (0, 60),
            "brightness": (0, 1), "contrast": (0, 1), "saturation": (0, 1), "grayscale": (0, 1), "blur": (0, 1),
            "erasing": (0, 1), "scale": (0.1, 10), "erasing_area": (0, 1),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            ends = value if isinstance(value, tuple | list) else (value,)
            if not all(isinstance(end, int | float) and low <= end <= high for end in ends) or list(ends) != sorted(
                ends
            ):
                raise InputError(f"augmentation {name} is {value}; allowed: {low} to {high}")
        if self.crops not in CROPS:
            raise InputError(f"augmentation crops is {self.crops}; allowed: {', '.join(map(str, CROPS))}")
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels}; allowed: 1 or 3")
        for name in ("mean", "deviation"):
            value = getattr(self, name)
            if isinstance(value, tuple | list) and len(value) not in (1, self.channels):
                raise InputError(f"{name} has {len(value)} numbers; allowed: one, or one per channel ({self.channels})")
        if (torch.as_tensor(self.deviation) <= 0).any():
            raise InputError(f"deviation is {self.deviation}; allowed: above 0")


class Normalise:
    """uint8 images -> network input, without randomness: equalise, resize, channels, mean and deviation."""

    def __init__(self, config: AugmentConfig):
        self.config = config
        self._constants: dict[tuple[str, torch.device], Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """(n, 1 or 3, h, w) uint8 on any device -> float32 (n, channels, size, size) on that device."""
        return self.unit(self._to_unit(images))

    def unit(self, images: Tensor) -> Tensor:
        """The same of float32 in [0, 1], in one channel or in those of the output, that is equalised already."""
        return self._standardise(resize(images, self.config.size))

    def _to_unit(self, images: Tensor) -> Tensor:
        """uint8 -> float32 in [0, 1], in no more channels than the output needs."""
        check_images(images)
        if self.config.equalize:
            images = equalize(images)
        images = images.float().div_(255.0)
        return to_channels(images, 1) if self.config.channels == 1 else images

    def _standardise(self, images: Tensor) -> Tensor:
        mean = self._constant("mean", self.config.mean, images.device).view(1, -1, 1, 1)
        deviation = self._constant("deviation", self.config.deviation, images.device).view(1, -1, 1, 1)
        return (to_channels(images, self.config.channels) - mean) / deviation

    def _constant(self, name: str, values: float | Sequence[float], device: torch.device) -> Tensor:
        """Numbers on the device, copied there once: a copy at every batch would make the host wait for a GPU."""
        if (name, device) not in self._constants:
            self._constants[name, device] = torch.tensor(values, dtype=torch.float32).to(device)
        return self._constants[name, device]


class Augment(Normalise):
    """uint8 images -> network input with random changes, drawn for every image on its own.

    All geometry (crop, zoom, mirror, rotation, shear, resize) is one bilinear resampling with mirrored borders. The
    only source of randomness is the generator of the call, which is asked once per batch for one row of uniform numbers
    per image; so the same generator state gives the same bits. With every step off the result equals `Normalise`.
    """

    # One column of uniform numbers per random quantity.
    _COLUMNS = (
        "shift_x", "shift_y", "zoom", "mirror", "angle", "shear", "brightness", "contrast", "saturation", "gray",
        "blur", "blur_width", "erase", "erase_area", "erase_aspect", "erase_x", "erase_y",
    )  # fmt: skip

    def __call__(self, images: Tensor, generator: torch.Generator, first: int = 0, total: int | None = None) -> Tensor:
        """(n, 1 or 3, h, w) uint8 on any device -> float32 (n, channels, size, size) on that device.

        The generator may live on the CPU while the images are on a GPU; it then draws the same changes everywhere.

        Args:
            images: all of a batch, or those of `total` that begin with the `first`: they are changed as in the whole.
            generator: of the random numbers.
            first, total: where the images stand in a batch.
        """
        config, total = self.config, len(images) if total is None else total
        uniform = torch.rand(total, len(self._COLUMNS), generator=generator, device=generator.device)
        if not len(images):  # a share of nothing, which cannot be resampled
            return images.new_empty(0, config.channels, config.size, config.size, dtype=torch.float32)
        uniform = uniform[first : first + len(images)]
        uniform = uniform.to(images.device, non_blocking=True)
        draws = dict(zip(self._COLUMNS, uniform.unbind(1), strict=True)) | self._swings(uniform)
        unit = self._to_unit(images)
        unit = self._warp(unit, draws) if self._moves() else resize(unit, config.size)
        output = self._standardise(self._change_light(unit, draws))
        return self._erase(output, draws) if config.erasing else output

    def _swings(self, uniform: Tensor) -> dict[str, Tensor]:
        """What is drawn around zero: [0, 1) -> [-limit, limit), all in one go."""
        config = self.config
        limits = {
            # The sampling square is 2 wide, so a fraction of the side counts double.
            "shift_x": 2 * config.crop_padding,
            "shift_y": 2 * config.crop_padding,
            "angle": math.radians(config.rotation),
            "shear": math.radians(config.shear),
            "brightness": config.brightness,
            "contrast": config.contrast,
            "saturation": config.saturation,
            "erase_aspect": math.log(3.3),  # 0.3 to 3.3, as in torchvision
        }
        ends = self._constant("limits", [limits.get(name, 0.0) for name in self._COLUMNS], uniform.device)
        swings = (2 * uniform.t().contiguous() - 1) * ends[:, None]
        return {name: swing for name, swing in zip(self._COLUMNS, swings, strict=True) if name in limits}

    def _moves(self) -> bool:
        config = self.config
        return any((config.crop_padding, config.mirror, config.rotation, config.shear)) or tuple(config.scale) != (1, 1)

    def _warp(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        config = self.config
        # Resampling at a coarser pitch would alias: shrink first, keeping twice the wanted detail for zooming in.
        if min(images.shape[2:]) > 2 * config.size:
            images = resize(images, 2 * config.size)
        flip = torch.where(draws["mirror"] < config.mirror, -1.0, 1.0)
        theta = _affine(
            angle=draws["angle"],
            shear=torch.tan(draws["shear"]),
            zoom=config.scale[0] + draws["zoom"] * (config.scale[1] - config.scale[0]),
            flip=flip,
            shift=(draws["shift_x"], draws["shift_y"]),
        )
        return _resample(images, theta, config.size)

    def _change_light(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        config = self.config
        factor = {name: _column(1 + draws[name]) for name in ("brightness", "contrast", "saturation")}
        if config.brightness:
            images = (images * factor["brightness"]).clamp_(0, 1)
        if config.contrast:
            middle = to_channels(images, 1).mean((1, 2, 3), keepdim=True)
            images = torch.lerp(middle, images, factor["contrast"]).clamp_(0, 1)
        if images.shape[1] == 3 and (config.saturation or config.grayscale):
            colour = factor["saturation"] * _column((draws["gray"] >= config.grayscale).float())
            images = torch.lerp(to_channels(images, 1).expand_as(images), images, colour).clamp_(0, 1)
        if config.blur:
            deviation = config.size * (0.002 + 0.018 * draws["blur_width"])
            blurred = _gaussian_blur(images, deviation, radius=math.ceil(0.05 * config.size))
            images = torch.where(_column(draws["blur"] < config.blur), blurred, images)
        return images

    def _erase(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        config = self.config
        low, high = config.erasing_area
        area = low + (high - low) * draws["erase_area"]
        aspect = torch.exp(draws["erase_aspect"])
        height, width = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        centre = (torch.arange(config.size, device=images.device) + 0.5) / config.size
        rows = _inside(centre, draws["erase_y"] * (1 - height), height)
        columns = _inside(centre, draws["erase_x"] * (1 - width), width)
        hole = rows[:, None, :, None] & columns[:, None, None, :] & _column(draws["erase"] < config.erasing)
        return images.masked_fill(hole, 0.0)  # zero is the mean once normalised


def equalize(images: Tensor) -> Tensor:
    """Histogram equalisation of every image, (n, 1 or 3, h, w) uint8 -> the same shape and dtype.

    Equals `cv2.equalizeHist` on gray images. RGB images are equalised in their luma and keep their colour differences.
    An image of a single value stays as it is.
    """
    check_images(images)
    luma = to_channels(images, 1)
    levels = luma.flatten(1).long()  # (n, h·w)
    histogram = torch.zeros(images.shape[0], 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(1, levels, torch.ones_like(levels))
    total = levels.shape[1]
    # The darkest value present maps to 0, so its count leaves both the running sum and the total.
    darkest = histogram.gather(1, levels.amin(1, keepdim=True))
    span = (total - darkest).clamp(min=1).float()
    # A tensor over a tensor: 255.0 / span would multiply by a rounded reciprocal, and ties would round another way.
    scale = torch.full_like(span, 255.0) / span
    table = ((histogram.cumsum(1) - darkest).clamp_(min=0).float() * scale).round_()
    flat = darkest == total
    table = torch.where(flat, torch.arange(256, device=images.device, dtype=table.dtype), table)
    spread = table.gather(1, levels).view_as(luma)
    if images.shape[1] == 1:
        return spread.byte()
    return (images + (spread - luma)).clamp_(0, 255).byte()


def views(images: Tensor, crops: int) -> Tensor:
    """What predictions are averaged over: (n, c, h, w) of any dtype -> (n, crops, c, h', w').

    One: the image as it is. Five: `five_crop`. Ten: these and their mirror images (Krizhevsky et al., 2012).
    """
    if crops == 1:
        return images[:, None]
    five = five_crop(images)
    return five if crops == 5 else torch.cat((five, five.flip(-1)), 1)


def five_crop(images: Tensor, fraction: float = 0.9) -> Tensor:
    """Four corners and the centre of each image, for averaging predictions.

    ECAN names FiveCrop for FER2013 (Table 1, strong) and no size of it; nine tenths of the side, 43 of 48 pixels, are
    ours.

    (n, c, h, w) of any dtype -> (n, 5, c, round(fraction·h), round(fraction·w)): top left, top right, bottom left,
    bottom right, centre.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"five_crop fraction is {fraction}; allowed: above 0, at most 1")
    height, width = images.shape[2:]
    h, w = max(1, round(fraction * height)), max(1, round(fraction * width))
    bottom, right = height - h, width - w
    corners = ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2))
    return torch.stack([images[:, :, y : y + h, x : x + w] for y, x in corners], dim=1)


def fourteen_fold(dataset: FaceDataset, chunk: int = 1024) -> FaceDataset:
    """The offline expansion of the variant loss paper: each image and its mirror image, unrotated and at six angles.

    Returns 14·n images in 14 blocks of n: the angles of `FOURTEEN_ANGLES`, then the same mirrored; labels, subjects
    and names repeat. Deterministic; the borders that a rotation uncovers show mirrored content. Square images only.
    """
    height, width = dataset.images.shape[2:]
    if height != width:
        raise InputError(f"the 14-fold set needs square images, got {height}×{width}")
    images, blocks = dataset.images[:], []
    for flip in (False, True):
        source = images.flip(3) if flip else images
        blocks += [_rotate(source, angle, chunk) for angle in FOURTEEN_ANGLES]
    copies = len(blocks)
    return replace(
        dataset,
        images=torch.cat(blocks),
        names=None if dataset.names is None else dataset.names * copies,
        **dataset.columns(lambda column: torch.cat([column] * copies)),
    )


def _rotate(images: Tensor, degrees: float, chunk: int) -> Tensor:
    if degrees == 0:
        return images
    parts = []
    for part in images.split(chunk):
        angle, zero, one = (part.new_full((len(part),), v, dtype=torch.float32) for v in (math.radians(degrees), 0, 1))
        theta = _affine(angle=angle, shear=zero, zoom=one, flip=one, shift=(zero, zero))
        parts.append(_resample(part.float(), theta, part.shape[-1]).round_().clamp_(0, 255).byte())
    return torch.cat(parts)


def _affine(*, angle: Tensor, shear: Tensor, zoom: Tensor, flip: Tensor, shift: Iterable[Tensor]) -> Tensor:
    """Output -> input maps (n, 2, 3) in the coordinates of `grid_sample`: shear, turn and zoom, then flip."""
    shift_x, shift_y = shift
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    row_x = torch.stack((flip * cos, flip * (cos * shear - sin), shift_x), 1)
    row_y = torch.stack((sin, sin * shear + cos, shift_y), 1)
    return torch.stack((row_x, row_y), 1)


def _resample(images: Tensor, theta: Tensor, size: int) -> Tensor:
    grid = F.affine_grid(theta, [len(images), 1, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _gaussian_blur(images: Tensor, deviation: Tensor, radius: int) -> Tensor:
    """(n, c, h, w) blurred with one deviation (n,) in pixels per image, as two depthwise passes."""
    count, channels, height, width = images.shape
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.softmax(-0.5 * (offsets / deviation[:, None]) ** 2, dim=1)  # (n, 2·radius + 1)
    kernel = kernel.repeat_interleave(channels, 0)[:, None]
    flat = images.reshape(1, count * channels, height, width)
    flat = F.pad(flat, (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, :, None, :], groups=count * channels)
    flat = F.conv2d(flat, kernel[:, :, :, None], groups=count * channels)
    return flat.view(count, channels, height, width)


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _inside(centre: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """(n, size): which pixel centres lie in [start, start + length) of each image."""
    return (centre >= start[:, None]) & (centre < (start + length)[:, None])
