"""Figures of scaling studies, readable without a caption and by the colour-blind; PNG and SVG. Needs matplotlib.

Every series differs in colour and marker (Okabe and Ito's colours), bands are the 95 % intervals of the law, what the
fit did not see is hollow. A figure shows nothing that the points or the fit do not hold.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sr_transformers.figures import COLOURS, MARKERS, new_figure
from sr_transformers.scaling.laws.bootstrap import Bootstrap
from sr_transformers.scaling.laws.fitting import Fit
from sr_transformers.scaling.laws.forms import UNIQUE, D, N, law_named
from sr_transformers.scaling.laws.points import LOSS, METRIC, Points
from sr_transformers.scaling.laws.prediction import HeldOut, compute_optimal, training_flops

_LABELS = {
    N: "N, parameters in the blocks",
    D: "D, distinct training interactions",
}


def law_figure(
    points: Points,
    fitted: Fit,
    refits: Bootstrap,
    title: str,
    held: HeldOut | None = None,
    value: str = "test loss, nats",
) -> Any:
    """Measured values against N or D with the fitted curve; with `held`, the runs that the fit had not seen hollow."""
    law = law_named(fitted.law)
    variable = law.powers[0]
    values = points.columns[METRIC if law.name == "saturating" else LOSS]
    x = points.columns[variable]
    figure, axes = new_figure(title, _LABELS[variable], value)
    unseen = x >= min(float(row[N] or 0) for row in held.rows) if held else np.zeros(len(x), dtype=bool)
    axes.plot(x[~unseen], values[~unseen], "o", color=COLOURS[0], label="measured" + (", fitted to" if held else ""))
    if held:
        axes.plot(x[unseen], values[unseen], "s", color=COLOURS[1], mfc="white", ms=8, mew=1.8,
                  label="measured, held out")  # fmt: skip
    line = np.geomspace(x.min() / 1.2, x.max() * 1.2, 100)
    axes.plot(line, law.predict(fitted.params, {variable: line}), _dash(fitted), color=COLOURS[0],
              label=_equation(fitted))  # fmt: skip
    band = refits.of_new_run({variable: line}) if held else refits.of_law({variable: line})
    if not np.isnan(band).any():
        label = "95 % interval of a new run" if held else "95 % interval of the law"
        axes.fill_between(line, band[:, 0], band[:, 1], color=COLOURS[0], alpha=0.15, lw=0, label=label)
    if law.has_floor and fitted.usable:
        floor = fitted.params[law.names[0]]
        end = "ceiling" if law.name == "saturating" else "floor"
        axes.axhline(floor, color="0.4", ls=":", lw=1.2, label=f"{end} {law.names[0]} = {floor:.3g}")
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8)
    return figure


def joint_figure(points: Points, fitted: Fit, title: str) -> Any:
    """Loss against N, a series for every D, with the curves of a law of both."""
    law = law_named(fitted.law)
    figure, axes = new_figure(f"{title}\nlines: {_equation(fitted)}", _LABELS[N], "test loss, nats")
    for index, d in enumerate(_values(points.columns[D])):
        mask = np.isclose(points.columns[D], d, rtol=0.03)
        n = points.columns[N][mask]
        style = {"color": COLOURS[index % 7], "marker": _marker(index)}
        axes.plot(n, points.columns[LOSS][mask], ls="none", label=f"D = {short(d)}", **style)
        line = np.geomspace(points.columns[N].min() / 1.2, points.columns[N].max() * 1.2, 60)
        axes.plot(line, law.predict(fitted.params, {N: line, D: np.full_like(line, d)}), _dash(fitted),
                  color=style["color"], lw=1)  # fmt: skip
    axes.set_xscale("log")
    _beside(axes)
    return figure


def data_figure(points: Points, fitted: Fit, title: str) -> Any:
    """Loss against distinct data, a series for every N trained on several amounts, with the curves of a law of both."""
    law = law_named(fitted.law)
    figure, axes = new_figure(f"{title}\nlines: {_equation(fitted)}", _LABELS[D], "test loss, nats")
    sizes = [n for n in _values(points.columns[N]) if len(_values(points.columns[D][points.columns[N] == n])) > 1]
    for index, n in enumerate(sizes):
        mask = points.columns[N] == n
        style = {"color": COLOURS[index % 7], "marker": _marker(index)}
        axes.plot(points.columns[D][mask], points.columns[LOSS][mask], ls="none", label=f"N = {short(n)}", **style)
        line = np.geomspace(points.columns[D].min() / 1.2, points.columns[D].max() * 1.2, 60)
        axes.plot(line, law.predict(fitted.params, {N: np.full_like(line, n), D: line}), _dash(fitted),
                  color=style["color"], lw=1)  # fmt: skip
    axes.set_xscale("log")
    _beside(axes)
    return figure


def repetition_figure(points: Points, title: str, fitted: Fit | None = None) -> Any:
    """Loss against epochs at fixed distinct data, a series for every N; with the data-constrained law if given."""
    figure, axes = new_figure(title, "epochs up to the kept checkpoint", "test loss, nats")
    epochs = points.columns[D] / points.columns[UNIQUE]
    for index, n in enumerate(_values(points.columns[N])):
        mask = np.isclose(points.columns[N], n)
        order = np.argsort(epochs[mask])
        x, y = epochs[mask][order], points.columns[LOSS][mask][order]
        style = {"color": COLOURS[index % 7], "marker": _marker(index)}
        axes.plot(x, y, ls="-" if fitted is None else "none", label=f"N = {short(n)}", **style)
        if fitted is not None:
            u = float(np.median(points.columns[UNIQUE][mask]))
            line = np.geomspace(1.0, epochs.max() * 1.2, 60)
            columns = {N: np.full_like(line, n), D: u * line, UNIQUE: np.full_like(line, u)}
            axes.plot(line, law_named("repeated").predict(fitted.params, columns), color=style["color"], lw=1)
    axes.set_xscale("log")
    axes.set_xticks(sorted(set(np.round(epochs, 1))), [f"{e:g}" for e in sorted(set(np.round(epochs, 1)))])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    return figure


def shape_figure(rows: Sequence[Mapping[str, Any]], title: str) -> Any:
    """Loss against width per layer d / L, a series for every N (up to 5 %); rows hold width, layers, n, loss."""
    figure, axes = new_figure(title, "width per layer, d / L (left: deep, right: wide)", "test loss, nats")
    for index, n in enumerate(_values(np.array([float(row["n"]) for row in rows]), 0.05)):
        ours = sorted((row for row in rows if np.isclose(row["n"], n, rtol=0.05)), key=_ratio)
        axes.plot([_ratio(row) for row in ours], [row["loss"] for row in ours], color=COLOURS[index % 7],
                  marker=_marker(index), label=f"N = {short(n)}")  # fmt: skip
        for row in ours:
            axes.annotate(f"{row['layers']}x{row['width']}", (_ratio(row), row["loss"]), fontsize=7,
                          xytext=(4, 4), textcoords="offset points")  # fmt: skip
    axes.set_xscale("log")
    ratios = _values(np.array([_ratio(row) for row in rows]), 0.1)
    axes.set_xticks(ratios, [f"{ratio:.3g}" for ratio in ratios])
    axes.minorticks_off()
    axes.margins(x=0.1)
    axes.legend(frameon=False, fontsize=8)
    return figure


def predicted_figure(held: HeldOut, title: str) -> Any:
    """Predicted against measured values of the held-out runs, with intervals; on the diagonal they agree."""
    figure, axes = new_figure(title, "measured", "predicted from the smaller sizes")
    sizes = _values(np.array([float(row[N] or 0) for row in held.rows]))
    ends: list[float] = []
    for index, n in enumerate(sizes):
        ours = [row for row in held.rows if np.isclose(float(row[N] or 0), n)]
        measured, predicted = ([float(row[key] or 0) for row in ours] for key in ("measured", "predicted"))
        ends += [*measured, *predicted]
        error = None
        if all(row["low"] is not None for row in ours):
            low, high = ([float(row[key] or 0) for row in ours] for key in ("low", "high"))
            ends += [*low, *high]
            error = np.abs(np.array([np.subtract(predicted, low), np.subtract(high, predicted)]))
        axes.errorbar(measured, predicted, yerr=error, fmt=_marker(index), color=COLOURS[index % 7], capsize=3,
                      label=f"N = {short(n)}")  # fmt: skip
    margin = 0.05 * (max(ends) - min(ends)) + 1e-9
    limits = (min(ends) - margin, max(ends) + margin)
    axes.plot(limits, limits, color="0.5", lw=1, ls="--", label="predicted = measured")
    axes.legend(frameon=False, fontsize=8)
    return figure


def isoflop_figure(
    fitted: Fit, ranges: Mapping[str, tuple[float, float]], vocab_size: int, title: str, passes: float = 1.0
) -> Any:
    """The loss of a law of size and data against N at fixed training FLOPs, head included, with so many passes over D;
    a mark at the best N of every budget."""
    law = law_named(fitted.law)
    figure, axes = new_figure(title, _LABELS[N], "loss by the law, nats")
    low, high = (training_flops(ranges[N][i], ranges[D][i], vocab_size) for i in (0, 1))
    n = np.geomspace(ranges[N][0] / 2, ranges[N][1] * 10, 200)
    for index, flops in enumerate(np.geomspace(low * 3, high * 3, 5)):
        d = flops / np.array([training_flops(float(one), 1.0, vocab_size) for one in n])
        loss = law.predict(fitted.params, {N: n, D: d})
        axes.plot(n, loss, color=COLOURS[index], label=f"{flops * passes:.0e} FLOPs")
        best = int(np.argmin(loss))
        axes.plot(n[best], loss[best], MARKERS[index], color=COLOURS[index])
    # Where next to no data is left for a large model the law shoots up and hides the minima.
    bests = [float(line.get_ydata()[0]) for line in axes.get_lines()[1::2]]
    axes.set_ylim(min(bests) - 0.1, max(bests) + 1.5)
    axes.axvspan(ranges[N][1], n[-1], color="0.5", alpha=0.1, lw=0, label="beyond the sizes measured")
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8)
    return figure


def isoloss_figure(joint: Fit, points: Points, vocab_size: int, title: str) -> Any:
    """Lines of equal loss over N and D by a law of both, the runs, and the compute-optimal frontier (head included)."""
    figure, axes = new_figure(title, _LABELS[N], _LABELS[D])
    n, d = points.columns[N], points.columns[D]
    across = np.geomspace(n.min() / 2, n.max() * 4, 80)
    up = np.geomspace(d.min() / 2, d.max() * 4, 80)
    grid_n, grid_d = np.meshgrid(across, up)
    loss = law_named(joint.law).predict(joint.params, {N: grid_n.ravel(), D: grid_d.ravel()}).reshape(grid_n.shape)
    axes.set_xscale("log")  # before the labels: they cut gaps into the lines where these are drawn
    axes.set_yscale("log")
    # Even steps of what lies above the floor, in logarithms: as many lines where all runs are as where few data are.
    least_above, most_above = np.quantile(loss - joint.params["E"], (0.02, 0.98))
    above = np.geomspace(least_above, most_above, 12)
    lines = axes.contour(grid_n, grid_d, loss, levels=joint.params["E"] + above, colors="0.35", linewidths=0.8)
    axes.clabel(lines, fmt="%.2f", fontsize=7)
    axes.plot(n, d, "o", color=COLOURS[0], ms=4, label="runs")
    least, most = (training_flops(float(across[i]), float(up[i]), vocab_size) for i in (0, -1))
    frontier = [
        compute_optimal(joint.params, flops, vocab_size, law=joint.law)
        for flops in np.geomspace(least, most, 60).tolist()
    ]
    inside = [one for one in frontier if across[0] <= one[N] <= across[-1] and up[0] <= one[D] <= up[-1]]
    axes.plot([one[N] for one in inside], [one[D] for one in inside], "--", color=COLOURS[1], lw=2,
              label="compute-optimal")  # fmt: skip
    axes.legend(frameon=False, fontsize=8)
    return figure


def _beside(axes: Any) -> None:
    """The legend of many series, where it covers none of them."""
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _marker(index: int) -> str:
    """Shifted by one each time the colours begin again, so that no two of 49 series look alike."""
    return MARKERS[(index + index // 7) % 7]


def _ratio(row: Mapping[str, Any]) -> float:
    return float(row["width"]) / float(row["layers"])


def _values(column: np.ndarray, tolerance: float = 0.03) -> list[float]:
    """Values of a column, those within a few per cent taken as one."""
    found: list[float] = []
    for value in np.unique(column).tolist():
        if not found or value > found[-1] * (1 + tolerance):
            found.append(value)
    return found


def short(value: float) -> str:
    """Three digits and a letter: 98.3k, 1.57m."""
    for size, letter in ((1e9, "b"), (1e6, "m"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _dash(fitted: Fit) -> str:
    return "-" if fitted.usable else "--"


def _equation(fitted: Fit) -> str:
    if not fitted.usable:
        return f"no law ({fitted.status.replace('_', ' ')})"
    p = {name: f"{value:.3g}" for name, value in fitted.params.items()}
    return {
        "n": lambda: f"L = {p['E']} + {p['A']} / N^{p['alpha']}",
        "d": lambda: f"L = {p['E']} + {p['B']} / D^{p['beta']}",
        "power": lambda: f"L = {p['A']} / N^{p['alpha']}",
        "kaplan": lambda: (
            f"L = {p['E']} + (({p['A']} / N^{p['alpha']})^q + ({p['B']} / D^{p['beta']})^q)^(1/q), q = 1/{p['beta']}"
        ),
        "saturating": lambda: f"M = {p['M_inf']} - {p['A']} / N^{p['alpha']}",
    }.get(fitted.law, lambda: f"L = {p['E']} + {p['A']} / N^{p['alpha']} + {p['B']} / D^{p['beta']}")()
