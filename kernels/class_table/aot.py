"""What the engine launches, to compile ahead of time: every loss at representative shapes, as the launcher says it."""

from collections.abc import Iterator
from itertools import product

import torch

from fer_fast.terms import CenterTerm, Classifier

from ..host.aot import TYPES, launch_case
from .centers import CENTERS
from .heads import HEADS, usual_params
from .launch import Asked, batch_of, launches_of, plan, rules_of
from .settings import SMALL_BATCH, fits

_LOSSES = [*((name, "") for name in HEADS), *(("", name) for name in CENTERS)]
_JOINT = [("softmax", "center"), ("lmcl", "variant")]
_SHAPES = [(8, 512), (8, 1024), (8, 2048), (64, 256), (64, 512)]
_GROUPS = 4  # of MVA, beside the batch
# With weights of rows and losses of each: soft labels that are smoothed, and a scale that is learnt.
_OPTIONAL = [("softmax", "center"), ("lmcl", "")]
_USUAL = {("", "center", 512), ("", "variant", 512), *((*joint, 512) for joint in _JOINT)}


def aot_cases(family: str) -> Iterator[tuple]:
    """Every kernel of every loss, for a large batch and for a small one."""
    for (classifier, auxiliary), (num_classes, d), dtype in product(_LOSSES + _JOINT, _SHAPES, TYPES):
        if classifier and not fits(family, dtype.itemsize, num_classes, d):
            continue
        for n in (SMALL_BATCH, 2**16):
            loss = "+".join(filter(None, (classifier, auxiliary)))
            usual = num_classes == 8 and dtype == torch.bfloat16 and (classifier, auxiliary, d) in _USUAL
            for launch in _launches(family, classifier, auxiliary, n, num_classes, d, dtype):
                name = f"{launch.kernel.__name__}-{loss}-{TYPES[dtype]}-{num_classes}-{d}{'*' if usual else ''}"
                yield launch_case(name, launch)
    for (classifier, auxiliary), n, dtype in product(_OPTIONAL, (SMALL_BATCH, 2**16), TYPES):
        for launch in _launches(family, classifier, auxiliary, n, 8, 512, dtype, optional=True):
            name = f"{launch.kernel.__name__}-{classifier}-{auxiliary}-{TYPES[dtype]}-8-512-optional"
            yield launch_case(name, launch)


def _launches(
    family: str,
    classifier: str,
    auxiliary: str,
    n: int,
    num_classes: int,
    d: int,
    dtype: torch.dtype,
    optional: bool = False,
):
    """The launches of a training step whose tensors hold nothing."""

    def table(*shape: int) -> torch.Tensor | None:
        return torch.empty(shape)

    def labels(count: int) -> torch.Tensor:
        return torch.empty(count, dtype=torch.int64)

    head, term, x = Classifier(), CenterTerm(), torch.empty((n, d), dtype=dtype)
    learns = optional and classifier == "lmcl"
    if classifier:
        tables = table(num_classes, d), *[table(num_classes) if classifier == "softmax" else None] * 2
        head = Classifier(classifier, *tables, tuple(usual_params(classifier)))
    if learns:
        head = head._replace(params=(float("nan"), *head.params[1:]), setting=table())
    elif optional:
        head = head._replace(label_smoothing=0.1)
    if auxiliary:
        weights = table(num_classes) if auxiliary == "weighted-cluster" else None
        params = (
            0.0 if isinstance(value, str) else value for value in CENTERS[auxiliary][1]()
        )  # the first of the ways
        term = CenterTerm(auxiliary, table(num_classes, d), weights, tuple(params))
    if auxiliary == "mva":
        groups = {"groups_x": [x] * _GROUPS, "groups_y": [labels(n)] * _GROUPS, "group_rows": labels(_GROUPS)}
        term = term._replace(**groups)
    rules, precision = rules_of(head, term), ("ieee", family != "cdna")
    asked = Asked(family, rules.variant, True, bool(auxiliary), True, precision, by_row=optional, learns=learns)
    rows = (table(n), table(n, num_classes)) if optional else (None, None)
    batch = batch_of(x, labels(n), term, *rows, labels(1))
    given = head.weight, head.bias, head.class_weights, term.centers, term.class_weights
    planned = plan(asked, batch, given, *rules[:2])
    divisors = (table(), table()) if optional else planned.sizes[0][2:]
    return launches_of(planned, batch, given, *rules[:2], 1.0, divisors)[1]
