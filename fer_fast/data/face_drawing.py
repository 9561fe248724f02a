"""Draws batches of upright faces from parameters: soft-edged shapes whose curves the facial actions bend.

Coordinates are those of the face: x to the right, y down, the outline of the head near 1, the eyes a little above 0.
Every parameter is a tensor (n, 1, 1). All arithmetic is elementwise, so an image has the same bits in every batch.
"""

from types import SimpleNamespace

import torch
from torch import Tensor

REACH = 1.25  # the canvas shows -REACH..REACH of the face's plane


class Canvas:
    """Images under construction, (n, channels, side, side) in [0, 1]; features are painted in windows of them."""

    def __init__(self, background: Tensor):
        self.image = background
        self.side = background.shape[-1]
        self.pixel = 2 * REACH / self.side
        self.axis = (torch.arange(self.side) + 0.5) * self.pixel - REACH

    def window(self, left: float, right: float, top: float, bottom: float) -> "Window":
        return Window(self, *(self._slice(*ends) for ends in ((left, right), (top, bottom))))

    def _slice(self, low: float, high: float) -> slice:
        first, last = (round((v + REACH) / self.pixel) for v in (low, high))
        return slice(max(first, 0), min(last, self.side))


class Window:
    """A part of a canvas, with its coordinates x (1, 1, w) and y (1, h, 1). Masks are (n, h, w) in [0, 1]."""

    def __init__(self, canvas: Canvas, columns: slice, rows: slice):
        self.image = canvas.image[:, :, rows, columns]
        self.pixel = canvas.pixel
        self.x = canvas.axis[columns].view(1, 1, -1)
        self.y = canvas.axis[rows].view(1, -1, 1)

    def paint(self, mask: Tensor, colour: Tensor) -> None:
        """Blends `colour` (n, channels, 1, 1) in."""
        self.image.lerp_(colour.expand_as(self.image), mask.unsqueeze(1).expand_as(self.image))

    def shade(self, mask: Tensor, depth: float | Tensor = 1.0) -> None:
        """Darkens by `depth` where the mask is one; a negative depth lightens."""
        self.image.mul_((1 - mask * depth).unsqueeze(1))

    def fill(self, distance: Tensor) -> Tensor:
        """Coverage of a shape from the signed distance to its edge, negative inside: an edge one pixel wide."""
        return (0.5 - distance / self.pixel).clamp_(0, 1)

    def stroke(self, distance: Tensor, width: float | Tensor) -> Tensor:
        """Coverage of a line from the distance to its middle; one thinner than a pixel is faint instead."""
        width = torch.as_tensor(width)
        return ((0.5 * width - distance.abs()) / self.pixel + 0.5).clamp_(0, 1) * (width / self.pixel).clamp(max=1)

    def between(self, top: Tensor, bottom: Tensor) -> Tensor:
        """Coverage of the area under the curve `top` and above the curve `bottom`."""
        return self.fill(top - self.y) * self.fill(self.y - bottom)


def glow(x: Tensor, y: Tensor) -> Tensor:
    """A soft disc of radius 1: 1 in the middle, 0 outside."""
    return (1 - x * x - y * y).clamp_(min=0)


def draw_faces(face: SimpleNamespace, side: int) -> Tensor:
    """Upright faces (n, channels, side, side) in [0, 1] from the parameters that `faces.sample_faces` makes."""
    blend = (Canvas(torch.empty(1, 1, side, side)).axis * 0.4 + 0.5).view(1, 1, -1, 1)
    canvas = Canvas(torch.lerp(face.backdrop_top, face.backdrop_bottom, blend).repeat(1, 1, 1, side))
    head = _draw_head(canvas, face)
    for sign, action in ((-1, face.left), (1, face.right)):
        _draw_cheek(canvas, face, action, sign)
        _draw_eye(canvas, face, action, sign)
    _draw_brow_wrinkles(canvas, face)
    _draw_nose(canvas, face)
    _draw_mouth(canvas, face)
    _draw_fringe(canvas, face, head)
    for sign in (-1, 1):
        _draw_glasses(canvas, face, sign)
    _light(canvas, face, head)
    return canvas.image


