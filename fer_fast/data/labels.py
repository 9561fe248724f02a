"""Class names and what copies of datasets call them; and what class numbers mean, by the sizes of the classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_fast.data.files import shown
from fer_fast.errors import InputError

CLASSES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")

# What other copies of the datasets call the canonical classes.
SYNONYMS = {
    "neutral": ("neutrality", "natural", "ne", "neu", "no expression", "normal", "calm"),
    "happiness": ("happy", "joy", "ha", "hap", "smile"),
    "sadness": ("sad", "sa"),
    "surprise": ("surprised", "surprize", "su", "sur", "suprise"),
    "fear": ("fearful", "afraid", "scared", "fe", "fea"),
    "disgust": ("disgusted", "di", "dis"),
    "anger": ("angry", "an", "ang"),
    "contempt": ("contemptuous", "co", "con"),
}
_CANONICAL = {word: name for name, words in SYNONYMS.items() for word in (name, *words)}

# Of order_of: the share of images that may lie elsewhere than published, how many times further the next reading has to
# be, and the share below which a difference tells nothing unless there is none.
FAR, APART, NOISE = 0.05, 3.0, 0.005


def canonical_class(name: str) -> str | None:
    """The canonical name of a class, or None where `name` is none of the known words; case and spaces do not matter."""
    return _CANONICAL.get(" ".join(name.replace("_", " ").split()).lower())


@dataclass(frozen=True)
class Order:
    """One meaning that the class numbers of a copy can have.

    Args:
        name: what `--data.order` takes.
        classes: number -> name of the class.
    """

    name: str
    classes: Mapping[int, str]


def order_of(
    counts: Mapping[int, int],
    orders: Sequence[Order],
    published: Sequence[Mapping[str, int]],
    given: str | None,
    where: Path,
) -> Order:
    """What the class numbers in `where` mean: `given` if the user said so, else what the sizes of the classes say.

    The sizes decide where they are exactly those published under one reading of the numbers and no other; else where
    under one reading at most a twentieth of the images are too many or too few, and under every other three times as
    many. Orders that read every number in `counts` alike are one reading.

    Args:
        counts: number -> images of one split.
        orders: the candidates.
        published: the published sizes by class name, one mapping for each split or edition it may be.
        given: name of an order, or None.
        where: the folder or file, for the error.

    Raises:
        InputError: an unknown order, or sizes that decide nothing; it lists the candidates and the option.
    """
    allowed = ", ".join(f"{order.name} ({_spelled(order)})" for order in orders)
    if given is not None:
        for order in orders:
            if order.name == given:
                return order
        raise InputError(f"order is {given!r}; allowed for {shown(where)}: {allowed}")
    readings: dict[tuple[str | None, ...], tuple[float, Order]] = {}
    for order in orders:
        names = tuple(map(order.classes.get, counts))
        readings.setdefault(names, (distance(_named(counts, order), published), order))
    (nearest, order), *others = sorted(readings.values(), key=lambda reading: reading[0])
    rival = others[0][0] if others else float("inf")
    if (nearest == 0 < rival) or (nearest <= FAR and rival > APART * max(nearest, NOISE)):
        return order
    sizes = ", ".join(f"{number}: {count}" for number, count in sorted(counts.items()))
    raise InputError(
        f"{shown(where)}: the class numbers have no names, and the sizes of the classes ({sizes}) do not tell which of "
        f"the published ones they are; say which order they have with --data.order (--order of `data check`): {allowed}"
    )


def distance(counts: Mapping[str, int], published: Sequence[Mapping[str, int]]) -> float:
    """The share of images that are too many or too few by class, beside the nearest of the published sizes."""
    return min(_too_many_or_few(counts, sizes) / max(1, sum(sizes.values())) for sizes in published)


def _too_many_or_few(counts: Mapping[str, int], published: Mapping[str, int]) -> int:
    """Images to add or to take away; one that lies in another class counts once."""
    away = [counts.get(name, 0) - published.get(name, 0) for name in counts.keys() | published.keys()]
    return max(sum(more for more in away if more > 0), -sum(less for less in away if less < 0))


def _named(counts: Mapping[int, int], order: Order) -> dict[str, int]:
    """Counts by class; a number that the order lacks keeps a name of its own, so that it is too many."""
    return {order.classes.get(number, f"number {number}"): count for number, count in counts.items()}


def _spelled(order: Order) -> str:
    return " ".join(f"{number} {name}" for number, name in sorted(order.classes.items()))
