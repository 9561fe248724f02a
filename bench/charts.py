"""Pictures and a table of the recorded rows: what grows with the batch and the bank, and every loss at one shape."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, NullFormatter, NullLocator

from fer_fast.cli.parser import Parser
from fer_fast.errors import InputError

from .contenders import COMPILED, EAGER, FER_FAST
from .problems import SWEEPS, Floor, quick_shape
from .readme import BEGIN, END, at_quick_shapes, between_markers, markdown, source
from .rows import ROOT, Row, file_name, latest, read
from .table import bytes_text

# Okabe & Ito's colours, told apart without red and green; a marker each for print.
STYLES = {
    FER_FAST.name: ("#0072B2", "o"),
    EAGER.name: ("#D55E00", "s"),
    COMPILED.name: ("#009E73", "^"),
    "pytorch-metric-learning": ("#CC79A7", "D"),
    "linear_cross_entropy": ("#56B4E9", "v"),
    "liger-kernel": ("#E69F00", "P"),
}
LABELS = {FER_FAST.name: "fer-fast", EAGER.name: "PyTorch, eager", COMPILED.name: "torch.compile"}
SETTINGS = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


def run(argv: list[str]) -> int:
    """Draw the charts of every chip and print the tables."""
    parser = Parser(prog="fer-fast bench charts", description="Draw recorded rows and print them as Markdown tables.")
    parser.add_argument("--results", metavar="DIR", default=str(ROOT / "bench" / "results"), help="folder of the rows")
    parser.add_argument("--out", metavar="DIR", default=str(ROOT / "bench" / "charts"), help="folder of the pictures")
    parser.add_argument("--readme", metavar="FILE", help=f"put the tables between {BEGIN} and {END} of this file")
    given = parser.parse_args(argv)
    files = sorted(Path(given.results).glob("*.jsonl"))
    if not files:
        raise InputError(f"--results: no rows in {given.results}; `python -m bench --record` makes them")
    machines = _by_machine(row for file in files for row in read(file))
    for rows in machines:
        for picture in draw(rows, Path(given.out)):
            print(f"drew {picture}", file=sys.stderr)
    text = "\n\n".join(markdown(rows) for rows in machines)
    if given.readme:
        between_markers(Path(given.readme), text)
    else:
        print(text)
    return 0


def _by_machine(rows: Iterable[Row]) -> list[list[Row]]:
    """The newest rows, those of one chip, thread count and dtype together."""
    machines = defaultdict(list)
    for row in latest(rows):
        machines[row.chip, row.threads, row.dtype].append(row)
    return list(machines.values())


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """One picture for each family that has a sweep among the rows, and the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = file_name(f"{rows[0].chip} {rows[0].dtype}").removesuffix(".jsonl")
    pictures = []
    with matplotlib.rc_context(SETTINGS):
        for family in dict.fromkeys(row.family for row in rows):
            figure = scaling([row for row in rows if row.family == family])
            if figure:
                pictures.append(_save(figure, folder / f"{stem}-{family}.png"))
        figure = summary(rows)
        if figure:
            pictures.append(_save(figure, folder / f"{stem}-summary.png"))
    return pictures


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, facecolor="white", dpi=130)
    return path


def scaling(rows: Sequence[Row]) -> Figure | None:
    """Time (left) and memory (right) of the family's swept losses, one line of panels each; None without a sweep."""
    losses = [loss for loss in SWEEPS if len(_sizes(rows, loss)) > 1]
    if not losses:
        return None
    figure = Figure(figsize=(8.4, 0.5 + 2.9 * len(losses)), layout="constrained")
    for line, panels in zip(losses, figure.subplots(len(losses), 2, squeeze=False), strict=True):
        _sweep(panels, [row for row in rows if row.loss == line])
    handles = {
        label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles))
    figure.supxlabel(source(rows), fontsize=7, color="#555555")
    return figure


def _sizes(rows: Sequence[Row], loss: str) -> set[int]:
    axis = SWEEPS[loss][0]
    return {row.shape[axis] for row in _swept(rows, loss) if row.contender == FER_FAST.name and row.q50}


def _swept(rows: Sequence[Row], loss: str) -> list[Row]:
    """The rows of a loss that differ from its quick shape in the swept side alone."""
    axis = SWEEPS[loss][0]
    return [
        row
        for row in rows
        if row.loss == loss and row.shape == asdict(quick_shape(loss, row.device)) | {axis: row.shape[axis]}
    ]