def _draw_head(canvas: Canvas, face: SimpleNamespace) -> Tensor:
    """Hair behind the head, neck, ears, skin, beard; returns the coverage of the head (n, side, side)."""
    w = canvas.window(-REACH, REACH, -REACH, REACH)
    x, y = w.x, w.y
    bulk = face.head_width + face.hair_volume
    cap = ((x / bulk).square() + (y / (face.head_top + face.hair_volume)).square()).sqrt_() - 1
    mane = torch.maximum(x.abs() - bulk, torch.maximum(y - face.hair_length, -y))
    w.paint(w.fill(torch.minimum(cap * bulk, mane)) * (face.hairline < face.bald_above), face.hair)
    neck = canvas.window(-0.5, 0.5, 0.4, REACH)
    neck.paint(neck.fill(torch.maximum(neck.x.abs() - 0.4, 0.5 - neck.y)), face.skin_dark)
    chest = canvas.window(-REACH, REACH, 1.05, REACH)
    chest.paint(chest.fill(1.12 + 0.12 * chest.x.abs() - chest.y), face.clothes)
    ear = canvas.window(-0.95, 0.95, -0.28, 0.18)
    outer = ((ear.x.abs() - face.head_width) / 0.09).square() + ((ear.y + 0.05) / 0.17).square()
    ear.paint(ear.fill((outer.sqrt_() - 1) * 0.1), face.skin_dark)

    low = (y / (face.chin + 0.12 * face.jaw)).clamp(min=0)
    width = face.head_width * (1 - face.jaw_taper * low.square())
    height = torch.where(y > 0, face.chin + 0.12 * face.jaw, face.head_top)
    radius = ((x / width).square() + (y / height).square()).sqrt_()
    head = w.fill((radius - 1) * 0.7)
    w.paint(head, face.skin)
    jaw = canvas.window(-REACH, REACH, 0.0, REACH)
    stubble = (jaw.y - 0.7 + 0.75 * jaw.x.square()).mul_(5).clamp_(0, 1) * head[:, -jaw.y.shape[1] :]
    jaw.paint(stubble * (0.85 * face.beard.clamp(min=0)), face.hair)
    return head


def _draw_cheek(canvas: Canvas, face: SimpleNamespace, action: SimpleNamespace, sign: int) -> None:
    """Eye socket, raised cheek, and the fold from the wing of the nose to the corner of the mouth."""
    w = canvas.window(*sorted((0.0, 0.75 * sign)), -0.5, 0.75)
    x = sign * w.x
    eye_y = face.eye_height
    w.shade(glow((x - face.eye_spacing) / 0.28, (w.y - eye_y + 0.03) / 0.2), 0.12 + 0.1 * face.age)
    raised = 0.6 * action.cheek_raise + 0.4 * action.lip_corner_pull
    cheek_y = 0.2 - 0.08 * raised
    w.shade(glow((x - 0.4) / 0.2, (w.y - cheek_y) / 0.16), -0.22 * raised)
    w.shade(glow((x - 0.36) / 0.24, (w.y - cheek_y - 0.17) / 0.06), 0.2 * raised)

    depth = 0.02 + 0.15 * face.age + 0.5 * torch.maximum(action.nose_wrinkle, action.upper_lip_raise)
    depth = (depth + 0.45 * action.lip_corner_pull + 0.15 * action.cheek_raise).clamp(max=0.8)
    start = 0.19 - 0.06 * action.nose_wrinkle
    along = (w.y - start) / 0.34
    reach = 0.13 + 0.12 * action.lip_corner_pull + 0.05 * action.lip_stretch
    fold = x - 0.14 - reach * along * (1.7 - 0.7 * along)
    ends = (along * (1 - along) * 8).clamp(0, 1)
    w.shade((1 - fold.abs() / 0.045).clamp_(min=0) * ends, depth)


