"""The papers' tables: their numbers hold together, and every row that is trained can be."""

from dataclasses import fields, is_dataclass, replace
from itertools import chain

import numpy
import pytest
import yaml

from fer_fast.errors import InputError
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.config import (
    RunConfig,
    config_parser,
    from_dict,
    lay_over,
    leaves,
    recipe_layer,
    resolve,
    to_dict,
    to_yaml,
)
from fer_fast.train.idle import refuse_idle
from fer_fast.train.network_size import embedding_sizes
from fer_fast.train.objective import plan_losses
from fer_fast.train.paper_runs import comparable, same_run, settled
from fer_fast.train.papers import PAPERS, find_recipe, load_paper
from fer_fast.train.preflight import check_model
from tiny_backbone import TINY

RECIPES = {name: recipe for paper in PAPERS for name, recipe in load_paper(paper).recipes.items()}
# Table 1 of the variant-loss paper, in the order of its other tables.
IMAGES = {
    "3": (135, 54, 177, 75, 207, 84, 249),
    "5": (240, 240, 240, 240, 240, 240),
    "7": (99, 96, 84, 126, 96, 123),
}
CONFUSIONS = [f"variant/{label}" for label in ("3", "5", "7", "9")]


def numbers(table):
    """Title of a row -> published numbers."""
    paper, _, label = table.partition("/")
    return {title: [cell.published for cell in cells] for title, cells in load_paper(paper).tables[label].rows.items()}


def columns(table):
    return list(zip(*numbers(table).values(), strict=True))


def resolved(name):
    return resolve(config_parser(), [], [recipe_layer(name)])[0]


# Numbers


@pytest.mark.parametrize(
    ("table", "sums"),
    [
        ("variant/2", [446.02, 439.00, 457.57, 422.50, 452.46, 435.90]),
        ("variant/4", [357.84, 330.89, 371.02, 345.83, 367.42, 340.45]),
        ("variant/6", [301.98, 293.07, 308.15, 293.23, 322.09, 278.95]),
        ("variant/8", [294.45, 284.49, 281.44, 297.73, 274.60, 303.55]),
        ("weighted-cluster/5", [545.58, 525.24, 480.68, 475.88, 621.46, 901.89]),
        ("weighted-cluster/6", [545.02, 527.41, 480.03, 475.17, 617.32, 900.06]),
        ("lmcl/2", [479.50, 481.47, 479.24, 482.82, 475.66, 465.88, 456.52, 438.79, 385.83]),
        ("ecan/2", [172.49, 174.67, 177.74, 125.55, 142.88, 146.06]),
        ("ad-corre/10", [139.73, 168.06, 118.35]),
    ],
)
def test_columns_add_up(table, sums):
    assert [sum(column) for column in columns(table)] == pytest.approx(sums)


@pytest.mark.parametrize("table", CONFUSIONS)
def test_rows_of_a_confusion_matrix_are_whole(table):
    wrong = {title: sum(row) for title, row in numbers(table).items() if abs(sum(row) - 100) > 0.15}
    assert wrong == ({"Fe": pytest.approx(110.1)} if table == "variant/5" else {})


@pytest.mark.parametrize(("label", "accuracy"), [("3", 94.89), ("5", 77.61), ("7", 67.43)])
def test_confusion_matrices_have_the_accuracy_of_their_run(label, accuracy):
    diagonal = [row[i] for i, row in enumerate(numbers(f"variant/{label}").values())]
    counts = IMAGES[label]
    assert numpy.average(diagonal, weights=counts) == pytest.approx(accuracy, abs=0.4)
    recipe = RECIPES[f"variant/{label}"]
    cells = chain.from_iterable(load_paper("variant").tables[str(int(label) - 1)].rows.values())
    assert [c.published for c in cells if c.recipe.name in same_run(load_paper("variant"), recipe)] == [accuracy]


def test_kappa_follows_from_accuracy_where_eight_classes_are_equally_large():
    for accuracy, _, kappa, *_ in chain(numbers("weighted-cluster/5").values(), numbers("weighted-cluster/6").values()):
        assert kappa == pytest.approx((accuracy - 12.5) / 87.5 * 100, abs=0.03)


@pytest.mark.parametrize("table", ["ad-corre/5", "ad-corre/6", "ad-corre/7"])
def test_f1_follows_from_precision_and_recall(table):
    for precision, recall, f1 in columns(table):
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall), abs=0.03)


def test_ecan_quotes_the_mean_f1_of_ad_corre():
    for ours, quoted in (("ad-corre/6", numbers("ecan/4")), ("ad-corre/7", numbers("ecan/5"))):
        f1 = numbers(ours)["F1-score"]
        assert sum(f1) / 700 == pytest.approx(quoted["Ad-Corre"][-1], abs=1e-4)


