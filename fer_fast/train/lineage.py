"""Whether the weights that a run starts from know the images that it is tested on."""

from typing import Any

from fer_fast.data import DATASETS
from fer_fast.data.dataset import FaceDataset
from fer_fast.errors import InputError
from fer_fast.train.config import RunConfig, from_dict
from fer_fast.train.data import names_of
from fer_fast.train.provenance import membership, names_digest
from fer_fast.train.weights import Weights


def check_start(weights: Weights | None, config: RunConfig, test: FaceDataset) -> tuple[str, ...]:
    """Refuse weights of a run that was trained on, or selected by, images of this one's test split.

    Returns:
        A line where it cannot be told: the run had another copy of the dataset, or one of which it says too little.

    Raises:
        InputError: images of the test split are among those.
    """
    dataset, root = (config.test_dataset, config.test_root) if config.test_dataset else (config.dataset, config.root)
    if weights is None or weights.state is None or not test.names:  # drawn images are drawn anew
        return ()
    theirs, told = from_dict(weights.state["config"]), weights.state.get("splits", {})
    if theirs.dataset != dataset:
        return ()
    if not theirs.test_dataset and told.get("test") == membership((test,))["test"]:
        return ()
    here = _names(theirs, root)
    held = here.keys() & {"test"} or here.keys()  # train and val may lack what was left out
    same_copy = any(told.get(split) == names_digest(here[split]) for split in held)
    again = len({*here.get("train", ()), *here.get("val", ())} & {*test.names})
    if again and (same_copy or DATASETS[dataset].published):  # a folder of one's own can be any
        fold = f", fold {theirs.data.fold} of {theirs.data.folds}" if theirs.data.fold else ""
        raise InputError(
            f"the weights {weights.source} are of a run that was trained on or selected by {again:,} of the "
            f"{len(test):,} images that are tested here (of {dataset}, there seed {theirs.seed}{fold}); start from a "
            "run of the same fold and seed, or of another dataset"
        )
    known = f"starts from {weights.source}, trained on {dataset}: images of the test split may be among those"
    return () if same_copy else (known,)


def _names(theirs: RunConfig, root: str | None) -> dict[str, Any]:
    """Split -> names of the images that another run would have of a copy; none where it could have none."""
    theirs.root = root
    try:
        return names_of(theirs)
    except InputError:
        return {}
