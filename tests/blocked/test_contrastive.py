"""The blocked contrastive engine against the float64 reference: every mode x dtype, at temperatures from 0.005 to 1."""

import pytest
import torch

from blocked_cases import (
    CASES,
    DRAWS,
    by_autograd,
    draw,
    held_to_reference,
    over_dtypes,
    small_tiles,  # noqa: F401
    with_bank,
)
from fer_fast import reference
from fer_fast.blocked import contrastive
from fer_fast.terms import Setting

pytestmark = pytest.mark.usefixtures("small_tiles")


UNIT_CASES = [case for case in CASES if case[1] in ("plain", "duplicate rows", "zero rows", "transposed")]
UNIT_CASES = [(0.1, *case) for case in UNIT_CASES] + [(0.005, "ragged", "plain"), (1.0, "ragged", "plain")]
over_unit_cases = pytest.mark.parametrize(
    ("temperature", "shape", "kind"), [pytest.param(*case, id="-".join(map(str, case))) for case in UNIT_CASES]
)


@over_dtypes
@over_unit_cases
@pytest.mark.parametrize("mode", ["selfcon", "supcon", "esc", "ensc"])
def test_contrastive(mode, temperature, shape, kind, dtype):
    draws = [with_bank(draw(shape, seed, kind, dtype), shape, seed) for seed in range(DRAWS)]
    if mode == "selfcon":
        draws = [{"z": torch.cat([t["z"], t["z"].roll(1, 1)]), "y": t["y"].repeat(2)} for t in draws]

    def fast(t, mean):
        tensors, how = (t["z"], t["y"], t.get("bank_z"), t.get("bank_y")), (None, "mean" if mean else "sum", True)
        found = contrastive.contrastive(*tensors, Setting(temperature), mode, *how)
        return dict(zip(("value", "dz"), found[:2], strict=True))

    def slow(t, mean):
        extra = {"selfcon": (), "supcon": ("y",)}.get(mode, ("y", "bank_z", "bank_y"))
        how = {"temperature": temperature, "reduction": "mean" if mean else "sum"}
        return by_autograd(lambda t: getattr(reference, mode)(t["z"], *(t[e] for e in extra), **how), t, ("z",))

    for mean in (True, False):
        # Two views of one image have no other row to be told from: log D is their logit, and push is pull.
        n = len(draws[0]["z"])
        sizes = {"value": 2 / temperature * (1 if mean else n), "dz": 4 / temperature * n**0.5 / (n if mean else 1)}
        cancelling = sizes if mode == "selfcon" and n == 2 else None
        held_to_reference(lambda t, m=mean: fast(t, m), lambda t, m=mean: slow(t, m), draws, dtype, cancelling)


@over_dtypes
@over_unit_cases
@pytest.mark.parametrize("mode", ["supcon", "esc", "ensc"])
def test_contrastive_log_denominator(mode, temperature, shape, kind, dtype):
    if mode == "supcon" and shape == "one row":
        pytest.skip("an empty denominator is -inf: tested by itself")
    draws = [with_bank(draw(shape, seed, kind, dtype), shape, seed) for seed in range(DRAWS)]
    for seed, each in enumerate(draws):
        each["weigh"] = torch.randn(len(each["z"]), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def fast(t):
        args = (t["z"], t["y"], t["bank_z"], t["bank_y"], Setting(temperature), mode)
        value = contrastive.log_denominator(*args)
        weigh = t["weigh"].to(value)
        return {"value": value, "dz": contrastive.log_denominator_backward(weigh, *args)[0]}

    def slow(t):
        args = ("z", "y", "bank_z", "bank_y")
        return by_autograd(
            lambda t: reference.contrastive_log_denominator(*(t[a] for a in args), temperature, mode),
            t,
            ("z",),
            t["weigh"],
        )

    held_to_reference(fast, slow, draws, dtype)
