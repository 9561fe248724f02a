"""Options that do nothing in a run: refused where a user gave them, so that nobody believes they did something."""

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fer_fast import losses
from fer_fast.data import DATASETS
from fer_fast.data.opened import FOLDING, OF_COPIES
from fer_fast.errors import InputError
from fer_fast.registry import find
from fer_fast.train.backbones import find_backbone
from fer_fast.train.config import RunConfig, config_parser, resolve, to_dict
from fer_fast.train.data import cuts_validation
from fer_fast.train.nested import leaves, read_yaml
from fer_fast.train.objective import Plan, loss_setup, plan_losses
from fer_fast.train.processes import started_by_torchrun


def _colour(config: RunConfig, _plan: Plan) -> bool:
    data = config.data.channels or (DATASETS[config.dataset].channels if config.dataset in DATASETS else 3)
    return min(data, config.augment.channels) == 3


def _reads_bank(_config: RunConfig, plan: Plan) -> bool:
    classes = [getattr(losses, find(name).cls) for name in plan.auxiliary]
    return any("bank" in inspect.signature(cls.forward).parameters for cls in classes)


def _on_disk(config: RunConfig, _plan: Plan) -> bool:
    return _is_read(config.dataset) or _is_read(config.test_dataset)


def _trains_on_disk(config: RunConfig, _plan: Plan) -> bool:
    return _is_read(config.dataset)


def _is_read(dataset: str | None) -> bool:
    return dataset is not None and (dataset not in DATASETS or DATASETS[dataset].needs_root)


# Keys -> when they act, in words and as a test.
_ACT: tuple[tuple[tuple[str, ...], str, Callable[[RunConfig, Plan], bool]], ...] = (
    (
        ("objective.weight", "objective.classifier"),
        "when --loss is an auxiliary loss",
        lambda config, _: loss_setup(config.loss).classifier is not None,
    ),
    (
        ("model.embeddings", "model.embedding_dim", "model.dropout"),
        "with a loss on k embeddings, such as ad-corre",
        lambda _, plan: plan.shape == "embeddings",
    ),
    (
        ("model.projection_dim", "model.key_momentum"),
        "with a loss on two views, such as supcon",
        lambda _, plan: plan.shape == "two-views",
    ),
    (("model.bank_groups",), "with a loss that reads a memory bank: esc, ensc or mva", _reads_bank),
    (
        ("model.stem",),
        "with a ResNet",
        lambda config, _: config.model.stem == "standard" or find_backbone(config.backbone).small_stem is not None,
    ),
    (
        tuple(f"data.{name}" for name in OF_COPIES),
        "on a dataset that is read from a folder",
        _on_disk,
    ),
    (
        tuple(f"data.{name}" for name in (*FOLDING, "validation", "order", "duplicates")),
        "on training images that are read from a folder",
        _trains_on_disk,
    ),
    (tuple(f"data.{name}" for name in FOLDING), "without test_dataset", lambda config, _: config.test_dataset is None),
    (
        ("data.duplicates",),
        "where the test images are read from a folder, too",
        lambda config, _: _is_read(config.test_dataset or config.dataset),
    ),
    (
        ("data.validation",),
        "where there is neither an official validation part nor a fold for it",
        lambda config, _: config.root is None or cuts_validation(config),
    ),
    (("data.no_face",), "unless data.faces is whole", lambda config, _: config.data.faces != "whole"),
    (("augment.grayscale", "augment.saturation"), "on colour images, with data and augment.channels of 3", _colour),
    (("augment.erasing_area",), "with augment.erasing above 0", lambda config, _: config.augment.erasing > 0),
    (
        ("optimiser.momentum", "optimiser.nesterov"),
        "with optimiser.name sgd",
        lambda config, _: config.optimiser.name == "sgd",
    ),
    (("optimiser.betas",), "with optimiser.name adam or adamw", lambda config, _: config.optimiser.name != "sgd"),
    (
        ("schedule.step_epochs", "schedule.factor"),
        "with schedule.name step",
        lambda config, _: config.schedule.name == "step",
    ),
    (("schedule.floor",), "with schedule.name cosine", lambda config, _: config.schedule.name == "cosine"),
    (("hardware.sync_batchnorm",), "with several processes (torchrun)", lambda *_: started_by_torchrun()),
    (("schedule.decay",), "with schedule.name inverse", lambda config, _: config.schedule.name == "inverse"),
)
# Keys whose value is a mapping by name -> the names that this run reads.
_READ: dict[str, Callable[[RunConfig, Plan], tuple[str, ...]]] = {
    "objective.options": lambda _, plan: (plan.classifier, *plan.auxiliary),
    "objective.extra": lambda config, _: (config.loss,),
    "data.options": lambda config, _: tuple(filter(None, (config.dataset, config.test_dataset))),
}


def settings_read(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, its mappings without the losses and datasets that it does not use."""
    values, plan = to_dict(config), plan_losses(config)
    for mapping, names in _READ.items():
        group, _, key = mapping.partition(".")
        read = names(config, plan)
        values[group][key] = {name: value for name, value in values[group][key].items() if name in read}
    return values


def refuse_idle(
    config: RunConfig,
    arguments: list[str],
    recipe: dict[str, Any],
    file: dict[str, Any],
    others: Sequence[RunConfig] = (),
) -> None:
    """Refuse options of the command line and of a configuration file that do nothing.

    What a recipe sets is its own affair. A file may be a run's config.yaml, which has every key: there those count
    whose value is neither the recipe's nor the default. Of several runs, an option need act in one.

    Raises:
        InputError: the first such option, and when it would do something.
    """
    planned = [(each, plan_losses(each)) for each in (config, *others)]
    for key in (*given_keys(arguments), *_of_file(recipe, file)):
        whys = [_why_idle(key, each, plan) for each, plan in planned]
        if all(whys):
            raise InputError(whys[0])


def _why_idle(key: str, config: RunConfig, plan: Plan) -> str | None:
    for keys, when, acts in _ACT:
        if key in keys and not acts(config, plan):
            return f"{key} does nothing in this run; it acts {when}"
    mapping, name = ".".join(key.split(".")[:2]), ".".join(key.split(".")[2:3])
    if name and mapping in _READ and name not in (names := _READ[mapping](config, plan)):
        return f"{mapping}.{name} does nothing in this run, which reads those of {', '.join(names)}"
    return None


def given_keys(arguments: list[str]) -> Iterator[str]:
    """The keys given as --key VALUE or --key=VALUE, where a value may be a mapping of further keys."""
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        if argument.startswith("--"):
            key, equals, value = argument[2:].partition("=")
            try:
                given = read_yaml(value if equals else following)
            except ValueError:
                given = None  # a value that is no YAML, such as a path
            yield from (name for name, _ in leaves(given, key))


def _of_file(recipe: dict[str, Any], file: dict[str, Any]) -> Iterator[str]:
    """The keys whose value in the file is not what they would have without it."""
    without = dict(leaves(to_dict(resolve(config_parser(), [], [recipe])[0])))
    return (key for key, value in leaves(file) if key not in without or without[key] != value)
