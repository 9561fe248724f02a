"""Whether what a run goes back to knows the images that it is tested on."""

from collections.abc import Iterator
from typing import Any

from fer_fast.data import DATASETS
from fer_fast.data.dataset import FaceDataset
from fer_fast.errors import InputError
from fer_fast.train.config import RunConfig, from_dict, to_dict
from fer_fast.train.data import names_of
from fer_fast.train.provenance import membership, names_digest
from fer_fast.train.weights import Weights

_TELLING = ("dataset", "test_dataset", "seed", "data")  # keys that decide which images a run is trained on


def ancestors(state: dict[str, Any] | None, source: str) -> list[dict[str, Any] | None]:
    """The run that left a checkpoint, and all runs that it goes back to: what tells the images they were trained on.

    Args:
        state: of the checkpoint; None for weights that no run left.
        source: the checkpoint, for people.

    Returns:
        Keys of each run's configuration with its ``splits`` (see `membership`), the latest first, as JSON values; None
        for one that began with weights in an earlier version, which did not keep more of them.

    Raises:
        InputError: the checkpoint tells no such things of those runs.
    """
    if state is None:
        return []
    config = to_dict(from_dict(state["config"]))
    last = {key: config[key] for key in _TELLING} | {"splits": state.get("splits", {})}
    told = state.get("ancestors", [None] if config["model"]["weights"] else [])
    if not isinstance(told, list) or not all(each is None or _tells(each) for each in told):
        raise InputError(f"the checkpoint {source} is corrupt: ancestors")
    return [last, *told]


def _tells(ancestor: Any) -> bool:
    """Whether it has the parts of what `ancestors` keeps of a run."""
    whole = isinstance(ancestor, dict) and ancestor.keys() >= {*_TELLING, "splits"}
    return whole and isinstance(ancestor["splits"], dict)


def check_start(weights: Weights | None, config: RunConfig, test: FaceDataset) -> tuple[str, ...]:
    """Refuse weights that go back to a run that was trained on, or selected by, images of this one's test split.

    Returns:
        A line where it cannot be told: a run had another copy of the dataset, or one of which it says too little.

    Raises:
        InputError: images of the test split are among those.
    """
    if weights is None:
        return ()
    of_run = f"the weights {weights.source} are of a run that "
    advice = "; start from a run of the same fold and seed, or of another dataset"
    known = ancestors(weights.state, weights.source)
    runs = [(of_run + "goes back to one that " * (i > 0), each) for i, each in enumerate(known)]
    return tuple(f"starts from {weights.source}, {line}" for line in _untold(runs, config, test, advice))


def check_evaluated(state: dict[str, Any], source: str, config: RunConfig, test: FaceDataset) -> tuple[str, ...]:
    """The same of what a run itself began with, for a test split that it is evaluated on later.

    Args:
        state, source: of the run's checkpoint, see `ancestors`.
        config: of the run, with the dataset that it is evaluated on.
    """
    runs = [(f"{source} goes back to a run that ", each) for each in ancestors(state, source)[1:]]
    return tuple(f"{source}: {line}" for line in _untold(runs, config, test, ""))


def _untold(
    runs: list[tuple[str, dict[str, Any] | None]], config: RunConfig, test: FaceDataset, advice: str
) -> Iterator[str]:
    """Refuse runs, each with the words for it, that know the images; what cannot be told of them."""
    if test.names:  # drawn images are drawn anew
        yield from filter(None, (_check(words, each, config, test, advice) for words, each in runs))


def _check(
    words: str, ancestor: dict[str, Any] | None, config: RunConfig, test: FaceDataset, advice: str
) -> str | None:
    if ancestor is None:
        return "which goes back to weights of which it does not say what they were trained on"
    dataset, root = (config.test_dataset, config.test_root) if config.test_dataset else (config.dataset, config.root)
    told = ancestor["splits"]
    theirs = from_dict({key: ancestor[key] for key in _TELLING})
    if theirs.dataset != dataset:
        return None
    if not theirs.test_dataset and told.get("test") == membership((test,))["test"]:
        return None
    here = _names(theirs, root)
    held = here.keys() & {"test"} or here.keys()  # train and val may lack what was left out
    same_copy = any(told.get(split) == names_digest(here[split]) for split in held)
    again = len({*here.get("train", ()), *here.get("val", ())} & {*test.names})
    if again and (same_copy or DATASETS[dataset].published):  # a folder of one's own can be any
        fold = f", fold {theirs.data.fold} of {theirs.data.folds}" if theirs.data.fold else ""
        raise InputError(
            f"{words}was trained on or selected by {again:,} of the {len(test):,} images that are tested here "
            f"(of {dataset}, there seed {theirs.seed}{fold}){advice}"
        )
    return None if same_copy else f"trained on {dataset}: images of the test split may be among those"


def _names(theirs: RunConfig, root: str | None) -> dict[str, Any]:
    """Split -> names of the images that another run would have of a copy; none where it could have none."""
    theirs.root = root
    try:
        return names_of(theirs)
    except InputError:
        return {}