def _draw_eye(canvas: Canvas, face: SimpleNamespace, action: SimpleNamespace, sign: int) -> None:
    """One eye with lids, iris, pouch and crow's feet, and the brow above it."""
    w = canvas.window(*sorted((0.0, 0.8 * sign)), -0.75, 0.2)
    x, y = sign * w.x, w.y
    u = (x - face.eye_spacing) / (0.155 * face.eye_size)  # -1 inner corner, 1 outer corner
    level = face.eye_height + face.eye_tilt * u
    arch = 1 - u * u
    squint = 0.5 * action.lid_tighten + 0.35 * action.cheek_raise + 0.4 * action.nose_wrinkle
    upper = (1 + 0.75 * action.upper_lid_raise - squint - 0.15 * action.brow_lower - 0.2 * face.lids_droop).clamp(
        min=0.12
    )
    upper = upper * 0.082 * face.eye_size * face.eye_open * (1 - 0.95 * face.blink)
    lower = 0.05 * face.eye_size * (1 - 0.6 * action.lid_tighten - 0.6 * action.cheek_raise).clamp(min=0.1)
    lower = lower * (1 - 0.5 * face.blink)
    # Sadness and fear pull the inner part of the upper lid up, anger presses it down.
    lean = 0.02 * (action.inner_brow_raise - action.brow_lower)
    top = level - arch * (upper + lean * (0.5 - 0.5 * u))
    bottom = level + arch * lower
    opening = w.between(top, bottom)
    w.paint(opening, face.sclera)
    gaze_x, gaze_y = face.eye_spacing + sign * face.gaze_x, face.eye_height - 0.015 + face.gaze_y
    radius = ((x - gaze_x).square() + (y - gaze_y).square()).sqrt_()
    w.paint(w.fill(radius - 0.072 * face.eye_size) * opening, face.iris)
    w.shade(w.fill(radius - 0.034 * face.eye_size) * opening, 0.9)
    w.shade(w.stroke(y - top, 0.03) * w.fill(-arch * 0.1), 0.75)
    w.shade(w.stroke(y - bottom, 0.014) * w.fill(-arch * 0.1), 0.4)
    w.shade(w.stroke(y - top + 0.045 + 0.03 * action.upper_lid_raise, 0.016) * w.fill(-arch * 0.1), 0.35)
    pouch = 0.12 * face.age + 0.4 * action.cheek_raise + 0.3 * action.lid_tighten
    w.shade(w.stroke(y - bottom - 0.05, 0.025) * arch.clamp(0, 1), pouch.clamp(max=0.6))
    fan = torch.minimum((y - level).abs(), (y - level).abs().sub_(0.07 * (u - 0.8)).abs_())  # crow's feet: three lines
    w.shade(w.stroke(fan, 0.016) * (1 - ((u - 1.4) / 0.4).square()).clamp(min=0), 0.5 * action.cheek_raise)

    v = (x - 0.13 + 0.045 * action.brow_lower) / 0.38  # 0 inner end, 1 outer end
    brow = face.eye_height - face.brow_height + face.brow_slant * v - 0.16 * face.brow_arch * v * (1 - v)
    brow = (
        brow - action.inner_brow_raise * 0.13 * (1 - v).square() - action.outer_brow_raise * 0.13 * v * (1.6 - 0.8 * v)
    )
    brow = brow + action.brow_lower * (0.03 + 0.09 * (1 - v))
    thickness = 0.055 * face.brow_weight * (1.15 - 0.75 * v).clamp(min=0.1)
    w.paint(w.stroke(y - brow, thickness) * w.fill((-v * (1 - v)) * 0.5), face.brow)


