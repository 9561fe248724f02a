"""Ad-Corre's cases for ahead-of-time compilation."""

from collections.abc import Iterator
from itertools import product

from ..host.aot import TYPES, aot_case
from ..host.chips import launch_options
from ..host.launch import MOST_PROGRAMS
from .rows import ad_corre_rows
from .settings import EMBEDDING_TILES
from .tables import ad_corre_tables


def aot_cases(family: str) -> Iterator[tuple]:
    """Both sweeps, all terms on, at the widths of published embeddings, for the audit."""
    shared = dict.fromkeys(("n", "num_classes", "e_stride", "row_stride"), "i32")
    shared |= dict.fromkeys(("fd_scale", "md_scale", "ed_scale"), "fp32")
    shared |= dict.fromkeys(("y_ptr", "status_ptr"), "*i64") | dict.fromkeys(("counters_ptr", "counter_ptr"), "*i32")
    buffers = ("w_ptr", "losses_ptr", "tables_ptr", "moments_ptr", "slabs_ptr", "stats_ptr", "partials_ptr", "loss_ptr")
    shared |= dict.fromkeys(buffers, "*fp32")
    for (k, width), dtype in product(((7, 128), (7, 256), (7, 512), (4, 1024)), TYPES):
        config, dtype = EMBEDDING_TILES[dtype.itemsize, width], TYPES[dtype]
        types = shared | {"e_ptr": f"*{dtype}", "de_ptr": "*bf16" if dtype == "bf16" else "*fp32"}
        marked = "*" if width == 256 and dtype != "fp16" else ""
        terms = {"FD": True, "MD": True, "ED": True, "EMBEDDINGS": k, "D": width, "K": 16}
        sums = terms | {"BLOCK_N": config.block_n, "BLOCK_D": config.block_d, "CHUNKS": width // config.block_d}
        sums |= {"TENSOR_CORES": family != "cdna"}
        options = launch_options(config.num_warps, config.num_stages)
        yield aot_case(f"tables-{dtype}-{k}-{width}{marked}", ad_corre_tables, types, sums, options)
        rows = terms | {"BLOCK_N": config.row_block_n, "BLOCK_D": width, "PROGRAMS": MOST_PROGRAMS}
        options = launch_options(config.row_warps)
        yield aot_case(f"rows-{dtype}-{k}-{width}{marked}", ad_corre_rows, types, rows, options)