def test_the_average_of_custom_classes():
    *classes, average = (row[0] for row in numbers("lmcl/3").values())
    assert (len(classes), round(sum(classes) / 11, 2)) == (11, average) == (11, 88.18)


def test_runs_that_several_tables_print_have_one_number():
    for paper in map(load_paper, PAPERS):
        cells = [c for table in paper.tables.values() for row in table.rows.values() for c in row if c.recipe]
        for name, recipe in paper.recipes.items():
            twins = same_run(paper, recipe)
            if name == twins[0]:
                accuracies = {c.published for c in cells if c.recipe.name in twins and c.metric == "accuracy"}
                assert len(accuracies) <= 1, twins


def test_iterations_are_those_of_table_10():
    of_datasets = {"ckplus": 0, "oulu-casia": 1, "mmi": 2, "fer2013": 3}
    paper = load_paper("variant")
    for recipe in paper.recipes.values():
        layer = recipe_layer(recipe.name)
        title = {
            **{"alexnet": "AlexNet", "googlenet": "InceptionNet", "resnet18": "ResNet"},
            **{"densenet121": "DenseNet", "mobilenetv3": "MobileNetV3", "resnest50": "ResNeSt"},
        }[layer["backbone"]]
        assert layer["iterations"] == numbers("variant/10")[f"{title}, iterations"][of_datasets[layer["dataset"]]]


def test_epochs_do_not_end_before_the_iterations():
    training = {
        "ckplus": 981 * 0.7,
        "oulu-casia": 1440 * 0.8,
        "mmi": 624 * 0.7,
        "fer2013": 28709,
    }  # a fold may be large
    for recipe in load_paper("variant").recipes.values():
        layer = recipe_layer(recipe.name)
        steps = training[layer["dataset"]] * 14 / layer["batch_size"]
        assert layer["epochs"] * steps > layer["iterations"]


