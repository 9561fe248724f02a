"""The configuration of a run: its layers, what is refused, what a file gives back; schedules."""

import dataclasses
import math

import pytest
import yaml

from fer_fast.errors import InputError
from fer_fast.train.config import (
    RECIPES,
    RunConfig,
    config_parser,
    file_layer,
    from_dict,
    recipe_layer,
    resolve,
    to_dict,
    to_yaml,
)
from fer_fast.train.idle import given_keys, settings_read
from fer_fast.train.nested import difference
from fer_fast.train.objective import is_cross_entropy
from fer_fast.train.schedule import ScheduleConfig, rate_factor
from tiny_backbone import configure

# Configuration


def test_later_layers_win():
    config, _ = resolve(
        config_parser(), ["--optimiser.rate", "0.3"], [recipe_layer("ecan"), {"optimiser": {"rate": 1}}]
    )
    assert (config.recipe, config.loss, config.optimiser.rate) == ("ecan", "ensc", 0.3)
    assert (config.optimiser.momentum, config.model.nodes) == (0.9, 0)


@pytest.mark.parametrize("flags", [("--objective.options.lmcl.s", "20"), ("--objective.options.lmcl.s=20",)])
def test_an_option_below_a_mapping_leaves_the_rest_of_it(flags):
    layers = [recipe_layer("quick"), {"loss": "lmcl", "objective": {"options": {"lmcl": {"m": 0.2}, "arcface": {}}}}]
    config, _ = resolve(config_parser(), [*flags, "--data.options.faces.samples=7"], layers)
    assert config.objective.options == {"lmcl": {"m": 0.2, "s": 20}, "arcface": {}}
    assert config.data.options == {"faces": {"num_classes": 8, "samples": 7}}
    assert recipe_layer("quick")["data"]["options"]["faces"]["samples"] != 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--objective.options.lmcl.s",), "--objective.options.lmcl.s: expected a value"),
        (("--objective.options.lmcl.s", "["), r"--objective.options.lmcl.s: '\[' is no value"),
        (("--objective.options.lmcl.s", "&x [*x]"), r"'&x \[\*x\]' is no value"),
        (("--objective.options", "{}", "--objective.options.lmcl.s=1"), "as a whole and by keys"),
    ],
)
def test_bad_options_below_a_mapping_say_so(flags, message):
    with pytest.raises(InputError, match=message):
        resolve(config_parser(), list(flags), [recipe_layer("quick")])


@pytest.mark.parametrize("word", ["2026-13-45", "2026-02-30", "2026-02-03", "0x_", "0b_", "1e5", "[", "*x"])
def test_a_folder_may_be_called_like_a_date_or_a_number(word, tmp_path):
    config, _ = resolve(config_parser(), ["--root", word], [])
    assert config.root == word
    assert [*given_keys(["--root", word, f"--out={word}"])] == ["root", "out"]
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert from_dict(file_layer(tmp_path / "config.yaml")) == config


def test_a_number_with_an_exponent_is_one_below_a_mapping():
    config, _ = resolve(config_parser(), ["--objective.options.lmcl.m", "1e-3"], [])
    assert config.objective.options == {"lmcl": {"m": 0.001}}


def test_a_mapping_is_one_value():
    layers = [recipe_layer("quick"), {"data": {"options": {"faces": {"samples": 7}}}}]
    config, _ = resolve(config_parser(), [], layers)
    assert config.data.options == {"faces": {"samples": 7}}
    assert config.data.image_size == 48


