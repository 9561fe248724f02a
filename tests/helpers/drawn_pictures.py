"""Pictures that are drawn when they are decoded, and the cache of them."""

import numpy as np

from fer_fast.data.cache import store
from fer_fast.data.listing import Part
from fer_fast.data.pictures import Pictures
from fer_fast.data.prepare import Preparation

HOW = Preparation(size=16, channels=1)
ABOUT = {"dataset": "stub", "part": "train", "root": "/somewhere", "licence": "for a test"}


class Drawn(Pictures):
    """Pictures whose gray tells their number, each decoded by `decode` first; every decode is counted."""

    def __init__(self, count, decode=lambda index: None, side=16):
        self.count, self.decode, self.side = count, decode, side
        self.decoded = []

    def __len__(self):
        return self.count

    def read(self, index, *, gray):
        self.decoded.append(index)
        self.decode(index)
        return np.full((self.side, self.side), index % 256, np.uint8)

    def stamp(self):
        yield f"{self.count}"

    def take(self, rows):
        raise NotImplementedError


def part_of(pictures, **columns):
    return Part(pictures, np.zeros(len(pictures), np.int64), tuple(map(str, range(len(pictures)))), **columns)


def built(pictures, how=HOW, **columns):
    return store(part_of(pictures, **columns), how, ABOUT)


def folders(home):
    """What lies in the cache, locks aside."""
    return sorted(path.name for path in home.iterdir() if path.suffix != ".lock")
