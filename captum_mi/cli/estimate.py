"""``captum-mi estimate``: mutual information of two variables, or of all pairs of columns."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

from captum_mi._checks import check_choice, check_positive
from captum_mi.cli._matrix import print_matrix
from captum_mi.cli._options import check_out, compressor_of

HELP = "mutual information of two variables in a file, or of all pairs of columns of a table"
DESCRIPTION = (
    "Estimate the mutual information of two variables, in nats, with its standard error and"
    " 95 % interval; of a table of more than two columns, of which --x and --y name none, that of"
    " each pair of columns. The error is that of sampling; an estimator's bias is not in it."
    " Nothing is clipped: near independence an estimate may be negative."
)
EXAMPLES = """\
examples:
  captum-mi estimate
      every estimator that needs no training, on normals whose mutual information is known
  captum-mi estimate samples.npz
      between the arrays x and y of the file, or between its two arrays
  captum-mi estimate table.csv
      each pair of columns, as CSV and heat map, with a permutation test of independence
  captum-mi estimate table.csv --x height,width --y shape
      columns of numbers, texts or both; the estimator is chosen by what they hold
  captum-mi estimate table.csv --x 0-3 --y 4,5 --method ksg --k 5
  captum-mi estimate layers.npz --x input --y layer3 --compress pca:4 --out layer3.json