@pytest.mark.parametrize(("old", "crops"), [(True, 5), (False, 1)])
def test_five_crop_of_earlier_versions_is_crops(old, crops, tmp_path):
    assert from_dict({"augment": {"five_crop": old, "size": 32}}).augment.crops == crops
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"recipe": "ecan", "augment": {"five_crop": old}}))
    assert resolve(config_parser(), [], [recipe_layer("ecan"), file_layer(path)])[0].augment.crops == crops


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_resolved_configuration_can_be_given_back(recipe):
    config = configure("--optimiser.betas", "[0.8, 0.9]", recipe=recipe)
    stored = yaml.safe_load(to_yaml(config))
    assert from_dict(stored) == config
    assert resolve(config_parser(), [], [recipe_layer(recipe), stored])[0] == config
    assert stored == to_dict(config)
    assert {*stored} == {field.name for field in dataclasses.fields(RunConfig)}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--optimiser.rat", "1"], "unknown option --optimiser.rat (did you mean --optimiser.rate?)"),
        (["--epochs", "many"], "epochs"),
        (["--epochs", "0"], "epochs is 0; allowed: 1 or more"),
        (["--batch_size", "1"], "batch_size is 1; allowed: 2 or more"),
        (["--schedule.name", "cosin"], "schedule.name"),
        (["--augment.mirror", "2"], "mirror is 2"),
        (["--optimiser.nesterov", "true", "--optimiser.momentum", "0"], "nesterov"),
        (["--recipe", "quik"], "quick"),
        (["surplus"], "surplus"),
    ],
)
def test_bad_configurations_are_one_line(flags, message):
    with pytest.raises(InputError) as caught:
        configure(*flags)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_keys_of_a_file_are_named():
    with pytest.raises(InputError, match=r"optimiser\.rat .did you mean optimiser\.rate"):
        resolve(config_parser(), [], [{"optimiser": {"rat": 1}}])


def test_difference_names_the_first_key():
    one, other = to_dict(configure()), to_dict(configure("--optimiser.rate", "0.5"))
    assert difference(one, one) is None
    assert difference(one, other) == f"optimiser.rate was {one['optimiser']['rate']} and is now 0.5"


# Schedules


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ScheduleConfig("constant"), [1, 1, 1, 1, 1, 1, 1, 1]),
        (ScheduleConfig("step", step_epochs=2, factor=0.1), [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1]),
        (ScheduleConfig("cosine", floor=0.2), [0.2 + 0.8 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(8)]),
        (ScheduleConfig("inverse", decay=0.5), [1, 1 / 1.5, 1 / 2, 1 / 2.5, 1 / 3, 1 / 3.5, 1 / 4, 1 / 4.5]),
        (ScheduleConfig("constant", warmup_epochs=2), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        (
            ScheduleConfig("cosine", warmup_epochs=2),
            [0.25, 0.5, 0.75, 1, 1, 0.5 + math.sqrt(2) / 4, 0.5, 0.5 - math.sqrt(2) / 4],
        ),
    ],
)
def test_schedule(config, expected):
    assert [rate_factor(config, step, 2, 8) for step in range(8)] == pytest.approx(expected)


def test_a_page_shows_the_options_of_what_a_run_uses():
    options = {"objective": {"options": {"lmcl": {"s": 20}, "softmax": {}}}}
    options["data"] = {"options": {"faces": {"samples": 9}, "fer2013": {"joined": False}}}
    config = resolve(config_parser(), ["--loss", "lmcl"], [options])[0]
    shown, whole = settings_read(config), to_dict(config)
    assert shown["objective"].pop("options") == {"lmcl": {"s": 20}}
    assert shown["data"].pop("options") == {"faces": {"samples": 9}}
    assert shown["objective"].pop("extra") == {}
    for group, key in (("objective", "options"), ("objective", "extra"), ("data", "options")):
        del whole[group][key]
    assert shown == whole


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        (["--loss", "softmax"], True),
        (["--loss", "lmcl"], False),
        (["--loss", "weighted-softmax"], False),
        (["--loss", "center"], False),
        (["--loss", "softmax", "--objective.options.softmax.label_smoothing", "0.1"], False),
        (["--loss", "softmax", "--objective.classifier_weight", "2"], False),
    ],
)
def test_which_runs_minimise_what_validation_measures(arguments, same):
    assert is_cross_entropy(resolve(config_parser(), arguments, [])[0]) is same
