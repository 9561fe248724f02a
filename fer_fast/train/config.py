"""The configuration of a run: dataclasses with their defaults, recipe files, and how they are laid over each other."""

import functools
import json
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from fer_fast.data.augment import AugmentConfig
from fer_fast.data.opened import Reading
from fer_fast.errors import InputError
from fer_fast.suggest import one_of
from fer_fast.train.nested import difference, lay_over, leaves, placed, read_yaml, write_yaml
from fer_fast.train.option_errors import one_line
from fer_fast.train.papers import Recipe, find_recipe
from fer_fast.train.schedule import ScheduleConfig

RECIPES: dict[str, str] = {
    "quick": "generated faces on a CPU in one to two minutes",
    "variant": "softmax + variant loss, ResNet-18 (Pham et al. 2023)",
    "weighted-cluster": "weighted softmax + weighted-cluster loss, SE-ResNet-50 (Ngo & Yoon 2020)",
    "ad-corre": "softmax + Ad-Corre over k embeddings, Xception (Fard & Mahoor 2022)",
    "lmcl": "large-margin cosine loss on 512 nodes, ResNet-50 (Lu & Wu 2022)",
    "ecan": "softmax + ENSC + MVA, momentum encoder, memory bank, ResNet-18 (Zhu et al. 2022)",
    "speedrun": "FER2013 against the clock on a GPU: softmax, ResNet-18, ten views at test",
}


@dataclass
class DataConfig(Reading):
    """How images are read and drawn.

    Args:
        options: further options by dataset name, e.g. {faces: {samples: 4000}}; one value, or one for each of
            train, val and test.
        fourteen_fold: expand the training images to the 14-fold set of the variant-loss paper.
        balanced: draw every class equally often in an epoch.
    """

    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    fourteen_fold: bool = False
    balanced: bool = False


@dataclass
class ModelConfig:
    """The network around the backbone.

    Args:
        stem: standard, small (ResNets on images around 48 pixels), or auto: small for a ResNet on up to 64 pixels.
        weights: a local file of backbone weights to start from: .safetensors, a state dict of torch.save, a pickle of
            numpy arrays as VGGFace2's, or the checkpoint of an earlier run. A stem for colour is summed for gray.
        geometry: standard, caffe (as VGGFace2's networks were trained: the stride of a stage in its first convolution,
            max-pool rounded up without padding, BGR input), or auto: the one of the weights.
        frozen_stages: how many stages of a ResNet stay as they are.
        nodes: width of an extra linear layer between backbone and head; 0 leaves it out.
        embeddings: k of the k-embedding head; 0 takes the number of classes.
        embedding_dim: width of each embedding.
        dropout: dropout before the classifier of the k-embedding head.
        projection_dim: width of the normalised projection for contrastive losses.
        key_momentum: m of the key encoder, θ_k ← m·θ_k + (1 - m)·θ_q.
        bank_groups: memory bank size in batches.
    """

    stem: Literal["standard", "small", "auto"] = "standard"
    weights: str | None = None
    geometry: Literal["auto", "standard", "caffe"] = "auto"
    frozen_stages: int = 0
    nodes: int = 0
    embeddings: int = 0
    embedding_dim: int = 256
    dropout: float = 0.5
    projection_dim: int = 128
    key_momentum: float = 0.999
    bank_groups: int = 16

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "projection_dim", "bank_groups"):
            _check(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "1 or more")
        for name in ("frozen_stages", "nodes", "embeddings"):
            _check(getattr(self, name) >= 0, f"model.{name}", getattr(self, name), "0 or more")
        _check(0 <= self.dropout < 1, "model.dropout", self.dropout, "at least 0 and below 1")
        _check(0 <= self.key_momentum < 1, "model.key_momentum", self.key_momentum, "at least 0 and below 1")


