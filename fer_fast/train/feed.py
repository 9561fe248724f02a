"""Batches of images on the device: indexed there where all of them fit, else gathered ahead by a thread and sent."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from fer_fast.data.dataset import Images

AHEAD = 3  # batches under way: one that is copied, one that is gathered, one that waits
SHARE = 0.4  # of the free memory of a GPU that the images of a run may take
_CHUNK = 4096  # images copied at once where all move to the device


class Feed:
    """Images and labels of a split, by batches of indices.

    All images move to a GPU once if they take at most two fifths of its free memory; a batch is an index there then.
    Else a thread gathers the next batches into pinned memory while the device works, and a stream of its own takes them
    there: no step waits for a disk that keeps up. On a CPU tensors are indexed where they are, mapped files read ahead.

    Args:
        images: uint8 (n, channels, height, width).
        labels: (n,), on any device. They may be replaced between epochs.
        device: where batches are wanted.
        resident: whether all images move to the device; None decides by the memory that is free there.
    """

    def __init__(self, images: Tensor | Images, labels: Tensor, device: torch.device, resident: bool | None = None):
        self.device = device
        self.labels = labels.to(device)
        self.images = _moved(images, device) if (_fits(images, device) if resident is None else resident) else images

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels uint8 (b, channels, height, width) and labels (b,), on the device, for each index tensor (b,)."""
        # One copy for the whole epoch: a copy a step would make the host wait.
        indices = torch.cat(list(order)).to(self.device).split([len(batch) for batch in order])
        stays = isinstance(self.images, Tensor) and self.images.device.type == self.device.type
        pixels = (self.images[batch] for batch in indices) if stays else self._ahead(order)
        return ((images, self.labels[batch]) for images, batch in zip(pixels, indices, strict=True))

    def _ahead(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """The pixels of the batches in order, AHEAD of them under way."""
        road = _Road(self.device) if self.device.type == "cuda" else None
        under_way: deque[Future] = deque()
        with ThreadPoolExecutor(1, "feed") as thread:
            try:
                for batch in order:
                    under_way.append(thread.submit(road.send if road else _gather, self.images, batch))
                    if len(under_way) > AHEAD:
                        yield _arrived(under_way.popleft())
                while under_way:
                    yield _arrived(under_way.popleft())
            finally:
                thread.shutdown(cancel_futures=True)


class _Road:
    """Pinned buffers in turns, and the stream that empties them."""

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)
        self.turns: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def send(self, images: Tensor | Images, batch: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """Gather a batch and start its copy; for one thread alone. The event says when it is there."""
        buffer = self._free(images, batch)
        gathered = _gather(images, batch, buffer[: len(batch)])
        with torch.cuda.stream(self.stream):
            sent = gathered.to(self.stream.device, non_blocking=True)
        there = self.stream.record_event()
        self.turns.append((buffer, there))
        return sent, there

    def _free(self, images: Tensor | Images, batch: Tensor) -> Tensor:
        """A buffer whose last copy is over, large enough; of as many as are under way at once."""
        if len(self.turns) > AHEAD:
            buffer, there = self.turns.popleft()
            there.synchronize()
            if len(buffer) >= len(batch):
                return buffer
        shape = (images.stored if isinstance(images, Images) else images).shape[1:]
        return torch.empty(len(batch), *shape, dtype=torch.uint8, pin_memory=True)


def _arrived(sending: Future) -> Tensor:
    """What was sent, safe to use on the current stream."""
    sent = sending.result()
    if isinstance(sent, Tensor):
        return sent
    pixels, there = sent
    stream = torch.cuda.current_stream(pixels.device)
    stream.wait_event(there)
    pixels.record_stream(stream)
    return pixels


def _gather(images: Tensor | Images, batch: Tensor, out: Tensor | None = None) -> Tensor:
    """Images (b, channels, height, width), in the order of their memory."""
    if isinstance(images, Images):
        return images.gather(batch, out)
    return torch.index_select(images, 0, batch, out=out)


def _fits(images: Tensor | Images, device: torch.device) -> bool:
    if device.type != "cuda":
        return isinstance(images, Tensor)
    free, _ = torch.cuda.mem_get_info(device)
    return images.shape.numel() <= SHARE * free


def _moved(images: Tensor | Images, device: torch.device) -> Tensor:
    """All images in the memory of the device."""
    if isinstance(images, Tensor):
        return images.to(device)
    n, channels, height, width = images.shape
    moved = torch.empty(n, height, width, channels, dtype=torch.uint8, device=device).movedim(-1, -3)
    for start in range(0, n, _CHUNK):
        moved[start : start + _CHUNK] = images[start : start + _CHUNK]
    return moved
