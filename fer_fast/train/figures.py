"""The pictures of a report: curves and the feature map as SVG that follows the page's theme."""

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from fer_fast.palette import PALETTE
from fer_fast.train.calibration import Reliability

MARKERS = "osD^vPX"  # seven against eight colours: 56 classes stay apart

MOST_POINTS = 1000
FEWEST_POINTS = 5

# Stand-ins that matplotlib writes and the page replaces by its own colours.
_INK, _GRID = "#010203", "#040506"
_THEME = {_INK: "currentColor", _GRID: "var(--line)"}
_STYLE = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called "$x$"
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 3.5,
}
LOG_RANGE = 1000  # of a logarithmic axis, from its largest value down; below that it is linear
MOST_TICKS = 12
DECADES = 30  # from the smallest value of a setting to the largest, where its axis becomes logarithmic
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def curves(
    history: Sequence[dict[str, Any]],
    series: dict[str, str],
    *,
    title: str,
    scale: str = "linear",
    marked: float | None = None,
) -> Markup | None:
    """Draw some columns of the log against the epoch.

    Args:
        history: the rows of ``log.jsonl``; what is missing, no number or not finite leaves a gap.
        series: column -> its name in the legend.
        title: what the axis shows.
        scale: "linear", or "log": three decades from the largest value down, and linear from there to 0.
        marked: the epoch that was selected.

    Returns:
        An SVG element; ``None`` where no row holds any of the columns.
    """
    epochs = _epochs(history)
    columns = {name: _column(history, key) for key, name in series.items()}
    columns = {name: values for name, values in columns.items() if not np.isnan(values).all()}
    if not columns:
        return None
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.5, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, values) in enumerate(columns.items()):
            style = {"color": PALETTE[index % len(PALETTE)], "linestyle": ("-", "--")[index % 2]}
            axes.plot(epochs, values, label=name, marker="o" if len(history) <= 30 else None, **style)
        if scale == "log":
            _log_to_zero(axes, np.concatenate(list(columns.values())))
        if marked is not None:
            axes.axvline(marked, color=_INK, linewidth=0.8, linestyle=":")
        _over_epochs(axes, title)
        if marked is not None:
            axes.set_xlabel(f"epoch; dotted: {marked:g}, which was selected")
        if len(columns) > 1:
            axes.legend()
        return _svg(figure, title)


def run_curves(histories: dict[str, Sequence[dict[str, Any]]], key: str, *, title: str) -> Markup | None:
    """Draw one column of many logs against the epoch, a thin line a run; names stand beside few of them only.

    Args:
        histories: the rows of ``log.jsonl`` by the name of the run.
        key: the column; what is missing, no number or not finite leaves a gap.
        title: what the axis shows.

    Returns:
        An SVG element; ``None`` where no row holds the column.
    """
    lines = {name: (_epochs(history), _column(history, key)) for name, history in histories.items()}
    lines = {name: line for name, line in lines.items() if not np.isnan(line[1]).all()}
    if not lines:
        return None
    named = len(lines) <= len(PALETTE)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, (epochs, values)) in enumerate(lines.items()):
            style = {"color": PALETTE[index]} if named else {"color": PALETTE[0], "alpha": 0.4}
            marker = "o" if len(epochs) == 1 else None
            axes.plot(epochs, values, label=name, linewidth=1.1, marker=marker, **style)
        _over_epochs(axes, title)
        if named and len(lines) > 1:
            figure.legend(loc="outside right upper")
        return _svg(figure, title)


