"""VGGFace2's networks and the files they come in, written anew: what loading such a file must reproduce."""

import torch
from torch.nn import functional as F

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width and blocks of ResNet-50 and SENet-50


def caffe_weights(squeezed, seed=0):
    """Random tensors under the names of VGGFace2's files."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def conv(name, out, into, side, bias=False):
        state[f"{name}.weight"] = torch.randn(out, into, side, side, generator=generator) * (into * side * side) ** -0.5
        if bias:
            state[f"{name}.bias"] = torch.randn(out, generator=generator)

    def norm(name, width):
        for part, low, high in (
            ("weight", 0.5, 1),
            ("bias", -1, 1),
            ("running_mean", -1, 1),
            ("running_var", 0.5, 1.5),
        ):
            state[f"{name}.{part}"] = torch.rand(width, generator=generator) * (high - low) + low

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    into = 64
    for stage, (width, blocks) in enumerate(STAGES, 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            for part, (out, of, side) in enumerate(((width, into, 1), (width, width, 3), (4 * width, width, 1)), 1):
                conv(f"{name}.conv{part}", out, of, side)
                norm(f"{name}.bn{part}", out)
            if squeezed:
                conv(f"{name}.conv4", width // 4, 4 * width, 1, bias=True)
                conv(f"{name}.conv5", 4 * width, width // 4, 1, bias=True)
            if block == 0:
                conv(f"{name}.downsample.0", 4 * width, into, 1)
                norm(f"{name}.downsample.1", 4 * width)
            into = 4 * width
    state["fc.weight"], state["fc.bias"] = torch.zeros(5, into), torch.zeros(5)
    return state


def caffe_features(state, images):
    """Caffe's ResNet-50, or SENet-50 where there are weights for it: RGB uint8 (n, 3, h, w) -> (n, 2048)."""

    def conv(name, x, **keywords):
        return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **keywords)

    def norm(name, x):
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    x = images.float()[:, [2, 1, 0]] - torch.tensor([91.4953, 103.8827, 131.0912]).view(3, 1, 1)
    x = F.max_pool2d(norm("bn1", conv("conv1", x, stride=2, padding=3)).relu(), 3, 2, padding=0, ceil_mode=True)
    for stage, (_, blocks) in enumerate(STAGES, 1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(f"{name}.bn1", conv(f"{name}.conv1", x, stride=stride)).relu()
            y = norm(f"{name}.bn2", conv(f"{name}.conv2", y, padding=1)).relu()
            y = norm(f"{name}.bn3", conv(f"{name}.conv3", y))
            if f"{name}.conv4.weight" in state:
                squeezed = conv(f"{name}.conv4", y.mean((2, 3), keepdim=True)).relu()
                y = y * conv(f"{name}.conv5", squeezed).sigmoid()
            if block == 0:
                x = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, stride=stride))
            x = (x + y).relu()
    return x.mean((2, 3))


def python_2_pickle(arrays):
    """The bytes that Python 2 writes for a dict of float32 arrays, as in VGGFace2's files: bytes are plain strings."""

    def text(value):
        return b"T" + len(value).to_bytes(4, "little") + value

    parts = [b"\x80\x02}("]
    for name, array in arrays.items():
        shape = b"(" + b"".join(b"J" + side.to_bytes(4, "little") for side in array.shape) + b"t"
        parts += [
            text(name.encode()),
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR(K\x01",
            shape,
            b"cnumpy\ndtype\n("
            + text(b"f4")
            + b"K\x00K\x01tR(K\x03"
            + text(b"<")
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
            text(array.astype("<f4").tobytes()),
            b"tb",
        ]
    return b"".join((*parts, b"u."))