def _draw_brow_wrinkles(canvas: Canvas, face: SimpleNamespace) -> None:
    """Lines across the raised forehead, and upright ones between lowered brows."""
    w = canvas.window(-0.5, 0.5, -0.85, -0.2)
    inner, outer = face.middle.inner_brow_raise, face.middle.outer_brow_raise
    ripple = ((w.y * 9.5).remainder(1) * 2 - 1).abs_().mul_(3).sub_(2).clamp_(min=0)  # a line every 0.1
    extent = glow(w.x / (0.28 + 0.2 * outer), (w.y + 0.64) / 0.16)
    w.shade(ripple * extent, (0.6 * torch.maximum(inner, outer) * (0.4 + face.age)).clamp(max=0.6))
    frown = w.stroke(w.x.abs() - 0.05, 0.022) * glow(w.x / 0.2, (w.y - face.eye_height + 0.17) / 0.13)
    w.shade(frown, (0.75 * face.middle.brow_lower).clamp(max=0.8))


def _draw_nose(canvas: Canvas, face: SimpleNamespace) -> None:
    """Bridge, wings, nostrils; wrinkling lifts and widens the wings and ripples the root."""
    w = canvas.window(-0.3, 0.3, -0.35, 0.4)
    wrinkle = face.middle.nose_wrinkle
    across = w.x.abs()
    tip = face.nose_tip - 0.05 * wrinkle
    half = face.nose_width * (1 + 0.25 * wrinkle + 0.08 * face.middle.lip_corner_pull)
    slope = 0.055 + (half - 0.055) * ((w.y + 0.2) / (tip + 0.2)).clamp(0, 1).square()
    flank = w.stroke(across - slope, 0.035) * w.fill((w.y + 0.2) * (w.y - tip))
    w.shade(flank * torch.where(w.x * face.light_x > 0, 0.1, 0.3))
    w.shade(glow(w.x / 0.035, (w.y - 0.5 * tip) / (0.6 * tip + 0.15)), -0.16)
    w.shade(glow(w.x / (1.2 * half), (w.y - tip - 0.03) / 0.06), 0.4)
    nostril = w.fill((((across - 0.55 * half) / 0.04).square() + ((w.y - tip) / 0.024).square() - 1) * 0.01)
    w.shade(nostril, 0.75)
    ripple = ((w.y * 16).remainder(1) * 2 - 1).abs_().mul_(2).sub_(1).clamp_(min=0)
    w.shade(ripple * glow(w.x / 0.17, (w.y + 0.1) / 0.14), 0.65 * wrinkle)


