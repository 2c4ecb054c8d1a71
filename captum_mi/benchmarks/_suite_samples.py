"""Draws the samples of every task of ``benchmark-mi`` into a file.

Run by its path in an environment that has ``benchmark-mi``, without this package or PyTorch.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np


def draw(samples: int, seed: int) -> dict[str, Any]:
    """Draws from every task, as many pairs from each, in the type of number that the task gives.

    Args:
        samples: N.
        seed: of every task.

    Returns:
        ``tasks``, a list in JSON of each task's name, title and true mutual information in nats,
        and the arrays ``x0``, (N, d_x), and ``y0``, (N, d_y), of the first task, and so on.
    """
    from bmi.benchmark import BENCHMARK_TASKS
    from tqdm import tqdm

    tasks, arrays = [], {}
    for number, (name, task) in enumerate(tqdm(BENCHMARK_TASKS.items(), "drawing", unit="task")):
        x, y = task.sample(samples, seed)
        arrays[f"x{number}"], arrays[f"y{number}"] = np.asarray(x), np.asarray(y)
        truth = float(task.mutual_information)
        tasks.append({"name": name, "title": task.name, "truth": truth})
    return {"tasks": np.array(json.dumps(tasks)), **arrays}


def main() -> None:
    """Writes the file of a number of samples and a seed, whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the .npz file to write")
    parser.add_argument("--samples", type=int, required=True, help="of each task")
    parser.add_argument("--seed", type=int, required=True, help="of each task")
    options = parser.parse_args()
    arrays = draw(options.samples, options.seed)
    part = options.file.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    part.replace(options.file)


if __name__ == "__main__":
    main()