def _sweep(panels: Sequence[Axes], rows: Sequence[Row]) -> None:
    loss = rows[0].loss
    axis = SWEEPS[loss][0]
    rows = sorted(_swept(rows, loss), key=lambda row: row.shape[axis])
    time, memory = panels
    for contender, (colour, marker) in STYLES.items():
        own = [row for row in rows if row.contender == contender and row.q50]
        if not own:
            continue
        sizes = [row.shape[axis] for row in own]
        width = 2.2 if contender == FER_FAST.name else 1.2
        style = {"color": colour, "marker": marker, "markersize": 4, "linewidth": width}
        time.plot(sizes, [row.q50 for row in own], label=LABELS.get(contender, contender), **style)
        time.fill_between(sizes, [row.q10 for row in own], [row.q90 for row in own], color=colour, alpha=0.15, lw=0)
        memory.plot(sizes, [row.peak_bytes for row in own], **style)
        for row in (row for row in rows if row.contender == contender and row.status == "skipped"):
            place = {"xytext": (-6, 5), "textcoords": "offset points", "ha": "right"}
            memory.annotate(f"then: {row.reason}", (sizes[-1], own[-1].peak_bytes), fontsize=7, color=colour, **place)
            break
    ours = [row for row in rows if row.contender == FER_FAST.name]
    floors = [Floor(r.floor_bytes, r.floor_operations).seconds(r.copy_rate, r.matrix_rate) for r in ours]
    sizes = [row.shape[axis] for row in ours]
    time.plot(sizes, floors, color="#555555", linestyle=":", linewidth=1, label="floor")
    _label(panels, rows[0], axis, sizes)


def _label(panels: Sequence[Axes], row: Row, axis: str, sizes: Sequence[int]) -> None:
    fixed = ", ".join(f"{name} = {value}" for name, value in row.shape.items() if value and name != axis)
    for axes, what in zip(panels, ("time", "memory beyond the inputs"), strict=True):
        axes.set(xscale="log", yscale="log", xlabel="rows of the bank" if axis == "bank" else "samples n")
        axes.set_title(f"{row.loss}: {what}\n{fixed}", fontsize=9, loc="left")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
    panels[0].yaxis.set_major_formatter(EngFormatter("s"))
    panels[1].set_yscale("log", base=4)  # ticks at 1, 4, 16 ... MiB
    panels[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))
    for axes in panels:
        axes.yaxis.set_minor_formatter(NullFormatter())


def summary(rows: Sequence[Row]) -> Figure | None:
    """How many times faster than eager PyTorch each loss is at its quick shape, and where others stand."""
    problems = {
        loss: found
        for loss, found in at_quick_shapes(rows).items()
        if _time(found, EAGER.name) and _time(found, FER_FAST.name)
    }
    if not problems:
        return None
    figure = Figure(figsize=(8.4, 0.9 + 0.24 * len(problems)), layout="constrained")
    axes = figure.subplots()
    for place, found in enumerate(problems.values()):
        for contender, (colour, marker) in STYLES.items():
            if contender == EAGER.name or not _time(found, contender):
                continue
            times = _time(found, EAGER.name) / _time(found, contender)
            if contender == FER_FAST.name:
                axes.plot([1, times], [place, place], color=colour, linewidth=6, solid_capstyle="butt", zorder=1)
                text = f" {times:.{2 if times < 10 else 1}f}×"
                others = (_time(found, EAGER.name) / _time(found, name) for name in STYLES if _time(found, name))
                axes.annotate(f" {text}", (max(others), place), va="center", fontsize=8)  # right of every marker
            else:
                axes.plot(times, place, color=colour, marker=marker, markersize=6, linestyle="none", zorder=2)
    axes.axvline(1, color=STYLES[EAGER.name][0], linewidth=1.2)
    axes.set_xscale("log", base=2)
    axes.set(yticks=range(len(problems)), yticklabels=list(problems), xlabel="times faster than eager PyTorch")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    _summary_legend(figure, axes, problems)
    figure.supxlabel(source(rows), fontsize=7, color="#555555")
    return figure


def _summary_legend(figure: Figure, axes: Axes, problems: dict[str, dict[str, Row]]) -> None:
    present = [name for name in STYLES if any(_time(found, name) for found in problems.values())]
    for name in present:
        colour, marker = STYLES[name]
        lines = {FER_FAST.name: {"linewidth": 6}, EAGER.name: {"linewidth": 1.2}}
        style = lines.get(name, {"marker": marker, "linestyle": "none"})
        axes.plot([], [], color=colour, label=LABELS.get(name, name), **style)
    figure.legend(loc="outside upper center", ncols=len(present))


def _time(found: dict[str, Row], contender: str) -> float | None:
    return found[contender].q50 if contender in found else None