def _draw_mouth(canvas: Canvas, face: SimpleNamespace) -> None:
    """Lips, teeth, tongue, dimples, moustache and chin."""
    w = canvas.window(-0.62, 0.62, 0.2, 1.0)
    x, y = w.x, w.y

    def side(name: str) -> Tensor:
        return torch.where(x < 0, getattr(face.left, name), getattr(face.right, name))

    pull, middle = side("lip_corner_pull"), face.middle
    half = 0.26 * face.mouth_width * (1 - 0.22 * middle.lip_tighten - 0.2 * face.jaw * (1 - pull).clamp(min=0))
    half = half * (1 + 0.32 * pull + 0.35 * side("lip_stretch") + 0.08 * side("dimple"))
    u = x / half
    arch = (1 - u * u).clamp(min=0)
    round_arch = arch.sqrt()
    corner = face.mouth_rest - 0.14 * pull - 0.06 * side("dimple") + 0.12 * side("lip_corner_drop")
    corner = corner + 0.03 * side("lip_stretch")
    line = face.mouth_height + corner * u * u - 0.045 * middle.chin_raise * arch + 0.02 * face.jaw
    gap = 0.085 * face.parting + 0.26 * face.jaw
    inner_top = line - (0.3 * gap + 0.02 * middle.upper_lip_raise * face.parting) * round_arch
    inner_bottom = line + 0.7 * gap * (0.5 * arch + 0.5 * round_arch)
    full = 0.06 * face.lip_fullness * (1 - 0.75 * middle.lip_tighten).clamp(min=0.1)
    cupid = 1 - 0.3 * (1 - 4 * u.abs()).clamp(min=0)
    lift = 0.05 * middle.upper_lip_raise + 0.025 * middle.nose_wrinkle
    outer_top = inner_top - arch * (full * cupid * (1 - 0.3 * pull) + 0.3 * lift) - lift * arch
    outer_bottom = inner_bottom + arch * full * (1.3 + 0.3 * middle.chin_raise - 0.2 * pull)

    moustache = w.between(outer_top - 0.1, outer_top) * w.fill((u.abs() - 1.1) * 0.2)
    w.paint(moustache * face.moustache.clamp(0, 0.9), face.hair)
    w.paint(w.between(outer_top + lift * 0.6 * arch, outer_bottom) * w.fill((u.abs() - 1) * 0.26), face.lips)
    inside = w.between(inner_top, inner_bottom) * w.fill((0.012 - gap) * 2) * w.fill((u.abs() - 1) * 0.26)
    w.shade(inside, 0.88)
    w.paint(inside * glow(x / 0.2, (y - inner_bottom) / 0.12) * (0.9 * face.jaw).clamp(max=1), face.tongue)
    show = 0.3 * face.parting + 0.6 * middle.lip_corner_pull + 0.5 * middle.lip_stretch + 0.6 * middle.upper_lip_raise
    teeth = inside * w.fill(y - inner_top - 0.09 * show.clamp(max=1)) * w.fill((u.abs() - 0.9) * 0.3)
    w.paint(teeth, face.teeth)
    bared = (middle.lip_stretch + middle.lip_tighten).clamp(max=1) * face.parting
    w.paint(inside * w.fill(inner_bottom - y - 0.05 * bared) * (bared > 0.25), face.teeth)
    w.shade(w.stroke(y - line, 0.022) * w.fill((u.abs() - 1.05) * 0.2) * (1 - inside), 0.65)

    corner_mark = 0.55 * side("dimple") + 0.3 * pull + 0.3 * side("lip_corner_drop")
    end_y = face.mouth_height + corner
    w.shade(glow((u.abs() - 1.14) / 0.16, (y - end_y) / (0.05 + 0.05 * side("dimple"))), corner_mark.clamp(max=0.8))
    w.shade(glow(x / 0.2, (y - outer_bottom - 0.05) / 0.045), 0.22 + 0.3 * middle.chin_raise)
    pebbled = glow(x / 0.2, (y - face.mouth_height - 0.3) / 0.1) * ((x * 14 + y * 9).remainder(1) - 0.5)
    w.shade(pebbled, 0.5 * middle.chin_raise)


def _draw_fringe(canvas: Canvas, face: SimpleNamespace, head: Tensor) -> None:
    w = canvas.window(-REACH, REACH, -REACH, 0.2)
    edge = (
        face.hairline + face.fringe * (w.x + face.parting_side).square() + 0.03 * ((w.x * 13).remainder(1) - 0.5).abs()
    )
    w.paint(w.fill(w.y - edge) * head[:, : w.y.shape[1]] * (face.hairline < face.bald_above), face.hair)


def _draw_glasses(canvas: Canvas, face: SimpleNamespace, sign: int) -> None:
    w = canvas.window(*sorted((0.0, 0.75 * sign)), -0.5, 0.2)
    x, y = sign * w.x - face.eye_spacing, w.y - face.eye_height - 0.01
    rim = ((x / 0.23).square() + (y / 0.19).square()).sqrt_().sub_(1).mul_(0.2)
    bridge = w.stroke(y + 0.03, 0.03) * w.fill(x + 0.23)
    frame = torch.maximum(w.stroke(rim, 0.03), bridge)
    w.shade(frame * (face.glasses > 0), 0.8)


def _light(canvas: Canvas, face: SimpleNamespace, head: Tensor) -> None:
    """Lambert shading of the head as an ellipsoid; what lies around it gets the ambient part and half of the rest."""
    axis = canvas.axis
    x, y = axis.view(1, 1, -1) / face.head_width, axis.view(1, -1, 1) / 1.0
    depth = (1.1 - x * x - y * y).clamp_(min=0.02).sqrt_()
    lit = (face.light_x * x + face.light_y * y + face.light_z * depth).clamp_(0, 1.2)
    gain = face.ambient + (1 - face.ambient) * torch.lerp(torch.full_like(lit, 0.5), lit, head)
    canvas.image.mul_(gain.unsqueeze(1))