@dataclass
class ObjectiveConfig:
    """How the losses add up: classifier_weight · classifier + weight · loss + Σ extra weight · extra loss.

    Args:
        classifier: the classifier beside an auxiliary loss; null takes the one of its paper.
        classifier_weight: weight of the classifier; null takes the paper's: 1, or what a
            contrastive loss leaves, 1 - weight.
        weight: weight of the auxiliary loss; null takes the paper's.
        extra: further auxiliary losses and their weights by the name of the loss they go with, e.g. {ensc: {mva: 0.7}}.
        options: constructor keywords by loss name, e.g. {lmcl: {s: 30, m: 0.35}}.
    """

    classifier: str | None = None
    classifier_weight: float | None = None
    weight: float | None = None
    extra: dict[str, dict[str, float]] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class OptimiserConfig:
    """The optimiser.

    Args:
        name: sgd, adam or adamw.
        rate: base learning rate.
        momentum: momentum of sgd.
        nesterov: Nesterov momentum for sgd.
        betas: the two betas of adam and adamw.
        weight_decay: weight decay of the encoder.
        head_weight_decay: weight decay of the classifier (margin layer); null takes weight_decay.
        clip: largest norm of the gradient; 0 does not clip.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    rate: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    head_weight_decay: float | None = None
    clip: float = 0.0

    def __post_init__(self) -> None:
        _check(self.rate > 0, "optimiser.rate", self.rate, "above 0")
        _check(0 <= self.momentum < 1, "optimiser.momentum", self.momentum, "at least 0 and below 1")
        _check(all(0 <= beta < 1 for beta in self.betas), "optimiser.betas", self.betas, "at least 0 and below 1")
        decays = (self.weight_decay, self.head_weight_decay or 0.0, self.clip)
        _check(min(decays) >= 0, "optimiser.weight_decay, head_weight_decay or clip", min(decays), "0 or more")
        _check(self.momentum > 0 or not self.nesterov, "optimiser.nesterov", True, "false without momentum")


@dataclass
class HardwareConfig:
    """Where and how the arithmetic runs.

    Args:
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps.
        precision: float32, bfloat16 (autocast), float16 (autocast with a gradient scaler; CUDA only), or auto: bfloat16
            where the device computes in it, else float32.
        channels_last: keep images and weights in channels-last order; much faster on CPUs and on tensor cores.
        compile: graph replays whole steps from a CUDA graph; network compiles the network by TorchInductor as well, for
            long runs; none does neither; auto is graph on a CUDA device, float16, virtual batches and several
            processes apart, else none.
        sync_batchnorm: of several processes (torchrun): BatchNorm by mean and variance of the images of all, so that
            they learn what one would; false takes those of each process's own, without waiting for the others, and
            evaluates with the mean of what they gathered.
    """

    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = True
    compile: Literal["auto", "none", "graph", "network"] = "auto"
    sync_batchnorm: bool = True


@dataclass
class RunConfig:
    """Everything that decides a training run.

    Args:
        recipe: the recipe the run started from: a file of the package, or a row of a paper's table, e.g.
            variant/8/resnet18-softmax.
        dataset: name of the dataset.
        root: folder of the dataset; generated faces need none.
        test_dataset: another dataset to report on, by classes of the same names; null reports on the dataset's own test
            split. Its test part is used where it has one, else all of it.
        test_root: folder of that dataset.
        backbone: name of the backbone.
        loss: name of the loss; an auxiliary loss brings its classifier along.
        epochs: passes over the training images.
        iterations: end after so many optimiser steps if that comes before the last epoch; 0 for no such limit.
        batch_size: images a step of the network, those of all processes together.
        virtual_batch: batches whose outputs meet in one loss, as Ad-Corre's paper does with 1, 5 and 10; memory stays
            that of one, for a second forward pass.
        accumulate: losses whose gradients make one optimiser step.
        select: best reports the epoch with the best validation accuracy, last the last one.
        ema: decay of averaged weights used for evaluation, e.g. 0.999; 0 for none.
        seed: seed of weights, order, augmentation and the validation cut.
        data: how images are read.
        model: the network around the backbone.
        objective: how the losses add up.
        augment: random changes of the images and their normalisation.
        optimiser: the optimiser.
        schedule: the learning rate over time.
        hardware: where and how the arithmetic runs.
    """

    recipe: str = "quick"
    dataset: str = "faces"
    root: str | None = None
    test_dataset: str | None = None
    test_root: str | None = None
    backbone: str = "resnet18"
    loss: str = "softmax"
    epochs: int = 10
    iterations: int = 0
    batch_size: int = 64
    virtual_batch: int = 1
    accumulate: int = 1
    select: Literal["best", "last"] = "best"
    ema: float = 0.0
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        for name in ("epochs", "virtual_batch", "accumulate"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _check(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more (BatchNorm needs two)")
        _check(self.iterations >= 0, "iterations", self.iterations, "0 or more")
        _check(0 <= self.ema < 1, "ema", self.ema, "at least 0 and below 1")
        _check(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2^63 - 1")
        _row(self.recipe)

    @property
    def loss_batch(self) -> int:
        """Images one loss sees."""
        return self.batch_size * self.virtual_batch


def config_parser(**keywords: Any) -> ArgumentParser:
    """A parser with one option per field of `RunConfig`, nested fields as --group.field."""
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, **keywords)
    parser.add_class_arguments(RunConfig, nested_key=None)
    return parser


def resolve(parser: ArgumentParser, arguments: list[str], layers: list[dict[str, Any]]) -> tuple[RunConfig, Namespace]:
    """Lay the defaults, the given layers and the command-line arguments over each other, later ones winning.

    An argument below a mapping (--objective.options.lmcl.s 20) leaves what else the mapping holds.

    Returns the configuration and whatever options of the parser are not part of it.

    Raises:
        InputError: an unknown key, a value of the wrong type or out of range.
    """
    arguments, below = _split_mappings(arguments)
    merged = functools.reduce(lay_over, map(_renamed, layers), {})
    merged = functools.reduce(lambda values, item: placed(values, *item), below.items(), merged)
    of_command = {action.dest for action in parser._actions} - {*RunConfig.__dataclass_fields__}
    if foreign := [key for key in merged if key in of_command and "." not in key]:
        raise InputError(f"{foreign[0]} is no key of a configuration; give it as an option, --{foreign[0]}")
    try:
        values = parser.parse_args(arguments, namespace=parser.parse_object(merged))
        _check_whole(values)
        return build(parser, values), values
    except ArgumentError as error:
        raise InputError(one_line(error, parser)) from None
    except (TypeError, RecursionError) as error:
        raise InputError(f"the configuration does not hold together: {error}") from None


def build(parser: ArgumentParser, values: Namespace) -> RunConfig:
    """The dataclasses of parsed values."""
    filled = parser.instantiate(values)
    return RunConfig(**{name: filled[name] for name in RunConfig.__dataclass_fields__})


def from_dict(values: dict[str, Any]) -> RunConfig:
    """The configuration stored in a checkpoint or a config.yaml."""
    return resolve(config_parser(), [], [values])[0]


def recipe_layer(name: str) -> dict[str, Any]:
    """What a recipe sets: a file of the package, or a row of a paper's table laid over its paper's file."""
    row = _row(name)
    file = resources.files("fer_fast.train").joinpath("recipes", f"{row.base if row else name}.yaml")
    base = {"recipe": name, **read_yaml(file.read_text(encoding="utf-8"))}
    return lay_over(base, row.settings) if row else base


def _row(recipe: str) -> Recipe | None:
    """The row of a paper's table that a recipe names, or None for a file of the package.

    Raises:
        InputError: neither, or no name.
    """
    if not isinstance(recipe, str):
        raise InputError(f"recipe is {recipe}; it is one name")
    if "/" in recipe:
        return find_recipe(recipe)
    one_of(recipe, RECIPES, "recipe")
    return None


def file_layer(path: str | Path) -> dict[str, Any]:
    """The contents of a user's configuration file.

    Raises:
        InputError: the file cannot be read or is not a YAML mapping.
    """
    try:
        values = read_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the configuration {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a YAML mapping of configuration keys, not {type(values).__name__}")
    return values


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain YAML and JSON values."""
    return _plain(asdict(config))


