"""``captum-mi estimate``: mutual information of two variables in a file."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from captum_mi.cli._options import check_out

HELP = "mutual information of two variables in a file"
DESCRIPTION = (
    "Estimate the mutual information of two variables, in nats, with its standard error and"
    " 95 % interval. The error is that of sampling; an estimator's bias is not in it."
    " Nothing is clipped: near independence an estimate may be negative."
)
EXAMPLES = """\
examples:
  captum-mi estimate
      every estimator on normals whose mutual information is known
  captum-mi estimate samples.npz
      between the arrays x and y of the file, or between its two arrays
  captum-mi estimate table.csv --x 0-3 --y 4,5 --method ksg --k 5
  captum-mi estimate table.csv --x height,width --y shape --discrete
  captum-mi estimate layers.npz --x input --y layer3 --compress pca:4 --out layer3.json
"""
FLAGS = {
    "KSG": "--method ksg",
    "PCA": "--compress pca:N",
    "bandwidth": "bandwidth of KernelDensity in Python",
    "estimate_discrete": "--discrete",
    "jitter": "--jitter",
    "k": "--k",
    "labels": "y",
    "n": "N of --compress",
}

DEMONSTRATION = {"mutual_information": 2.0, "samples": 2000}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help=".npz with two arrays, .npy or .csv with columns (default: a demonstration)",
    )
    parser.add_argument(
        "--x",
        metavar="NAMES",
        help=(
            "one variable: an array of the .npz file, or columns of the table, by name, by number"
            " from 0 or as a range: height,width or 0-3 (default: array x, or the first of two)"
        ),
    )
    parser.add_argument(
        "--y", metavar="NAMES", help="the other (default: array y, or the second of two)"
    )
    parser.add_argument(
        "--method",
        default="wkl",
        help=(
            "wkl (weighted nearest neighbours), kl (nearest neighbour), ksg (neighbour counts) or"
            " kde (kernel density); default: wkl"
        ),
    )
    parser.add_argument(
        "--k",
        type=int,
        metavar="N",
        help=(
            "how many neighbours wkl weighs, or which one kl and ksg take (default: wkl as many as"
            " there are columns, at least 5; kl 1; ksg 3)"
        ),
    )
    parser.add_argument(
        "--jitter",
        type=float,
        metavar="S",
        help=(
            "add normal noise, which separates ties, of S standard deviations of each column: about"
            " the step to which values were rounded; a tiny one, say 1e-10, serves ksg alone"
            " (default: none)"
        ),
    )
    parser.add_argument(
        "--discrete", action="store_true", help="y is a label, of numbers or texts, in one column"
    )
    parser.add_argument(
        "--compress",
        metavar="KIND:N",
        help="compress each variable of more than N columns first: pca:4 or autoencoder:4",
    )
    parser.add_argument("--out", type=Path, metavar="PATH", help="write the result as JSON too")


def run(options: argparse.Namespace) -> None:
    """Estimates mutual information and prints it, or demonstrates every estimator."""
    from captum_mi.cli._variables import read_variables
    from captum_mi.estimators import ESTIMATORS

    if options.method not in ESTIMATORS:
        known = ", ".join(ESTIMATORS)
        raise ValueError(f"`--method` must be one of {known}, got {options.method!r}")
    settings = {
        name: getattr(options, name)
        for name in ("k", "jitter")
        if getattr(options, name) is not None
    }
    if settings and options.method == "kde":
        (name, *_) = settings
        raise ValueError(f"`--{name}` is for wkl, kl and ksg; kde has no neighbours")
    estimator = ESTIMATORS[options.method](**settings)
    compress = _compressor(options.compress)
    if options.file is None:
        for name in ("x", "y", "discrete", "compress", "out", "k", "jitter"):
            if getattr(options, name):
                raise ValueError(f"`--{name}` needs a FILE; without one there is a demonstration")
        _demonstrate()
        return
    if options.out is not None:
        check_out(options.out)
    x, y = read_variables(options.file, options.x, options.y, discrete=options.discrete)
    for name, values in {"x": x, "y": y}.items():
        if values.ndim > 2 and compress is None:
            raise ValueError(
                f"{name} has shape {values.shape}; give `--compress pca:4`, or flatten it to (N, d)"
            )
    estimator = _compressed(estimator, compress, x, None if options.discrete else y)
    found = estimator.estimate_discrete(x, y) if options.discrete else estimator.estimate(x, y)
    low, high = found.interval(0.95)
    print(f"x {_shape(x)}, y {_shape(y)}: {found.n_samples} samples")
    print(f"{estimator!r}")
    print(
        f"mutual information {found.value:.4f} nats, standard error {found.std_error:.4f}, 95 %"
        f" interval {low:.4f} to {high:.4f}"
    )
    if options.out is not None:
        record = {
            "file": options.file,
            "x": options.x,
            "y": options.y,
            "discrete": options.discrete,
            "estimator": repr(estimator),
            "nats": found.value,
            "std_error": found.std_error,
            "interval": [low, high],
            "samples": found.n_samples,
            "version": version("captum_mi"),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(f"\nwrote {options.out}")


def _demonstrate() -> None:
    from captum_mi.datasets import CorrelatedNormals
    from captum_mi.estimators import ESTIMATORS

    truth, count = DEMONSTRATION["mutual_information"], int(DEMONSTRATION["samples"])
    x, y = CorrelatedNormals(truth).sample(count, seed=0)
    print(f"{count} samples of normals in 2 + 2 dimensions; the truth is {truth:.3f} nats")
    print("method  estimate  std error  95 % interval")
    for name, factory in ESTIMATORS.items():
        found = factory().estimate(x, y)
        low, high = found.interval(0.95)
        line = f"{name:6}  {found.value:8.3f}  {found.std_error:9.3f}  {low:.3f} to {high:.3f}"
        print(line)


def _compressor(spec: str | None) -> Any:  # noqa: ANN401
    """Reads "pca:4"; None stays None."""
    from captum_mi.estimators import COMPRESSORS

    if spec is None:
        return None
    kind, _, size = spec.partition(":")
    if kind not in COMPRESSORS or not size.isdecimal() or int(size) < 1:
        known = " or ".join(f"{name}:N" for name in COMPRESSORS)
        raise ValueError(f"`--compress` must be {known}, got {spec!r}")
    return COMPRESSORS[kind](int(size))


def _compressed(estimator: Any, compressor: Any, x: Any, y: Any) -> Any:  # noqa: ANN401
    """Puts a compressor in front of the estimator for each variable that is wider than its code."""
    from math import prod

    from captum_mi.estimators import Compressed

    wide = {
        name: compressor
        for name, values in (("x", x), ("y", y))
        if compressor is not None and values is not None and prod(values.shape[1:]) > compressor.n
    }
    return Compressed(estimator, **wide) if wide else estimator


def _shape(values: Any) -> str:  # noqa: ANN401
    return f"({', '.join(map(str, values.shape))})"
