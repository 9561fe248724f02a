"""One vocabulary: what users call the tensors that they give to functions, modules and the bank."""

import copy
import inspect
import re
from pathlib import Path

import pytest
import torch

from cases import make_inputs
from fer_fast import functional, losses
from fer_fast.registry import LOSSES, PUBLIC_NAMES, by_public_name
from loss_modules import C, D, N, batch, build

ROOT = Path(__file__).parents[2]
SPECS = [pytest.param(spec, id=name) for name, spec in LOSSES.items()]
PRIMITIVES = ("correlation_matrix", "center_distances", "anti_center_distances", "contrastive_log_denominator")
TABLES = ("weight", "bias", "centers", "class_weights", "class_difficulty")
OF_THE_CALL = ("sample_weights", "predictions", "groups", "own", "ref_emb", "ref_labels")
OWN = ("function", "refuse_state", "part")  # methods for a loss's own use
SETTINGS = {name for spec in LOSSES.values() for name in spec.params._fields}  # some are tensors where they are learnt
VOCABULARY = {*PUBLIC_NAMES.values(), *TABLES, *OF_THE_CALL, *SETTINGS}
FIRST = dict.fromkeys(("classifier", "center", "pairwise"), "features")
FIRST |= dict.fromkeys(("correlation", "contrastive"), "embeddings")


def tensors_of(function) -> list[str]:
    return [p.name for p in inspect.signature(function).parameters.values() if "Tensor" in str(p.annotation)]


def public_callables() -> dict:
    """Every function of functional, and every public method of a class of losses."""
    found = {name: getattr(functional, name) for name in functional.__all__ if name != "Term"}
    for name in losses.__all__:
        for cls in getattr(getattr(losses, name), "__mro__", ()):
            if cls.__module__.startswith("fer_fast.losses"):
                methods = {k: v for k, v in vars(cls).items() if inspect.isfunction(v) and k not in OWN and k[0] != "_"}
                found |= {f"{cls.__name__}.{k}": v for k, v in methods.items()}
    return found


def test_tensors_have_the_names_of_the_vocabulary():
    names = {name: tensors_of(of) for name, of in public_callables().items()}
    assert {name: {*of} - VOCABULARY for name, of in names.items() if {*of} - VOCABULARY} == {}
    assert names["MemoryBank.enqueue"] == ["embeddings", "labels"]
    assert names["JointLoss.logits"] == names["ClassifierLoss.logits"] == ["features"]
    assert [names[name][0] for name in PRIMITIVES] == ["features", "features", "features", "embeddings"]


@pytest.mark.parametrize("spec", SPECS)
def test_a_loss_begins_with_what_its_family_takes(spec):
    for call in (getattr(functional, spec.function), build(spec).forward):
        assert [*inspect.signature(call).parameters][:2] == [FIRST[spec.family], "labels"]


@pytest.mark.parametrize("spec", SPECS)
def test_a_module_called_by_name(spec):
    x, y = batch(spec)
    module = build(spec)
    expected = copy.deepcopy(module)(x, y)
    assert torch.equal(module(**{FIRST[spec.family]: x, "labels": y}), expected)


@pytest.mark.parametrize("spec", SPECS)
def test_symbols_are_no_names(spec):
    tensors, options = make_inputs(spec, N, C, D, torch.float32)
    function, named = getattr(functional, spec.function), by_public_name(tensors)
    for symbol in PUBLIC_NAMES.keys() & tensors.keys():
        given = {name: t for name, t in named.items() if name != PUBLIC_NAMES[symbol]}
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{symbol}'"):
            function(**given, **{symbol: tensors[symbol]}, **options)


@pytest.mark.parametrize("name", [name for name in functional.__all__ if name != "Term"])
def test_help_says_what_the_tensors_are(name):
    function = getattr(functional, name)
    asked = {*PUBLIC_NAMES.values(), *TABLES} & {*tensors_of(function)}
    told = inspect.getdoc(function)
    assert [of for of in asked if of not in told] == []
    assert " d)" in told


@pytest.mark.parametrize("page", ["README.md", "docs/training-loops.md", *sorted(ROOT.glob("examples/*.py"))], ids=str)
def test_pages_speak_the_vocabulary(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.findall(r"\bbank_[zy]\b|\b[xyze]=\w+|\((?:x|z|e), y\b", text) == []
