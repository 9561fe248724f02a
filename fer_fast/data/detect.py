"""Which dataset lies in a folder."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from itertools import chain, combinations
from pathlib import Path

from fer_fast.data.files import shown
from fer_fast.data.labels import FAR, distance
from fer_fast.data.listing import Listing
from fer_fast.data.opened import Wanted, read_copy
from fer_fast.data.sources import DATASETS
from fer_fast.data.table import DatasetInfo
from fer_fast.errors import InputError
from fer_fast.suggest import one_of

Claim = tuple[DatasetInfo, Listing]


def find_dataset(root: Path, dataset: str | None = None, order: str | None = None) -> Claim:
    """The dataset in `root`, and what is in it.

    Every reader of the table looks. Those that are sure go before those whose published sizes are here. What is
    neither, such as a folder of the user's own, is the answer where nobody else claims the folder, not even a reader
    that cannot tell what its numbers mean.

    Args:
        root: a folder or file of the user.
        dataset: which one it is, where that is known.
        order: which order its class numbers have, where the copy does not tell.

    Raises:
        InputError: no dataset, or it cannot be told which; the line names the candidates.
    """
    if not root.exists():
        raise InputError(f"{shown(root)} does not exist")
    readable = {name: info for name, info in DATASETS.items() if info.needs_root}
    if dataset is not None:
        info = readable[one_of(dataset, readable, "--dataset")]
        return info, read_copy(info, root, Wanted(order=order))
    claims, refusals = _ask(readable.values(), root, order)
    own = [claim for claim in claims if claim[0].classes]
    found = [claim for claim in own if claim[1].sure] or [claim for claim in own if _away(*claim) <= FAR]
    extended = {info.extends for info, _ in found}
    found = [claim for claim in found if claim[0].name not in extended]
    if found and _one_copy(found):
        return max(found, key=_fullness)
    if len(claims) == 1 and not refusals:
        return claims[0]
    if claims:
        candidates = ", ".join((*(info.name for info, _ in found or claims), *refusals))
        raise InputError(f"{shown(root)} can be any of {candidates}; say which with --dataset NAME")
    if refusals:
        raise InputError("; ".join(refusals.values()))
    raise InputError(f"{shown(root)} is none of the data sets that are read from a folder: {', '.join(readable)}")


def _ask(readable: Iterable[DatasetInfo], root: Path, order: str | None) -> tuple[list[Claim], dict[str, str]]:
    """Who claims the folder, and name -> error of those that do and cannot be told what is in it."""
    claims, refusals = [], {}
    for info in readable:
        options = {"order": order} if order is not None and "order" in signature(info.read).parameters else {}
        try:
            listing = info.read(root, **options)
        except InputError as error:
            refusals[info.name] = str(error)
        else:
            if listing is not None:
                claims.append((info, listing))
    return claims, refusals


def _away(info: DatasetInfo, listing: Listing) -> float:
    """The share of pictures that are too many or too few by class: in the parts that are here, or in all together."""
    counts, expected = listing.counts(), listing.expected(info.published)
    if not expected:
        return 1.0
    by_part = max(distance(counts[part], [sizes]) for part, sizes in expected.items())
    return min(by_part, distance(_together(counts), [_together(info.published)]))


def _together(parts: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    return sum(map(Counter, parts.values()), Counter())


def _one_copy(claims: Sequence[Claim]) -> bool:
    """Whether all claims are of the same pictures, as for AffectNet with eight classes and with seven."""
    names = [set(chain.from_iterable(part.names for part in listing.parts.values())) for _, listing in claims]
    return not any(one.isdisjoint(other) for one, other in combinations(names, 2))


def _fullness(claim: Claim) -> tuple[int, int]:
    """More where fewer pictures are left out, or fewer classes are empty."""
    info, listing = claim
    return sum(map(len, listing.parts.values())), -len(info.classes)
