"""Type stubs of `fer_fast.losses` and `fer_fast.functional`, from the signatures that they have when they run.

Hyper-parameters are declared once, as a NamedTuple beside the formula, and a decorator makes keywords of its fields: an
editor and a type checker, which run nothing, cannot know them. `python tests/helpers/stubs.py` writes the stubs; a test
holds them equal to the signatures.
"""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import get_type_hints

from ruff import find_ruff_bin

from fer_fast import checks, dispatch, functional, losses, terms
from fer_fast.functional import contrastive, whole

ROOT = Path(__file__).parents[2]
STUBS = {ROOT / f"{module.__name__.replace('.', '/')}/__init__.pyi": module for module in (losses, functional)}
ALIASES = {
    inspect.formatannotation(alias): name
    for name, alias in (
        ("Backend", dispatch.Backend),
        ("Empty", checks.Empty),
        ("Gradients", whole.Gradients),
        ("Group", terms.Group),
        ("Mode", contrastive.Mode),
        ("Reduction", checks.Reduction),
    )
}
HEAD = '''"""Written by tests/helpers/stubs.py, which says what for."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from fer_fast.checks import Empty, Reduction
from fer_fast.dispatch import Backend
from fer_fast.functional import Term
from fer_fast.functional.contrastive import Mode
from fer_fast.functional.whole import Gradients
from fer_fast.registry import LossSpec
from fer_fast.terms import Draw, Group, Peers

'''
QUALIFIED = re.compile(r"\b[a-z_.]+\.(?=[A-Z])")  # what stands before the name of a class


def stub(module: ModuleType) -> str:
    """The text of a module's stub, as ruff formats it."""
    lines = []
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, type):
            for cls in reversed(value.__mro__):
                if cls.__module__.startswith("fer_fast") and (entry := [*class_lines(cls)])[0] not in lines:
                    lines += entry
        else:
            lines += [f"def {name}{shown(inspect.signature(value))}: ...", ""]
    own = f"from {module.__name__} import Term\n"  # not from itself
    text = HEAD.replace(own, "") + "\n".join([f"__all__ = {module.__all__!r}", "", *lines])
    for options in (("check", "--fix-only", "--quiet"), ("format",)):
        command = [find_ruff_bin(), *options, "--stdin-filename", "stub.pyi", "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text


def class_lines(cls: type) -> Iterator[str]:
    """A class with its attributes, constructor and methods, without bodies."""
    if issubclass(cls, tuple):
        yield f"class {cls.__name__}(NamedTuple):"
        yield from (f"    {name}: {annotation(hint)} = ..." for name, hint in get_type_hints(cls).items())
    else:
        yield f"class {cls.__name__}({', '.join(base.__name__ for base in cls.__bases__)}):"
        body = [f"    {name}: {annotation(hint)}" for name, hint in attributes(cls).items()]
        for name, value in vars(cls).items():
            body += member(name, value)
        yield from body or ["    ..."]  # what it has is private
    yield ""


def attributes(cls: type) -> dict[str, type]:
    """Annotated attributes, and the hyper-parameters of a loss."""
    hints = inspect.get_annotations(cls, eval_str=True)
    row = vars(cls).get("row")
    return {name: hint for name, hint in hints.items() if not name.startswith("_")} | (
        get_type_hints(cls.takes or row.params) if row else {}
    )


def member(name: str, value: object) -> Iterator[str]:
    """The lines of a public method or property; a loss is called as its `forward` is."""
    if name.startswith("_") and name not in ("__init__", "__len__"):
        return
    if isinstance(value, property):
        yield f"    @property\n    def {name}{shown(inspect.signature(value.fget))}: ..."
        if value.fset:
            yield f"    @{name}.setter\n    def {name}{shown(inspect.signature(value.fset))}: ..."
    elif isinstance(value, FunctionType) and value.__name__ == name:
        yield f"    def {name}{shown(inspect.signature(value))}: ..."
        if name == "forward":
            yield f"    def __call__{shown(inspect.signature(value))}: ..."


def shown(signature: inspect.Signature) -> str:
    """A signature in the stub's names."""
    return annotation(str(signature))


def annotation(of: type | str) -> str:
    """A type in the stub's names."""
    text = of if isinstance(of, str) else inspect.formatannotation(of)
    for long, name in ALIASES.items():
        text = text.replace(long, name)
    return QUALIFIED.sub("", text)


if __name__ == "__main__":
    for path, module in STUBS.items():
        path.write_text(stub(module), encoding="utf-8")
    sys.exit(0)
