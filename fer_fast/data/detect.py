"""Which dataset lies in a folder."""

from collections import Counter
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from fer_fast.data.labels import FAR
from fer_fast.data.listing import Listing
from fer_fast.data.opened import Wanted, read_copy
from fer_fast.data.sources import DATASETS
from fer_fast.data.table import DatasetInfo
from fer_fast.errors import InputError
from fer_fast.suggest import one_of

Found = tuple[DatasetInfo, Listing]


def find_dataset(root: Path, dataset: str | None = None, order: str | None = None) -> Found:
    """The dataset in `root`, and what is in it.

    Every reader of the table looks. One that is sure wins. Several that are, or several that are not, are told apart by
    their published sizes; a dataset without any (a folder of one's own) is the answer where no other one claims the
    folder, not even one that cannot tell what its numbers mean.

    Args:
        root: a folder or file of the user.
        dataset: which one it is, where that is known.
        order: which order its class numbers have, where the copy does not tell.

    Raises:
        InputError: no dataset, or it cannot be told which; the line names the candidates.
    """
    if not root.exists():
        raise InputError(f"{root} does not exist")
    readable = {name: info for name, info in DATASETS.items() if info.needs_root}
    if dataset is not None:
        info = readable[one_of(dataset, readable, "--dataset")]
        return info, read_copy(info, root, Wanted(order=order))
    claims, refusals = _ask(readable, root, order)
    sure = [claim for claim in claims if claim[1].sure]
    if len(sure) == 1:
        return sure[0]
    named = [claim for claim in sure or claims if claim[0].classes]
    fits = [claim for claim in named if _away(*claim) <= FAR]
    if len(fits) == 1 or (fits and not sure):  # class folders may fit two editions: the one that leaves less out
        return min(fits, key=lambda claim: (_away(*claim), -sum(map(len, claim[1].parts.values()))))
    if named or (claims and refusals):
        raise InputError(f"{root} can be {_spelled(fits or claims, refusals)}; say which with --dataset NAME")
    if refusals:
        raise InputError("; ".join(refusals.values()))
    if claims:
        return claims[0]
    raise InputError(f"{root} is none of the data sets that are read from a folder: {', '.join(readable)}")


def _ask(readable: Mapping[str, DatasetInfo], root: Path, order: str | None) -> tuple[list[Found], dict[str, str]]:
    """Who claims the folder, and name -> error of those that do and cannot be told what is in it."""
    claims, refusals = [], {}
    for name, info in readable.items():
        options = {"order": order} if order is not None and "order" in signature(info.read).parameters else {}
        try:
            listing = info.read(root, **options)
        except InputError as error:
            refusals[name] = str(error)
        else:
            if listing is not None:
                claims.append((info, listing))
    return claims, refusals


def _away(info: DatasetInfo, listing: Listing) -> float:
    """The share of pictures that lie in other classes than published, in the parts that are here or in all together."""
    counts, published = listing.counts(), info.published
    shared = counts.keys() & published.keys()
    by_part = (_flat({part: sizes[part] for part in shared}) for sizes in (counts, published))
    return min(share_away(*by_part), share_away(_together(counts), _together(published)))


def share_away(counts: Mapping[Any, int], published: Mapping[Any, int]) -> float:
    """The share of the published pictures that lie elsewhere; 1 where none was published."""
    if not published:
        return 1.0
    differing = sum(abs(counts.get(key, 0) - published.get(key, 0)) for key in counts.keys() | published.keys())
    return differing / max(1, sum(published.values()))


def _flat(parts: Mapping[str, Mapping[str, int]]) -> dict[tuple[str, str], int]:
    return {(part, name): n for part, counts in parts.items() for name, n in counts.items()}


def _together(parts: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    return sum(map(Counter, parts.values()), Counter())


def _spelled(claims: list[Found], refusals: Mapping[str, str]) -> str:
    candidates = [f"{info.name} ({listing.layout})" for info, listing in claims]
    candidates += [f"{name} ({text})" for name, text in refusals.items()]
    return ", ".join(candidates[:-1]) + " or " + candidates[-1] if len(candidates) > 1 else candidates[0]
