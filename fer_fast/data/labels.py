"""Class names and what copies of datasets call them; and what class numbers mean, by the sizes of the classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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

FAR, APART = 0.05, 3.0  # the share of images that may lie elsewhere than published; how much further the next order is


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

    The sizes decide where under one order at most a twentieth of the images lie in other classes than published, and
    under every other order three times as many.

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
        raise InputError(f"order is {given!r}; allowed for {where}: {allowed}")
    away = sorted((min(_away(counts, order, sizes) for sizes in published), i) for i, order in enumerate(orders))
    if away[0][0] <= FAR and (len(away) == 1 or away[1][0] > APART * max(away[0][0], 0.005)):
        return orders[away[0][1]]
    sizes = ", ".join(f"{number}: {count}" for number, count in sorted(counts.items()))
    raise InputError(
        f"{where}: the class numbers have no names, and the sizes of the classes ({sizes}) are none of the published "
        f"ones; say which order they have with --data.order (--order of `data check`): {allowed}"
    )


def _away(counts: Mapping[int, int], order: Order, published: Mapping[str, int]) -> float:
    """The share of images that lie in other classes than published."""
    named: dict[str, int] = {}
    for number, count in counts.items():
        name = order.classes.get(number, "")
        named[name] = named.get(name, 0) + count
    wrong = sum(abs(named.get(name, 0) - published.get(name, 0)) for name in named.keys() | published.keys())
    return wrong / max(1, sum(published.values()))


def _spelled(order: Order) -> str:
    return " ".join(f"{number} {name}" for number, name in sorted(order.classes.items()))