"""
FLAGS = {
    "MutualInformation()": "--method auto",
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
        help=(
            ".npz with two arrays; .npy, .csv or .tsv with columns (default: a demonstration on"
            " samples that are drawn)"
        ),
    )
    parser.add_argument(
        "--x",
        metavar="NAMES",
        help=(
            "one variable: an array of the .npz file, or columns of the table, by name, by number"
            " from 0 or as a range: height,width or 0-3 (default: what is called x, or the first of"
            " two)"
        ),
    )
    parser.add_argument(
        "--y", metavar="NAMES", help="the other (default: what is called y, or the second of two)"
    )
    parser.add_argument(
        "--method",
        default="auto",
        help=(
            "auto (chosen by the kind and number of columns), copula (neighbors of normal scores,"
            " against shuffled pairs), gaussian (canonical correlations of normal scores), ksg"
            " (neighbor counts), ksg-cv (the same with a control variate), mixed (neighbor counts"
            " for columns that are discrete in part), plugin (labels), wkl (weighted nearest"
            " neighbors), kl (nearest neighbor), kde (kernel density), or a critic that is trained,"
            " on images as they are, too: mine, nwj, jsd, infonce or smile; default: auto"
        ),
    )
    parser.add_argument(
        "--k",
        type=int,
        metavar="N",
        help=(
            "how many neighbors copula and wkl weigh, or which one kl, ksg and mixed take (default:"
            " copula and wkl the fewest of little noise, 5 to 50; kl 1; ksg and mixed 3)"
        ),
    )
    parser.add_argument(
        "--jitter",
        type=float,
        metavar="S",
        help=(
            "of wkl, kl and ksg: add normal noise of S standard deviations of each column, which"
            " separates tied values; auto, copula and mixed take ties as they are (default: none)"
        ),
    )
    parser.add_argument(
        "--discrete", action="store_true", help="y is a label, number or text, in one column"
    )
    parser.add_argument(
        "--compress",
        metavar="KIND:N",
        help="compress each variable of more than N numbers to N first: pca:4 or autoencoder:4",
    )
    parser.add_argument(
        "--permutations",
        type=int,
        metavar="N",
        help=(
            "shuffles of a test of independence (default: 200 for each pair of columns, none for"
            " two variables)"
        ),
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help=(
            "write the result to PATH too, as JSON; of all pairs, as CSV, with a heat map beside it"
            " (default: information.csv)"
        ),
    )


def run(options: argparse.Namespace) -> None:
    """Estimates mutual information and prints it, or demonstrates every estimator."""
    from captum_mi.cli._variables import read_table, read_variables
    from captum_mi.estimators import (
        ESTIMATORS,
        NEURAL,
        compress_wide,
        method_options,
        permutation_test,
    )

    check_choice("--method", options.method, ESTIMATORS)
    settings = {
        name: getattr(options, name)
        for name in ("k", "jitter")
        if getattr(options, name) is not None
    }
    for name in settings.keys() - set(method_options(options.method)):
        able = [method for method in ESTIMATORS if name in method_options(method)]
        raise ValueError(f"`--{name}` is for {', '.join(able)}; {options.method} takes none")
    estimator = ESTIMATORS[options.method](**settings)
    if options.permutations is not None:
        check_positive("--permutations", options.permutations)
    compressor = None if options.compress is None else compressor_of(options.compress, "--compress")
    if options.file is None:
        for name in ("x", "y", "discrete", "compress", "permutations", "out", "k", "jitter"):
            if getattr(options, name):
                raise ValueError(f"`--{name}` needs a FILE; without one there is a demonstration")
        _demonstrate()
        return
    if options.out is not None:
        check_out(options.out)
    automatic = options.method == "auto"
    if options.x is None and options.y is None and (table := read_table(options.file)) is not None:
        if not automatic or options.discrete or compressor is not None:
            raise ValueError(
                "all pairs of columns are estimated by their kinds; name `--x` and `--y` for"
                " another `--method`, `--discrete` or `--compress`"
            )
        print_matrix(table, options.out or Path("information.csv"), options.permutations or 200)
        return
    x, y = read_variables(
        options.file, options.x, options.y, discrete=options.discrete, texts=automatic
    )
    for name, values in {"x": x, "y": y}.items():
        if values.ndim > 2 and compressor is None and options.method not in ("auto", *NEURAL):
            raise ValueError(
                f"{name} has shape {values.shape}; give `--compress pca:4`, or flatten it to (N, d)"
            )
    if compressor is not None:
        estimator = compress_wide(estimator, compressor, x, None if options.discrete else y)
    test = None
    if options.permutations is None:
        found = estimator.estimate_discrete(x, y) if options.discrete else estimator.estimate(x, y)
    else:
        test = permutation_test(
            x,
            y,
            estimator=estimator,
            permutations=options.permutations,
            discrete=options.discrete,
        )
        found = test.statistic
    low, high = found.interval(0.95)
    print(f"x {x.shape}, y {y.shape}: {found.n_samples} samples")
    print(found.estimator)
    print(
        f"mutual information {found.value:.4f} nats, standard error {found.std_error:.4f}, 95 %"
        f" interval {low:.4f} to {high:.4f}"
    )
    for note in found.notes:
        print(note)
    if test is not None:
        print(f"test of independence, {options.permutations} permutations: p = {test.p_value:.4f}")
    if options.out is not None:
        result = {
            "file": options.file,
            "x": options.x,
            "y": options.y,
            "discrete": options.discrete,
            "estimator": found.estimator,
            "notes": list(found.notes),
            "p_value": None if test is None else test.p_value,
            "nats": found.value,
            "std_error": found.std_error,
            "interval": [low, high],
            "samples": found.n_samples,
            "version": version("captum_mi"),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwrote {options.out}")


def _demonstrate() -> None:
    from captum_mi.datasets import CorrelatedNormals
    from captum_mi.estimators import ESTIMATORS, NEURAL

    truth, count = DEMONSTRATION["mutual_information"], int(DEMONSTRATION["samples"])
    x, y = CorrelatedNormals(truth).sample(count, seed=0)
    print(f"{count} samples of normals in 2 + 2 dimensions; the truth is {truth:.3f} nats")
    print("method    estimate  std error  95 % interval")
    for name, factory in ESTIMATORS.items():
        if name in ("plugin", *NEURAL):  # of labels; these take a minute
            continue
        found = factory().estimate(x, y)
        low, high = found.interval(0.95)
        line = f"{name:8}  {found.value:8.3f}  {found.std_error:9.3f}  {low:.3f} to {high:.3f}"
        print(line)
