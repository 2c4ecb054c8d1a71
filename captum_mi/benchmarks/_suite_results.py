"""Results of the suite of tasks, and the tables of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

FAR = 0.3
"""Nats from the truth that are too many."""
TWO_SIGMA = 1.96


class Result(NamedTuple):
    """What an estimator made of the samples of a task.

    Attributes:
        task: name.
        title: its description.
        dim_x: columns of X.
        dim_y: columns of Y.
        samples: N.
        seed: of the samples.
        estimator: short name.
        truth: nats.
        estimate: nats; NaN if refused.
        error: estimate - truth, nats.
        std_error: that the estimator states, nats.
        seconds: of the estimate.
        refused: why, or nothing.
        warned: of what, or nothing.
    """

    task: str
    title: str
    dim_x: int
    dim_y: int
    samples: int
    seed: int
    estimator: str
    truth: float
    estimate: float
    error: float
    std_error: float
    seconds: float
    refused: str = ""
    warned: str = ""


GROUPS: dict[str, Callable[[Result], bool]] = {
    "all tasks": lambda _: True,
    "to 5+5": lambda one: max(one.dim_x, one.dim_y) <= 5 and not one.task.startswith("swissroll"),
    "from 25+25": lambda one: min(one.dim_x, one.dim_y) >= 25,
}
"""Of tasks; those in between are in the first alone."""


def names(values: Iterable[str]) -> list[str]:
    """Returns each once, in the order in which they come first."""
    return list(dict.fromkeys(values))


def mean_error(results: Sequence[Result]) -> float:
    """Returns the mean error over seeds, nats; NaN if one was refused."""
    return fmean(one.error for one in results)


def absolute_errors(results: Iterable[Result]) -> list[float]:
    """Returns the mean absolute error over seeds, nats, of each task that was not refused."""
    errors: dict[str, list[float]] = {}
    for one in results:
        errors.setdefault(one.task, []).append(abs(one.error))
    means = map(fmean, errors.values())
    return [mean for mean in means if not math.isnan(mean)]


def mean_absolute_error(results: Sequence[Result]) -> str:
    """Returns the mean over tasks as text, nats, with their number if some were refused."""
    errors = absolute_errors(results)
    if not errors:
        return "refused" if results else "-"
    refused = len(errors) < len(names(one.task for one in results))
    return f"{fmean(errors):.3f}" + (f" ({len(errors)})" if refused else "")


def table(results: Sequence[Result]) -> str:
    """Returns a line for each task: its truth, and each estimator's error and standard error."""
    estimators = names(one.estimator for one in results)
    tasks = names(one.task for one in results)
    width = max(len("estimate - truth, nats"), *map(len, tasks))
    heads = "".join(f"  {name:>15}" for name in estimators)
    lines = [f"{'estimate - truth, nats':{width}}    d  truth{heads}"]
    for task in tasks:
        here = [one for one in results if one.task == task]
        cells = [_cell([one for one in here if one.estimator == name]) for name in estimators]
        dims = f"{here[0].dim_x}+{here[0].dim_y}"
        line = f"{task:{width}}  {dims:>5}  {here[0].truth:.3f}"
        lines.append(line + "".join(f"  {cell:>15}" for cell in cells))
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    """Returns a line for each estimator: its absolute errors, refusals, intervals and time."""
    counts = {
        group: len(names(one.task for one in results if belongs(one)))
        for group, belongs in GROUPS.items()
    }
    heads = "".join(f"  {f'{group} ({count})':>16}" for group, count in counts.items())
    far = f"above {FAR:g}"
    lines = [
        "mean absolute error, nats, over the tasks that were not refused (their number)",
        f"{'':12}{heads}  {far:>9}  refused  warned  in interval  seconds",
    ]
    for name in names(one.estimator for one in results):
        mine = [one for one in results if one.estimator == name]
        cells = [
            mean_absolute_error([one for one in mine if belongs(one)])
            for belongs in GROUPS.values()
        ]
        refused = len(names(one.task for one in mine if one.refused))
        warned = len(names(one.task for one in mine if one.warned))
        lines.append(
            f"{name:12}"
            + "".join(f"  {cell:>16}" for cell in cells)
            + f"  {sum(error > FAR for error in absolute_errors(mine)):9}  {refused:7}"
            f"  {warned:6}  {_covered(mine):>11}  {sum(one.seconds for one in mine):7.1f}"
        )
    lines += [
        "to 5+5: at most 5 columns in X and in Y, without the Swiss roll; from 25+25: at least 25",
        f"{far}, refused, warned: tasks, the reasons are in the CSV file",
        "in interval: share of the 95 % intervals that hold the truth",
    ]
    return "\n".join(lines)


def _cell(results: Sequence[Result]) -> str:
    error = mean_error(results)
    if math.isnan(error):
        return "refused"
    return f"{error:+.3f} ± {fmean(one.std_error for one in results):.3f}"


def _covered(results: Sequence[Result]) -> str:
    inside = [abs(one.error) <= TWO_SIGMA * one.std_error for one in results if not one.refused]
    return f"{100 * fmean(inside):.0f} %" if inside else "-"
