"""A second step of each loss, for a chip that is not there: which kernels Triton is asked for again, and which are
started with other constants than they were compiled with. Lines of JSON, for :func:`fer_fast.bench.child.lines`."""

import json
from contextlib import ExitStack
from dataclasses import replace
from unittest.mock import patch

import torch
from fer_fast.bench import launches
from fer_fast.bench.audit_resources import engine_module, engines
from fer_fast.bench.problems import Problem, Shape
from fer_fast.kernels.host import launch as host
from triton.runtime import JITFunction

from fer_fast.registry import LOSSES

SHAPE = Shape(n=38, d=32, classes=7, k=3, bank=50)


def main() -> None:
    asked, changed, run, start = [], [], JITFunction.run, host.start

    def counted(kernel, *args, **how):
        asked.append(kernel.__name__)
        return run(kernel, *args, **how)

    def compared(launch: host.Launch) -> None:
        kernel, _, arguments, constants, compiled = launch
        if compiled and kernel.__name__ in compiled:
            behind = tuple(constants[name] for name in kernel.arg_names[len(arguments) :])
            if behind != compiled[kernel.__name__][1]:
                changed.append(kernel.__name__)
        start(launch)

    chip = launches.AbsentChip("sm90")
    with launches.launching_on(chip), ExitStack() as patched:
        for module in (engine_module(engine, "launch") for engine in engines()):
            if hasattr(module, "start"):
                patched.enter_context(patch.object(module, "start", compared))
        for loss in LOSSES:
            shape = replace(SHAPE, bank=SHAPE.bank if loss in ("esc", "ensc") else 0)
            step = launches._step(Problem(loss, shape), "triton", "int64")
            step()
            asked.clear()
            with patch.object(JITFunction, "run", counted):
                step()
            print(json.dumps({"loss": loss, "asked": asked, "changed": changed}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
