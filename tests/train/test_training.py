"""Training: the model shapes, every loss, accumulation, averaged weights, the key encoder."""

import copy
import dataclasses
import math

import pytest
import torch

from fer_fast.data.dataset import FaceDataset
from fer_fast.data.labels import CLASSES
from fer_fast.errors import InputError
from fer_fast.registry import available
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.config import (
    RECIPES,
)
from fer_fast.train.evaluation import loss_and_accuracy, match_classes, predict
from fer_fast.train.loop import Trainer
from fer_fast.train.models import move_towards
from fer_fast.train.objective import class_weights, plan_losses
from fer_fast.train.progress import LineProgress
from tiny_backbone import SIDE, TINY, configure


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)


def faces(count=24, classes=3, channels=1, seed=0):
    """Images whose class is their brightness, in random order."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(count) % classes)[torch.randperm(count, generator=generator)]
    noise = torch.randint(0, 40, (count, channels, SIDE, SIDE), generator=generator)
    images = (noise + labels.view(-1, 1, 1, 1) * 70).to(torch.uint8)
    return FaceDataset(images, labels, CLASSES[:classes], "train")


def fitted(config, train=None, val=None):
    trainer = Trainer(config, train or faces(), val or faces(12, seed=1))
    trainer.fit(LineProgress(), lambda: None)
    return trainer


# Losses and shapes


@pytest.mark.parametrize("row", available(), ids=lambda row: row.name)
def test_every_loss_trains_and_moves_everything(row):
    trainer = Trainer(configure("--loss", row.name), faces(), faces(12, seed=1))
    before = {name: value.clone() for name, value in trainer.learner.state_dict().items()}
    trainer.fit(LineProgress(), lambda: None)
    assert all(math.isfinite(row[key]) for row in trainer.history for key in ("train_loss", "val_loss"))
    trained = {name for name, parameter in trainer.learner.named_parameters() if parameter.requires_grad}
    unmoved = {name for name in trained if torch.equal(before[name], trainer.learner.state_dict()[name])}
    assert not unmoved


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 1), ("mobilenetv3", 3)])
def test_every_recipe_trains_a_real_backbone(recipe, backbone, channels):
    flags = (
        "--backbone",
        backbone,
        "--augment.channels",
        str(channels),
        "--augment.mean",
        "0.5",
        "--augment.deviation",
        "0.25",
    )
    config = configure(*flags, "--epochs", "1", recipe=recipe)
    config.model.bank_groups = 2
    trainer = fitted(config, faces(8, channels=channels), faces(4, channels=channels, seed=1))
    assert math.isfinite(trainer.history[0]["train_loss"])


def test_plans_follow_the_papers():
    plans = {name: plan_losses(configure("--loss", name)) for name in ("variant", "weighted-cluster", "ad-corre")}
    assert (plans["variant"].classifier, plans["variant"].auxiliary) == ("softmax", {"variant": 0.001})
    assert plans["weighted-cluster"].classifier == "weighted-softmax"
    assert (plans["ad-corre"].shape, plans["ad-corre"].auxiliary) == ("embeddings", {"ad-corre": 0.5})
    ecan = plan_losses(configure(recipe="ecan"))
    assert (ecan.classifier_weight, ecan.auxiliary, ecan.shape) == (0.8, {"ensc": 0.2, "mva": 0.7}, "two-views")
    assert plan_losses(configure("--loss", "softmax", recipe="ecan")).auxiliary == {}


def test_a_contrastive_loss_shares_its_weight_with_the_classifier():
    """ECAN, equation 11: (1 - λ₁) · CE + λ₁ · ENSC."""
    assert plan_losses(configure("--objective.weight", "0.25", recipe="ecan")).classifier_weight == 0.75
    both = ("--objective.weight", "0.25", "--objective.classifier_weight", "0.5")
    assert plan_losses(configure(*both, recipe="ecan")).classifier_weight == 0.5
    with pytest.raises(InputError, match=r"objective.weight is 1\.5, which leaves nothing"):
        plan_losses(configure("--objective.weight", "1.5", recipe="ecan"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--loss", "varient"], "variant"),
        (["--loss", "variant", "--objective.classifier", "center"], "not a classifier"),
        (["--objective.extra", "{softmax: {lmcl: 1}}"], "a classifier"),
        (["--loss", "ad-corre", "--objective.extra", "{ad-corre: {ensc: 1}}"], "different model shapes"),
        (["--loss", "lmcl", "--objective.options", "{lmcl: {margin: 1}}"], "objective.options.lmcl"),
        (["--loss", "lmcl", "--objective.options", "{lmcl: {s: -1}}"], "objective.options.lmcl"),
        (["--loss", "arcface", "--objective.options", "{arcface: {m: 28.6}}"], "m: 28.6 given; allowed are radians"),
        (["--hardware.device", "abacus"], "abacus"),
        (["--hardware.precision", "float16", "--hardware.device", "cpu"], "float16"),
    ],
)
def test_what_cannot_be_built_says_why(flags, message):
    with pytest.raises(InputError, match=message):
        Trainer(configure(*flags), faces(), faces(12, seed=1))


def test_k_embeddings_are_unit_rows_one_for_each_class():
    trainer = Trainer(configure("--loss", "ad-corre"), faces(), faces(12, seed=1))
    outputs = trainer.learner.recogniser.encoder.eval()(torch.randn(5, 1, SIDE, SIDE))
    assert outputs.embeddings.shape == (3, 5, 256)
    torch.testing.assert_close(outputs.embeddings.norm(dim=2), torch.ones(3, 5))
    torch.testing.assert_close(outputs.features, torch.cat(list(outputs.embeddings), dim=1))


def test_nodes_set_the_width_of_the_features():
    trainer = fitted(configure("--model.nodes", "3", "--loss", "lmcl"))
    features, scores = predict(trainer.learner.recogniser, faces().images, trainer.config.augment, trainer.hardware)
    assert features.shape == (24, 3)
    torch.testing.assert_close(scores.sum(1), torch.ones(24))


def test_class_weights_are_n_min_over_n_k():
    assert class_weights(torch.tensor([4, 2, 0, 8])).tolist() == [0.5, 1.0, 1.0, 0.25]


# The loop


def test_training_learns():
    trainer = fitted(configure("--epochs", "12", "--optimiser.rate", "0.02"), faces(48))
    assert trainer.best["val_accuracy"] > 0.9
    assert [row["epoch"] for row in trainer.history] == list(range(1, 13))


def test_accumulated_batches_equal_one_large_batch():
    images = faces(16)

    def weights(*flags):
        flags = ("--optimiser.name", "sgd", "--augment.mirror", "0", "--augment.crop_padding", "0", *flags)
        return fitted(configure(*flags, "--epochs", "1"), images).learner.recogniser.state_dict()

    split, whole = weights("--batch_size", "8", "--accumulate", "2"), weights("--batch_size", "16")
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-5, atol=1e-7)


def test_iterations_end_a_run_inside_an_epoch():
    trainer = fitted(configure("--epochs", "9", "--iterations", "5"))
    assert (trainer.steps_per_epoch, trainer.step, trainer.epoch) == (3, 5, 2)
    assert [row["step"] for row in trainer.history] == [3, 5]


def test_soft_labels_are_drawn_anew_every_epoch():
    certain = faces()
    votes = torch.nn.functional.one_hot(certain.labels, 3).float()
    trainer = fitted(configure(), dataclasses.replace(certain, votes=votes))
    losses = [[row["train_loss"] for row in each.history] for each in (trainer, fitted(configure(), certain))]
    assert losses[0] == losses[1]
    split = dataclasses.replace(certain, votes=torch.tensor([[0.5, 0.5, 0.0]]).expand(24, 3))
    drawn = []
    for epoch in (0, 0, 1):
        trainer.epoch = epoch
        drawn.append(trainer._drawn_labels(split.votes))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert set(torch.cat(drawn).tolist()) == {0, 1}


def test_margin_layer_has_its_own_weight_decay():
    config = configure(recipe="lmcl")
    groups = Trainer(config, faces(), faces(12, seed=1)).update.optimiser.param_groups
    assert [group["weight_decay"] for group in groups] == [0.0004, 0.0005]
    assert [tuple(p.shape) for p in groups[1]["params"]] == [(3, 512)]


def test_balanced_sampling_sees_every_class_alike():
    rare = faces(24)
    rare = rare.subset(torch.cat([(rare.labels != 2).nonzero().flatten(), (rare.labels == 2).nonzero().flatten()[:1]]))
    trainer = Trainer(configure("--data.balanced", "true"), rare, faces(12, seed=1))
    drawn = rare.labels[torch.cat(trainer._batches(0))].bincount(minlength=3)
    assert rare.class_counts().tolist() == [8, 8, 1]
    assert drawn.max() - drawn.min() <= 1


def test_averaged_weights_follow_the_formula():
    source, target = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(source.weight, 3.0)
    source.running_mean.fill_(7.0)
    move_towards(target, source, 0.75, copy_buffers=True)
    assert target.weight.tolist() == [1.5, 1.5]
    assert target.running_mean.tolist() == [7.0, 7.0]
    source.running_mean.fill_(9.0)
    move_towards(target, source, 0.75, copy_buffers=False)
    assert target.running_mean.tolist() == [7.0, 7.0]


def test_averaged_weights_are_the_ones_evaluated():
    trainer = fitted(configure("--ema", "0.9", "--select", "last"))
    name, tensors = trainer.weights()
    assert name == "ema"
    weight = "encoder.backbone.network.conv.weight"
    assert not torch.equal(tensors[weight], trainer.learner.recogniser.state_dict()[weight])
    _, scores = predict(trainer.ema, trainer.val_set.images, trainer.config.augment, trainer.hardware)
    assert loss_and_accuracy(scores, trainer.val_set.labels) == (
        trainer.history[-1]["val_loss"],
        trainer.history[-1]["val_accuracy"],
    )


def test_the_best_epoch_is_kept():
    trainer = fitted(configure("--epochs", "6", "--optimiser.rate", "0.02"), faces(48))
    accuracies = [row["val_accuracy"] for row in trainer.history]
    assert trainer.best == {"epoch": accuracies.index(max(accuracies)) + 1, "val_accuracy": max(accuracies)}
    recogniser = copy.deepcopy(trainer.learner.recogniser)
    recogniser.load_state_dict(trainer.weights()[1])
    _, scores = predict(recogniser, trainer.val_set.images, trainer.config.augment, trainer.hardware)
    assert loss_and_accuracy(scores, trainer.val_set.labels)[1] == max(accuracies)


def test_key_encoder_follows_and_bank_holds_unit_rows_from_the_start():
    trainer = Trainer(configure(recipe="ecan"), faces(), faces(12, seed=1))
    learner = trainer.learner
    pairs = list(zip(learner.key.parameters(), learner.recogniser.encoder.parameters(), strict=True))
    assert all(torch.equal(key, query) for key, query in pairs)
    assert not any(parameter.requires_grad for parameter in learner.key.parameters())
    trainer._fill_bank()
    assert len(learner.bank) == learner.bank.capacity == 16 * 8
    torch.testing.assert_close(learner.bank.features.norm(dim=1), torch.ones(len(learner.bank)))
    before = [key.clone() for key, _ in pairs]
    learner.train()
    trainer.update(list(trainer._shares([torch.arange(8)])))
    for old, (key, query) in zip(before, pairs, strict=True):
        torch.testing.assert_close(key, 0.999 * old + 0.001 * query.detach())
        assert not torch.equal(key, old)


def test_a_loss_that_is_not_finite_names_epoch_and_step():
    trainer = Trainer(configure("--optimiser.name", "sgd", "--optimiser.rate", "1e30"), faces(), faces(12, seed=1))
    with pytest.raises(InputError, match=r"in epoch 1, step [23]; try a lower"):
        trainer.fit(LineProgress(), lambda: None)
    assert trainer.history == []


def test_bfloat16_trains_on_a_cpu():
    trainer = fitted(configure("--hardware.precision", "bfloat16", "--loss", "variant"))
    assert math.isfinite(trainer.history[-1]["train_loss"])


@pytest.mark.parametrize("crops", [1, 5, 10])
def test_predictions_of_crops_are_averaged(crops):
    trainer = fitted(configure())
    recogniser, augment, hardware = trainer.learner.recogniser, trainer.config.augment, trainer.hardware
    images = faces(3).images
    features, scores = predict(recogniser, images, augment, hardware, crops=crops)
    torch.testing.assert_close(scores.sum(1), torch.ones(3))
    # Nine tenths of 32 pixels are 29; the corners, then the centre, then all of them from the other side.
    corners = ((0, 0), (0, 3), (3, 0), (3, 3), (1, 1))
    cut = [images[:, :, y : y + 29, x : x + 29] for y, x in corners]
    cut += [each.flip(3) for each in cut]
    apart = [predict(recogniser, each, augment, hardware) for each in ([images] if crops == 1 else cut[:crops])]
    torch.testing.assert_close(features, torch.stack([f for f, _ in apart]).mean(0))
    torch.testing.assert_close(scores, torch.stack([s for _, s in apart]).mean(0))


def test_epochs_are_selected_by_single_views():
    one, ten = (fitted(configure("--augment.crops", crops)).history for crops in ("1", "10"))
    assert [row["val_loss"] for row in one] == [row["val_loss"] for row in ten]


def test_too_little_data():
    with pytest.raises(InputError, match="at least 2 images"):
        Trainer(configure(), faces(1), faces(12))
    with pytest.raises(InputError, match="two classes"):
        Trainer(configure(), faces(8, classes=1), faces(12))


def test_labels_are_matched_by_class_name():
    dataset = dataclasses.replace(faces(3), labels=torch.tensor([0, 1, 2]))
    names = (CLASSES[2], "other", CLASSES[0], CLASSES[1])
    assert match_classes(dataset, names).tolist() == [2, 3, 0]
    with pytest.raises(InputError, match="does not know happiness"):
        match_classes(dataset, (CLASSES[0], CLASSES[2]))
