"""``python -m captum_mi.benchmarks NAME``: what we measure of ourselves."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from captum_mi.attr.methods import METHODS, ready_methods
from captum_mi.benchmarks import (
    absence,
    bottleneck,
    decomposition,
    gan,
    jump,
    known_places,
    mi_speed,
    mutual_information,
    photographs,
    photographs_information,
    sentences,
    speed,
    suite,
    words,
)
from captum_mi.benchmarks.pointing import pointing
from captum_mi.models import load_clip

BOTTLENECKS = [name for name, method in METHODS.items() if method.start is not None]
FIGURES = {
    "figure3": mutual_information.gaussian_images,
    "figure4": mutual_information.rectangles,
    "figure6": mutual_information.autoencoder_against_pca,
}
"""Of Butakov et al., ICLR 2024, as ``table2`` is."""
BENCHMARKS = {
    "words": words,
    "absence": absence,
    "sentences": sentences,
    "photographs": photographs,
    "jump": jump,
    "known-places": known_places,
    "decomposition": decomposition,
    "photographs-information": photographs_information,
    "gan": gan,
    "bottleneck": bottleneck,
}
"""Those whose files hold their arguments and their printing too."""


def main() -> None:
    """Runs one benchmark and prints its table."""
    parser = argparse.ArgumentParser(prog="python -m captum_mi.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    points = commands.add_parser("pointing", help="do maps point at the named object of a scene?")
    points.add_argument("--scenes", type=int, default=200, help="how many (default: 200)")
    points.add_argument("--steps", type=int, default=10, help="steps of a method (default: 10)")
    points.add_argument(
        "--hidden-state", type=int, help="of the image's tower (default: each method's own)"
    )
    points.add_argument(
        "--methods",
        nargs="+",
        choices=ready_methods(),
        default=BOTTLENECKS,
        metavar="METHOD",
        help=f"any of {', '.join(ready_methods())} (default: {' '.join(BOTTLENECKS)})",
    )
    points.set_defaults(run=_pointing)
    for name, benchmark in BENCHMARKS.items():
        own = commands.add_parser(name, help=benchmark.HELP, description=benchmark.__doc__)
        benchmark.add_arguments(own)
        own.set_defaults(run=benchmark.run)
    fast = commands.add_parser("speed", help="how much faster than running the whole model?")
    fast.add_argument("--runs", type=int, default=7, help="timed runs of each (default: 7)")
    fast.set_defaults(run=_speed)
    known = commands.add_parser("mi", help="do estimates meet a known mutual information?")
    known.add_argument("--quick", action="store_true", help="2 minutes instead of 15")
    known.add_argument(
        "--only", choices=[*FIGURES, "table2"], help="one figure or table (default: all)"
    )
    known.add_argument(
        "--out",
        type=Path,
        default=Path("mutual-information"),
        help="folder for CSV and PNG files (default: mutual-information)",
    )
    suite.add_arguments(known)
    known.set_defaults(run=_mutual_information)
    trees = commands.add_parser("mi-speed", help="how near are estimators to the speed of trees?")
    trees.add_argument("--patience", type=float, default=60.0, help="seconds a cell may take")
    trees.set_defaults(run=_mi_speed)
    options = parser.parse_args()
    try:
        options.run(options)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))


def _pointing(options: argparse.Namespace) -> None:
    model, processor = load_clip()
    print(f"{options.scenes} two-object scenes, each object named once")
    print("pointing: the patch of the maximum touches the object; exact: the maximum is on it")
    print("gap: by how much the sum of a map misses what the cosine gains along its path, median")
    print("method      pointing  wrong object  exact  mass inside  other object negative     gap")
    for method in options.methods:
        means = pointing(
            model,
            processor,
            method,
            hidden_state=options.hidden_state,
            scenes=options.scenes,
            **METHODS[method].taken(n_steps=options.steps),
        )
        gap = f"{100 * means['gap']:5.1f} %" if "gap" in means else "-"
        print(
            f"{method:10}  {means['hit']:8.3f}  {means['wrong']:12.3f}  {means['exact']:5.3f}"
            f"  {means['mass_inside']:11.3f}  {means['other_negative']:21.3f}  {gap:>6}",
            flush=True,
        )


def _speed(options: argparse.Namespace) -> None:
    print("CLIP of ViT-B/32 size, random weights, 10 steps; medians of alternating runs")
    print("difference: the largest, as a share of the largest value of the map")
    print("method  against                                    theirs s  ours s  ratio  difference")
    benchmarks = {
        "nib     LayerIntegratedGradients, hidden state 9": speed.narrowing_ib,
        "m2ib    the published loop, both towers, block 9": speed.multimodal_ib,
    }
    for name, benchmark in benchmarks.items():
        found = benchmark(runs=options.runs)
        print(
            f"{name}  {found.reference:9.3f}  {found.ours:6.3f}  {found.ratio:5.2f}"
            f"  {found.difference:10.1e}",
            flush=True,
        )


def _mutual_information(options: argparse.Namespace) -> None:
    if options.suite:
        if options.quick or options.only:
            raise ValueError(
                "`--quick` and `--only` choose among figures, of which `--suite` is none"
            )
        suite.run(options)
        return
    suite.check_unused(options)
    for name, figure in FIGURES.items():
        if options.only in (None, name):
            points = figure(options.out, quick=options.quick)
            _print_errors(
                f"{name}: root mean squared error, nats,",
                [
                    ((error.data, error.size, error.code), error.estimator, error.rmse)
                    for error in mutual_information.root_mean_squares(points)
                ],
                options.out / name,
            )
    if options.only in (None, "table2"):
        means = mutual_information.uncompressed(options.out, quick=options.quick)
        _print_errors(
            "table2: mean squared error, square nats,",
            [((mean.size, mean.code), mean.estimator, mean.mse) for mean in means],
            options.out / "table2",
        )


def _print_errors(
    title: str, errors: Sequence[tuple[tuple[object, ...], str, float]], path: Path
) -> None:
    """Prints a line for each data set, size and code: each estimator with its error."""
    print(f"{title} over the known informations")
    lines: dict[str, list[str]] = {}
    for key, estimator, error in errors:
        what = " ".join(str(part) for part in key if part is not None)
        lines.setdefault(what, []).append(f"{estimator} {error:.3g}")
    for what, cells in lines.items():
        print(f"  {what:32}  {'  '.join(cells)}")
    print(f"  wrote {path}.csv and {path}.png", flush=True)


def _mi_speed(options: argparse.Namespace) -> None:
    print(mi_speed.table(mi_speed.main(patience=options.patience)))
    memory = mi_speed.kernel_density_memory()
    print(
        f"kernel density, 20,000 samples: {memory.after:.0f} MB at most, {memory.before:.0f} before"
    )


if __name__ == "__main__":
    main()