def axis_plot(
    values: Sequence[float], series: dict[str, Sequence[tuple[float | None, float | None]]], *, label: str
) -> Markup:
    """Draw numbers and their deviations against a setting; settings that span decades on a logarithmic axis.

    Args:
        values: (n,) of the setting, ascending.
        series: name in the legend -> (n,) number and deviation; what is missing leaves a gap, or no bar.
        label: of the axis of the setting.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, pairs) in enumerate(series.items()):
            numbers, bars = np.array([[np.nan if x is None else x for x in pair] for pair in pairs], dtype=float).T
            axes.errorbar(values, numbers, bars, label=name, color=PALETTE[index], fmt="o-", capsize=3, elinewidth=1.1)
        if values[0] > 0 and values[-1] / values[0] >= DECADES:
            axes.set_xscale("log")
        ticks = values[:: math.ceil(len(values) / MOST_TICKS)]
        axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(label)
        axes.legend()
        return _svg(figure, label)


def feature_map(features: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> tuple[Markup | None, str]:
    """Draw the t-SNE map of features, coloured by class.

    Args:
        features: (n, d); rows that are not finite are left out, and of many rows a fixed sample is drawn.
        labels: (n,) index into `classes`.
        classes: the class names.

    Returns:
        An SVG element and a line on what it shows; ``None`` and the reason where there is nothing to show.
    """
    kept, note = sample(features, MOST_POINTS, "with features that are not finite")
    if len(kept) < FEWEST_POINTS:
        return None, f"No map: it takes {FEWEST_POINTS} images with finite features, there are {len(kept)}."
    points = _embed(features[kept].astype(np.float64))
    if points is None:
        return None, "No map: every image has the same features."

    labels = labels[kept]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 5.6), layout="constrained")
        axes = figure.add_subplot()
        size = 14 if len(classes) <= len(PALETTE) else 22  # where the forms have to be told apart, too
        for index, name in enumerate(classes):
            here = points[labels == index]
            if len(here):
                style = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)]}
                axes.scatter(*here.T, s=size, alpha=0.75, linewidths=0, label=name, **style)
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set_visible(False)
        figure.legend(loc="outside right upper", markerscale=1.8, ncols=1 + len(classes) // 24)
        return _svg(figure, "t-SNE"), f"t-SNE of the features of {note}. Distances between far groups mean little."


def reliability_diagram(measured: Reliability, tempered: Reliability | None = None) -> Markup:
    """Draw accuracy against score, and how many predictions lie in each bin.

    Args:
        measured: the predictions as they are.
        tempered: the same at the temperature, drawn as a line.
    """
    bins = len(measured.counts)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.5, 4.1), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(4, 1))
        lefts, width = np.arange(bins) / bins, 1 / bins
        heights = measured.accuracy.nan_to_num().numpy()
        upper.bar(lefts, heights, width * 0.92, align="edge", color=PALETTE[0], label="accuracy")
        upper.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":", label="calibrated")
        if tempered is not None:
            style = {"color": PALETTE[1], "marker": "o", "label": "at the temperature"}
            there = tempered.counts > 0
            upper.plot(tempered.confidence[there], tempered.accuracy[there], **style)
        lower.bar(lefts, measured.counts.numpy(), width * 0.92, align="edge", color=PALETTE[6])
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
        lower.set(xlabel="score of the predicted class", ylabel="images")
        lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        upper.legend(loc="upper left")
        return _svg(figure, "reliability")


def ranks(values: np.ndarray, *, title: str) -> Markup:
    """Draw shares in ascending order, a bar each.

    Args:
        values: (n,) from 0 to 1, ascending.
        title: what they are.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 1.8), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(np.arange(1, len(values) + 1), values, width=0.8 if len(values) <= 100 else 1.0, color=PALETTE[0])
        axes.set(ylim=(0, 1), xlim=(0.4, len(values) + 0.6))
        axes.set_title(title, loc="left", fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        return _svg(figure, title)


def sample(rows: np.ndarray, most: int, lost: str) -> tuple[np.ndarray, str]:
    """Indices of finite rows of (n, d), at most `most`, the same ones each time; how many these are, and the `lost`."""
    kept = np.flatnonzero(np.isfinite(rows).all(1))
    dropped = len(rows) - len(kept)
    if len(kept) > most:
        kept = np.sort(np.random.default_rng(0).choice(kept, most, replace=False))
    note = f"{len(kept)} of {len(rows)} images"
    return kept, note + (f"; {dropped} {lost}" if dropped else "")


def _embed(features: np.ndarray) -> np.ndarray | None:
    """t-SNE in two dimensions, (n, 2); None where all rows are the same."""
    from sklearn.decomposition import PCA  # a second of import that only reports need
    from sklearn.manifold import TSNE

    # The map does not depend on place and scale; huge features would overflow in the squared distances.
    features = features / max(np.abs(features).max(initial=0), np.finfo(float).tiny)
    features = features - features.mean(0)
    largest = np.abs(features).max(initial=0)
    if largest < 1e-12:
        return None
    features = PCA(min(50, *features.shape), random_state=0).fit_transform(features / largest)
    perplexity = min(30, (len(features) - 1) / 3)
    start = np.zeros((len(features), 2))
    start[:, : features.shape[1]] = features[:, :2]
    start *= 1e-4 / start.std(0)[0]
    # A quarter of the time of the defaults, on maps of faces that look the same: 1.1 s for 1 000 images.
    tsne = TSNE(perplexity=perplexity, init=start, random_state=0, max_iter=500, angle=0.8)
    return tsne.fit_transform(features)


def _log_to_zero(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic axis that shows all values: the last step of a cosine is nearly 0, or 0."""
    highest, lowest = np.nanmax(values), np.nanmin(values)
    if lowest < 0 or highest == 0:
        return
    if lowest > highest / LOG_RANGE:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        linear = highest / LOG_RANGE
        axes.set_yscale("symlog", linthresh=linear, linscale=0.5)
        decades = 10.0 ** np.arange(math.ceil(math.log10(linear)), math.floor(math.log10(highest)) + 1)
        axes.set_yticks([0.0, *decades])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(-linear / 10, highest * 1.3)
    axes.yaxis.set_major_formatter("{x:g}")  # the usual one writes mathtext


def _over_epochs(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _epochs(history: Sequence[dict[str, Any]]) -> np.ndarray:
    """The epoch of each row; its number where the row does not tell."""
    epochs = _column(history, "epoch")
    return np.where(np.isnan(epochs), np.arange(1, len(history) + 1), epochs)


def _column(history: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    values = (row.get(key) for row in history)
    numbers = [float(value) if isinstance(value, int | float) else np.nan for value in values]
    column = np.array(numbers, dtype=np.float64)
    return np.where(np.isfinite(column), column, np.nan)


def _svg(figure: Figure, name: str) -> Markup:
    """The figure as an element to stand in a page, in the page's colours and fonts."""
    file = io.StringIO()
    # The salt names the clip paths: the same in every run, different from figure to figure of one page.
    with matplotlib.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's browser has the font
        FigureCanvasSVG(figure).print_svg(file, metadata=_NO_METADATA)
    text = file.getvalue()
    for colour, theme in _THEME.items():
        text = text.replace(colour, theme)
    return Markup(text[text.index("<svg") :])
