"""How many instructions a kernel's hot loop may have on sm_90, and what a version of Triton cannot help."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import NamedTuple

NEWEST = (3, 8)
OLDEST = (3, 6)  # the loops of 3.5 are up to half as long again, and have no limit
LIMITED_ON = "sm90"


class Limit(NamedTuple):
    """Most instructions, of a warp an iteration of the hot loop ("tile") or of all warps a row of it ("row"), with a
    Triton from NEWEST on and with one from OLDEST on."""

    per: str
    newest: int
    before: int

    @property
    def most(self) -> int:
        return self.newest if triton_version() >= NEWEST else self.before


LIMITS: Mapping[tuple[str, str], Limit] = {
    ("ad_corre", "sums-bf16-7-256"): Limit("row", 131, 130),
    ("ad_corre", "rows-bf16-7-256"): Limit("row", 117, 114),
    ("class_table", "rows-center-bf16-8-512"): Limit("row", 173, 183),
    ("class_table", "rows-variant-bf16-8-512"): Limit("row", 300, 293),
    ("class_table", "rows-softmax+center-bf16-8-512"): Limit("row", 303, 314),
    ("class_table", "rows-lmcl+variant-bf16-8-512"): Limit("row", 772, 802),
    # 355 without the labels that leave batch rows out, which only masked tiles read.
    ("contrastive", "sweep-ensc-bf16-half-256"): Limit("tile", 364, 374),
    ("contrastive", "batch-ensc-bf16-half-256"): Limit("tile", 400, 430),
    ("contrastive", "sweep-supcon-bf16-half-128"): Limit("tile", 345, 360),
    ("contrastive", "batch-supcon-bf16-half-128"): Limit("tile", 347, 365),
    ("large_centers", "rows-center-bf16-512"): Limit("row", 175, 170),
    ("large_centers", "rows-variant-bf16-512"): Limit("row", 515, 490),
    ("large_classifier", "softmax-lmcl-bf16-100000"): Limit("tile", 195, 195),
    ("large_classifier", "softmax-softmax-bf16-100000"): Limit("tile", 217, 217),
    ("pairwise", "sweep-fd-bf16-half-256"): Limit("tile", 525, 665),
    ("pairwise", "sweep-marginal-bf16-half-256"): Limit("tile", 505, 635),
}
# Faults shown and let pass, by Triton, then engine, case and chip. What is no longer found has to leave this table.
KNOWN: Mapping[tuple[int, ...], Mapping[tuple[str, str, str], tuple[str, ...]]] = {
    (3, 5): {
        ("class_table", "rows-softmax+center-bf16-8-512", "sm90"): ("32 bytes spilled, in a loop too",),
        ("class_table", "small-lmcl+variant-bf16-8-512", "sm80"): ("96 bytes spilled, in a loop too",),
        ("class_table", "small-lmcl+variant-bf16-8-512", "sm90"): ("64 bytes spilled, in a loop too",),
        ("class_table", "small-lmcl+variant-bf16-8-512", "sm100"): ("72 bytes spilled, in a loop too",),
        ("pairwise", "sweep-fd-bf16-half-256", "sm90"): ("40 bytes spilled, in a loop too",),
        ("primitives", "distance-gradient-bf16", "sm90"): ("8 bytes spilled, in a loop too",),
        **{
            ("range_loss", f"widest-pairs-{k}", chip): (f"{size} bytes spilled, in a loop too",)
            for k in (2, 8)
            for chip, size in (("sm80", 8), ("sm90", 16), ("sm100", 16))
        },
    },
    (3, 6): {
        ("class_table", "small-lmcl+variant-bf16-8-512", "sm80"): ("192 bytes spilled, in a loop too",),
        ("class_table", "small-lmcl+variant-bf16-8-512", "sm90"): ("176 bytes spilled, in a loop too",),
        ("class_table", "small-lmcl+variant-bf16-8-512", "sm100"): ("168 bytes spilled, in a loop too",),
        ("large_centers", "rows-variant-bf16-4096", "sm80"): ("8 bytes spilled, in a loop too",),
        ("pairwise", "sweep-fd-bf16-half-256", "sm90"): ("16 bytes spilled, in a loop too",),
        ("pairwise", "sweep-marginal-bf16-half-256", "sm90"): ("8 bytes spilled, in a loop too",),
    },
    (3, 8): {
        # In the loop over masked tiles, which also reads the labels that leave rows out.
        ("contrastive", "batch-ensc-fp32-float32-128", "sm90"): ("80 bytes spilled, in a loop too",),
        ("contrastive", "sweep-ensc-fp32-float32-128", "sm90"): ("16 bytes spilled, in a loop too",),
        ("class_table", "small-lmcl+variant-bf16-8-512", "sm80"): ("88 bytes spilled, in a loop too",),
    },
    (3, 9): {
        ("ad_corre", "sums-bf16-7-256", "sm90"): ("132 instructions a row, 131 allowed",),
        ("class_table", "rows-center-bf16-8-512", "sm90"): ("184 instructions a row, 173 allowed",),
        ("class_table", "rows-lmcl+variant-bf16-8-512", "sm90"): ("777 instructions a row, 772 allowed",),
        ("class_table", "rows-lmcl+variant-bf16-8-512", "sm100"): ("8 bytes spilled, in a loop too",),
        ("class_table", "rows-softmax+center-bf16-8-512", "sm90"): (
            "40 bytes spilled, in a loop too",
            "318 instructions a row, 303 allowed",
        ),
        ("class_table", "small-lmcl+variant-bf16-8-512", "sm80"): ("88 bytes spilled, in a loop too",),
        ("large_centers", "rows-center-bf16-512", "sm90"): ("180 instructions a row, 175 allowed",),
        ("large_centers", "rows-variant-bf16-512", "sm80"): ("8 bytes spilled, in a loop too",),
        ("large_centers", "rows-variant-bf16-512", "sm90"): ("516 instructions a row, 515 allowed",),
        ("contrastive", "batch-ensc-bf16-half-256", "sm90"): ("414 instructions a tile, 400 allowed",),
        ("contrastive", "batch-supcon-bf16-half-128", "sm90"): ("363 instructions a tile, 347 allowed",),
        ("contrastive", "sweep-ensc-bf16-half-256", "sm90"): ("386 instructions a tile, 360 allowed",),
        ("contrastive", "sweep-supcon-bf16-half-128", "sm90"): ("370 instructions a tile, 345 allowed",),
        ("pairwise", "sweep-fd-bf16-half-256", "sm90"): (
            "48 bytes spilled, in a loop too",
            "541 instructions a tile, 525 allowed",
        ),
        ("pairwise", "sweep-marginal-bf16-half-256", "sm90"): ("554 instructions a tile, 505 allowed",),
        ("range_loss", "nearest-means", "sm100"): ("16 bytes spilled, in a loop too",),
        ("range_loss", "widest-pairs-2", "sm100"): ("16 bytes spilled, in a loop too",),
    },
}


def triton_version() -> tuple[int, ...]:
    return tuple(int(part) for part in version("triton").split(".")[:2])


def limit(engine: str, case: str, chip: str) -> Limit | None:
    return limits().get((engine, case)) if chip == LIMITED_ON else None


def limits() -> Mapping[tuple[str, str], Limit]:
    """By engine and case, those that the Triton installed here has to meet."""
    return LIMITS if triton_version() >= OLDEST else {}


def known() -> Mapping[tuple[str, str, str], tuple[str, ...]]:
    """Faults, by engine, case and chip, that the Triton installed here cannot help."""
    return KNOWN.get(triton_version(), {})
