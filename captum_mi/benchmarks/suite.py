"""How far are estimates from the truth, over the 40 tasks of ``benchmark-mi``?

Czyż et al., "Beyond normal: on the evaluation of mutual information estimators", NeurIPS 2023:
normal, uniform and Student variables, sparse and dense, some behind maps that keep the information.
"""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from captum_mi.benchmarks._suite_environment import sample_file
from captum_mi.benchmarks._suite_figure import heat_map
from captum_mi.benchmarks._suite_results import Result, names, summary, table
from captum_mi.estimators import ESTIMATORS, NEURAL, MutualInformationEstimator

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

METHODS: dict[str, MutualInformationEstimator] = {
    name: make()
    for name, make in ESTIMATORS.items()
    if name != "plugin"  # of labels
}
UNTRAINED = [name for name in METHODS if name not in NEURAL]
SAMPLES = 5000


class Task(NamedTuple):
    """Samples whose mutual information is known.

    Attributes:
        name: that ``--tasks`` takes.
        title: its description.
        truth: nats.
        x: (N, d_x).
        y: (N, d_y).
    """

    name: str
    title: str
    truth: float
    x: NDArray[Any]
    y: NDArray[Any]


def read(path: Path, patterns: Sequence[str] = ("*",)) -> list[Task]:
    """Reads the tasks of a file of samples.

    Args:
        path: of the file.
        patterns: names of tasks, in which ``*`` stands for anything.

    Raises:
        ValueError: if no task has such a name.
    """
    with np.load(path) as arrays:
        told = json.loads(str(arrays["tasks"]))
        for pattern in patterns:
            if not any(fnmatchcase(one["name"], pattern) for one in told):
                known = "\n  ".join(one["name"] for one in told)
                raise ValueError(f"no task is named {pattern!r}; there are\n  {known}")
        return [
            Task(**one, x=arrays[f"x{number}"], y=arrays[f"y{number}"])
            for number, one in enumerate(told)
            if any(fnmatchcase(one["name"], pattern) for pattern in patterns)
        ]


def measure(
    tasks: Mapping[int, Sequence[Task]], estimators: Mapping[str, MutualInformationEstimator]
) -> list[Result]:
    """Estimates the information of every task by every estimator.

    Args:
        tasks: by their seed.
        estimators: by their short name.

    Returns:
        one result for each seed, task and estimator. An estimator that raises ``ValueError`` has
        refused the task.

    Example:
        >>> x = torch.randn(500, 1)
        >>> task = Task("twice", "X and X + noise", 0.347, x, x + torch.randn(500, 1))
        >>> (result,) = measure({0: [task]}, {"ksg": METHODS["ksg"]})
        >>> abs(result.error) < 0.2
        True
    """
    runs = [(seed, task) for seed, drawn in tasks.items() for task in drawn]
    bar = tqdm(total=len(runs) * len(estimators), desc="estimating", unit="estimate")
    results = []
    for seed, task in runs:
        for name, estimator in estimators.items():
            bar.set_postfix_str(f"{name}: {task.name}")
            results.append(_result(task, seed, name, estimator))
            bar.update()
    bar.close()
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the suite's arguments."""
    group = parser.add_argument_group(
        "the suite of 40 tasks",
        "with samples that benchmark-mi draws in an environment of its own, made at the first run"
        " with pip; both are kept in ~/.cache/captum_mi/suite, or $XDG_CACHE_HOME/captum_mi/suite",
    )
    group.add_argument("--suite", action="store_true", help="run it, and nothing else")
    group.add_argument("--samples", type=int, metavar="N", help=f"of each (default: {SAMPLES})")
    group.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED", help="of samples (default: 0)"
    )
    group.add_argument(
        "--tasks", nargs="+", metavar="NAME", help="such as '*student*' (default: all)"
    )
    group.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        metavar="METHOD",
        help=f"any of {', '.join(METHODS)} (default: those without training)",
    )
    group.add_argument(
        "--environment", type=Path, metavar="FOLDER", help="one that has benchmark-mi, or a new one"
    )
    group.add_argument("--python", help="the interpreter that a new environment is made with")


def check_unused(options: argparse.Namespace) -> None:
    """Checks that none of the suite's options was given without it."""
    for name in ("samples", "seeds", "tasks", "methods", "environment", "python"):
        if getattr(options, name) is not None:
            raise ValueError(f"`--{name}` needs `--suite`")


def run(options: argparse.Namespace) -> None:
    """Draws what was not drawn before, estimates, prints the tables and writes the files."""
    samples = SAMPLES if options.samples is None else options.samples
    tasks = {}
    for seed in options.seeds or [0]:
        drawn = sample_file(samples, seed, environment=options.environment, python=options.python)
        tasks[seed] = read(drawn, options.tasks or ["*"])
    estimators = {name: METHODS[name] for name in options.methods or UNTRAINED}
    results = measure(tasks, estimators)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "suite"
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Result._fields)
        writer.writerows(results)
    labels = {name: type(estimator).__name__ for name, estimator in estimators.items()}
    heat_map(results, labels).savefig(path.with_suffix(".png"), dpi=120)
    print(f"{samples:,} samples of each task, seed {', '.join(map(str, tasks))}")
    print(f"{table(results)}\n\n{summary(results)}\nwrote {path}.csv and {path}.png")


def _result(task: Task, seed: int, name: str, estimator: MutualInformationEstimator) -> Result:
    value, std_error, refused = math.nan, math.nan, ""
    begin = perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = estimator.estimate(task.x, task.y)
            value, std_error = found.value, found.std_error
        except ValueError as error:
            refused = str(error)
    return Result(
        task.name,
        task.title,
        task.x.shape[1],
        task.y.shape[1],
        len(task.x),
        seed,
        name,
        task.truth,
        value,
        value - task.truth,
        std_error,
        perf_counter() - begin,
        refused,
        " | ".join(names(str(warning.message) for warning in caught)),
    )