def test_sizes_of_networks_are_the_papers():
    config = resolved("ad-corre")
    sizes = embedding_sizes(config, (0, 1, 3, 7, 10))
    parameters, operations = columns("ad-corre/11")
    assert tuple(sizes["parameters"].values()) == parameters
    for ours, theirs in zip(sizes["operations"].values(), operations, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    grown = sizes["operations"]["7"] - sizes["operations"]["0"]
    assert grown == 2048 * 7 * 256 + 7 * 256 * 7


# Recipes


def test_every_row_is_there():
    counts = {paper: len(load_paper(paper).recipes) for paper in PAPERS}
    assert counts == {
        "variant": 4 * 30 + 4,
        "weighted-cluster": 20,
        "ad-corre": 6 + 5 + 3 + 4 + 6,
        "lmcl": 45 + 1,
        "ecan": 12 + 5 + 2 + 2,
    }
    assert {"variant/8/resnet18-softmax", "variant/9", "weighted-cluster/5/model-10", "lmcl/2/s30-m0.36"} <= {*RECIPES}
    assert {"ecan/2/rafdb-strong-ecan", "ad-corre/figure-6/lambda-0.1", "ad-corre/10/rafdb-ad-corre"} <= {*RECIPES}


def test_every_row_makes_a_configuration_whose_losses_fit_together():
    for name in RECIPES:
        config = built(RunConfig, lay_over(to_dict(RunConfig()), recipe_layer(name)))
        assert config.recipe == name
        assert comparable(to_dict(config)) == settled(name)
        assert plan_losses(config).auxiliary or config.loss in ("softmax", "weighted-softmax", "lmcl")


def built(cls, values):
    """A dataclass of dataclasses, with their checks, without the parser, which takes its time."""
    kinds = {field.name: field.default_factory for field in fields(cls)}
    return cls(**{k: built(kinds[k], v) if is_dataclass(kinds[k]) else v for k, v in values.items()})


def test_every_setting_of_every_row_is_one_the_parser_takes():
    parser, seen = config_parser(), set()
    for name, recipe in RECIPES.items():
        settings = {f"{key}={value}" for key, value in leaves({**recipe.settings, "base": recipe.base})}
        if not settings <= seen:
            config, _ = resolve(parser, [], [recipe_layer(name)])
            assert comparable(to_dict(config)) == settled(name)  # what runs are held against, found without the parser
            seen |= settings
    assert len(seen) > 80


def test_every_network_and_every_loss_of_the_rows_can_be_built(monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    networks, losses = {}, {}
    for name in RECIPES:
        config = built(RunConfig, lay_over(to_dict(RunConfig()), recipe_layer(name)))
        networks.setdefault((config.backbone, config.model.frozen_stages), replace(config, loss="softmax"))
        small = replace(config, backbone="tiny", model=replace(config.model, frozen_stages=0))
        losses.setdefault((config.loss, str(config.objective), str(config.model.embeddings)), small)
    for config in (*networks.values(), *losses.values()):
        check_model(config, None)
    assert {backbone for backbone, _ in networks} == {*BACKBONES} - {"tiny"}
    assert {config.loss for config in losses.values()} >= {
        "range",
        "marginal",
        "weighted-cluster",
        "fd",
        "md",
        "supcon",
    }


def test_a_row_is_laid_over_its_papers_recipe():
    config = resolved("weighted-cluster/6/model-19")
    assert (config.backbone, config.loss, config.dataset) == ("resnet50", "center", "affectnet8")
    assert (config.objective.classifier, config.objective.weight) == ("weighted-softmax", 0.5)
    assert (config.model.frozen_stages, config.model.nodes, config.data.validation) == (3, 512, 500)
    assert (config.optimiser.rate, config.optimiser.momentum, config.batch_size) == (0.001, 0.9, 36)
    config = resolved("lmcl/2/s40-m0.48")
    assert config.objective.options == {"lmcl": {"s": 40, "m": 0.48}}
    assert (config.dataset, config.test_dataset) == ("expw", "ckplus")
    assert plan_losses(resolved("ecan/3/center")).auxiliary == {"center": 0.001}  # these two as the table's note says
    assert plan_losses(resolved("ecan/3/supcon")).auxiliary == {"supcon": 0.2}
    assert plan_losses(resolved("ecan/3/ensc")).auxiliary == {"ensc": 0.2}
    assert plan_losses(resolved("ecan/3/mva-ensc")).auxiliary == {"ensc": 0.2, "mva": 0.7}
    plan = plan_losses(resolved("ad-corre/10/rafdb-cross-entropy"))
    assert (plan.shape, plan.auxiliary) == ("embeddings", {"ad-corre": 0})


def test_levels_follow_table_1_of_ecan():
    steps = ("crop_padding", "brightness", "mirror", "rotation", "erasing", "grayscale", "blur", "shear")
    used = {}
    for name, recipe in load_paper("ecan").tables["2"].recipes.items():
        augment = resolved(name).augment
        used[recipe.title.partition(",")[0]] = {step for step in steps if getattr(augment, step)}
        assert (augment.crops == 5) == (tuple(augment.scale) != (1, 1)) == name.startswith("ecan/2/fer2013-strong")
        assert augment.saturation == augment.contrast == augment.brightness
        assert (augment.size, augment.channels) == ((224, 3) if "rafdb" in name else (48, 1))
    weak = {"crop_padding", "mirror", "rotation", "erasing", "grayscale"}
    assert used == {
        "RAF-DB none": set(),
        "RAF-DB weak": {"mirror", "erasing", "grayscale"},
        "RAF-DB strong": weak | {"brightness", "blur"},
        "FER2013 none": set(),
        "FER2013 weak": weak,
        "FER2013 strong": weak | {"brightness", "shear"},
    }


def test_what_only_watches_takes_little_from_training():
    rows = [resolved(name) for name in RECIPES if name.startswith("ad-corre/")]
    assert {(row.select, row.data.validation) for row in rows} == {("last", 0.02)}
    assert "2 % of the training images are set aside" in load_paper("ad-corre").note


def test_what_runs_need_beside_data():
    assert {recipe.folds for name, recipe in RECIPES.items() if name.startswith(("variant/2", "variant/5"))} == {10}
    assert RECIPES["variant/8/alexnet-range"].folds == 0
    weights = {name.split("/")[-1]: recipe.weights for name, recipe in RECIPES.items() if "model-" in name}
    assert [weights[f"model-{i}"] for i in (5, 6, 15, 16)] == [
        None, "VGGFace2's SE-ResNet-50", None, "ImageNet's ResNet-50",
    ]  # fmt: skip
    assert RECIPES["ecan/4/baseline"].weights == "MS-Celeb-1M's ResNet-18"
    assert RECIPES["ecan/5/baseline"].weights is None


def test_a_rows_configuration_can_be_given_back():
    for name in ("lmcl/section-5.1", "ecan/2/rafdb-weak-ecan"):
        config = resolved(name)
        stored = yaml.safe_load(to_yaml(config))
        assert from_dict(stored) == config
        refuse_idle(config, [], recipe_layer(name), stored)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("variant/8/resnet18-sofmax", 'did you mean "variant/8/resnet18-softmax"'),
        ("variant/88/resnet18-softmax", "variant/88' is not one of variant/2, variant/3"),
        ("variant/9/resnet18", 'did you mean "variant/9"'),
        ("varient/8/resnet18-softmax", 'did you mean "variant"'),
        ("variant/10", "variant/10 is not trained"),
        ("variant/", "is not one of variant/2"),
        ("ad-corre/11/3", "ad-corre/11 is not trained"),
    ],
)
def test_unknown_rows_suggest_the_nearest(name, message):
    for find in (find_recipe, recipe_layer, lambda name: from_dict({"recipe": name})):
        with pytest.raises(InputError) as caught:
            find(name)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
