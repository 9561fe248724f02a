"""Problems of the steps: the shapes at which every loss is checked, and small ones that compile the same kernels."""

from dataclasses import replace

from fer_fast.registry import LOSSES

from ..problems import Problem, Shape

# Ragged and aligned, narrow and wide, of few classes and of more than a kernel's tables hold: several tiles each.
LARGE = (
    Shape(n=4997, d=256, classes=7, k=7, bank=5000),
    Shape(n=999, d=17, classes=2, k=3, bank=4999),
    Shape(n=1000, d=1000, classes=64, k=3, bank=4999),
    Shape(n=4999, d=100, classes=65, k=3, bank=4999),
    Shape(n=1000, d=2048, classes=1000, k=2, bank=5000),
    Shape(n=5000, d=64, classes=1000, k=3, bank=5000),
    Shape(n=1001, d=512, classes=7, k=7, bank=5000),
)
SMALL = Shape(n=18, d=17, classes=5, k=2, bank=5)
REHEARSED = ("marginal", "variant", "ad-corre", "range", "ensc")  # one of each engine, the quickest first
DRAWS = 2  # of inputs beyond those that are checked: plain PyTorch's error is the worst of all
HALF_FIRST = ("bfloat16", "float16", "float32")


def problem(loss: str, shape: Shape, dtype: str = "float32") -> Problem:
    """A loss at as much of a shape as it has: no bank where there is none, two views of each sample for SelfCon."""
    family = LOSSES[loss].family
    return Problem(
        loss,
        replace(
            shape,
            n=shape.n + shape.n % 2 if loss == "selfcon" else shape.n,
            k=shape.k if family == "correlation" else 0,
            bank=shape.bank if loss in ("esc", "ensc") else 0,
        ),
        dtype,
    )


def every(shapes: tuple[Shape, ...], dtypes: tuple[str, ...], rehearse: bool) -> list[Problem]:
    """Every loss in every dtype at every shape, the first shape of all before the second of any.

    Rehearsed, one loss of each engine at one tiny shape; the interpreter multiplies bfloat16 as raw bits.
    """
    if rehearse:
        shapes, dtypes = (SMALL,), tuple(name for name in dtypes if name != "bfloat16") or ("float16",)
    losses = REHEARSED if rehearse else tuple(LOSSES)
    return [problem(loss, shape, dtype) for shape in shapes for dtype in dtypes for loss in losses]


def shrunk(given: Problem) -> Problem:
    """A problem of few rows for which the same kernels are compiled: a launch compiles for the values of integers that
    are 1 or divisible by 16, and strides may hold n. Enough rows for keys to be split over programs."""
    s = given.shape
    n, bank = (240 + size % 16 if size > 256 else size for size in (s.n, s.bank))
    return replace(given, shape=replace(s, n=n, bank=bank))


def name(given: Problem) -> str:
    """How rows name a problem."""
    return f"{given.loss} {given.dtype} {given.shape}"
