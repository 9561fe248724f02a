"""What the engine launches, to compile ahead of time: every loss at representative shapes, as the launcher says it."""

from collections.abc import Iterator
from itertools import product

import torch

from ..host.aot import TYPES, launch_case
from .arguments import Batch
from .centers import CENTERS
from .heads import HEADS, usual_params
from .launch import Asked, launches_of, plan, rules_of
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

    groups = _GROUPS if auxiliary == "mva" else 0
    softmax, weighs = classifier == "softmax", auxiliary == "weighted-cluster"
    head_params = tuple(usual_params(classifier)) if classifier else ()
    center_params = tuple(CENTERS[auxiliary][1]()) if auxiliary else ()
    center_params = tuple(0.0 if isinstance(value, str) else value for value in center_params)  # the first of the ways
    learns = optional and classifier == "lmcl"
    options = (table() if learns else None, 0.1 if optional and softmax else 0.0)
    if learns:
        head_params = (float("nan"), *head_params[1:])
    rules = rules_of(classifier, head_params, auxiliary, center_params, *options)
    precision = "ieee", family != "cdna"
    asked = Asked(family, rules.variant, True, bool(auxiliary), True, precision, by_row=optional, learns=learns)
    x = torch.empty((n, d), dtype=dtype)
    batch = Batch(x, labels(n), labels(1), (x,) * groups, (labels(n),) * groups)
    if groups:
        batch = batch._replace(group_rows=labels(groups))
    if optional:
        batch = batch._replace(sample_weights=table(n), soft_labels=table(n, num_classes))
    given = (
        table(num_classes, d) if classifier else None, table(num_classes) if softmax else None,
        table(num_classes) if softmax else None, table(num_classes, d) if auxiliary else None,
        table(num_classes) if weighs else None,
    )  # fmt: skip
    planned = plan(asked, batch, given, *rules[:2])
    divisors = (table(), table()) if optional else planned.sizes[0][2:]
    return launches_of(planned, batch, given, *rules[:2], 1.0, divisors)[1]
