"""The survey's cases for ahead-of-time compilation."""

from ..host.aot import TYPES, aot_case, mark
from .settings import SURVEY_ROWS
from .survey import survey_rows


def aot_cases(family: str) -> list[tuple]:
    """Rows and bank of every dtype with labels to be narrowed, for the audit."""
    types = dict.fromkeys(("n", "m", "d", "z_stride", "bank_stride"), "i32") | {
        "scale": "fp32",
        **dict.fromkeys(("y", "bank_y"), "*i64"),
        **dict.fromkeys(("labels", "bank_labels"), "*i32"),
        "bounds": "*fp32",
    }
    flags = {"BLOCK": SURVEY_ROWS.block_m, "BLOCK_D": SURVEY_ROWS.block_d}
    return [
        aot_case(
            mark(f"survey-{of}", of == "bf16"),
            survey_rows,
            types | dict.fromkeys(("z", "bank_z"), f"*{of}"),
            flags,
            SURVEY_ROWS.options,
        )
        for of in TYPES.values()
    ]