def to_yaml(config: RunConfig) -> str:
    """The text of config.yaml, which can be given back with --config."""
    return write_yaml(to_dict(config))


def changed(stored: dict[str, Any], config: RunConfig) -> str | None:
    """The first key in which a run begun with the stored configuration cannot be resumed with another, or None.

    A folder of data may have moved (digests tell whether it is the same), and what was "auto" may have been settled.
    """
    # Through the dataclasses, so that a field added since the run began compares by its default.
    began, wanted = to_dict(from_dict(stored)), to_dict(config)
    if config.model.geometry == "auto":
        wanted["model"]["geometry"] = began["model"]["geometry"]
    return difference(began, {**wanted, "root": began["root"], "test_root": began["test_root"]})


def _renamed(layer: dict[str, Any]) -> dict[str, Any]:
    """A layer in which `augment.five_crop`, as earlier versions wrote it, is `augment.crops`."""
    augment = layer.get("augment")
    if not isinstance(augment, dict) or "five_crop" not in augment:
        return layer
    rest = {key: value for key, value in augment.items() if key != "five_crop"}
    return {**layer, "augment": {"crops": 5 if augment["five_crop"] else 1, **rest}}


def _split_mappings(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Arguments without those below a mapping, and the values of these by their keys."""
    mappings = tuple(key for key, value in leaves(to_dict(RunConfig())) if value == {})
    rest, below, left = [], {}, iter(arguments)
    for argument in left:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not key.startswith(tuple(f"{mapping}." for mapping in mappings)):
            rest.append(argument)
            continue
        text = value if equals else next(left, None)
        if text is None:
            raise InputError(f"--{key}: expected a value")
        try:
            below[key] = read_yaml(text)
        except ValueError:
            raise InputError(f"--{key}: {text!r} is no value") from None
    for mapping in mappings:
        if f"--{mapping}" in rest and any(key.startswith(f"{mapping}.") for key in below):
            raise InputError(f"--{mapping} is given as a whole and by keys; give it in one way")
    return rest, below


def _check_whole(values: Namespace) -> None:
    """Refuse what the parser lets pass: a null for what needs a value, one value for a group of keys."""
    for key, default in leaves(to_dict(RunConfig())):
        group, dot, _ = key.partition(".")
        if dot and not isinstance(values[group], Namespace):
            raise InputError(f"{group} is {json.dumps(values[group])}; it holds keys, such as {key}")
        if values[key] is None and default is not None:
            raise InputError(f"{key} is null; it needs a value")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _check(holds: bool, name: str, value: Any, allowed: str) -> None:
    if not holds:
        raise InputError(f"{name} is {value}; allowed: {allowed}")
