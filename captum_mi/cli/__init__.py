"""The command line: parsing and printing only."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from captum_mi.explanation import ImageExplanation

EXAMPLES = """\
examples:
  captum-mi explain
      a scene that the package ships, with the embedded CLIP
  captum-mi explain scene.png "a red circle" "a blue square"
  captum-mi explain dog.jpg "a dog on a sofa" --model openai/clip-vit-base-patch32
  captum-mi explain dog.jpg "a dog" --model ./my-clip --layer 9,8 --steps 20 --out dog

nib, mfaba, fastig and rise say what speaks for a text and what against it; m2ib gives the nats that
the text needs; the others say what is relevant. rise, mfaba and the methods of attention explain a
place of their own, whatever --layer says; the JSON names it.
"""

EVALUATE_EXAMPLES = """\
examples:
  captum-mi evaluate
      every method on 200 scenes that the package draws, with the embedded CLIP
  captum-mi evaluate --images Flickr8k/Images --captions Flickr8k/captions.txt --samples 1000 \\
      --model openai/clip-vit-base-patch32 --layer 9 --out flickr8k
  captum-mi evaluate --classes tiny-imagenet-200/train --class-names tiny-imagenet-200/words.txt
  captum-mi evaluate --sweep n_steps 3 5 8 10 13 15 18 20 --out steps
  captum-mi evaluate --sweep beta --methods m2ib --samples 50 --out beta
  accelerate launch --multi_gpu --num_processes 4 -m captum_mi evaluate --out many
      four processes, on GPUs or, without any, on CPUs; on many machines as accelerate says

layouts of --captions (found out by reading the file):
  Flickr8k             captions.txt with the header "image,caption", or Flickr8k.token.txt
  Conceptual Captions  lines "caption<TAB>address", each image in the folder by its file name; or no
                       file: img2dataset's folder, every image beside its .txt or .json
  any                  CSV or TSV with a header, JSON (list, mapping, COCO), JSON lines
Of several captions of an image the first counts. A run that was killed goes on when the same
command is given again.
"""

ESTIMATE_EXAMPLES = """\
examples:
  captum-mi estimate
      every estimator on normals whose mutual information is known
  captum-mi estimate samples.npz
      between the arrays x and y of the file, or between its two arrays
  captum-mi estimate table.csv --x 0-3 --y 4,5 --method ksg --k 5
  captum-mi estimate table.csv --x height,width --y shape --discrete
  captum-mi estimate layers.npz --x input --y layer3 --compress pca:4 --out layer3.json
"""

# What each command calls the library's arguments, in errors and warnings.
EXPLAIN_FLAGS = {
    "layer": "--layer N,M (image, text)",
    "model": "--model",
    "n_steps": "--steps",
    "texts": "TEXT",
}
EVALUATE_FLAGS = EXPLAIN_FLAGS | {
    "captions": "--captions",
    "class_names": "--class-names",
    "folder": "--images",
    "methods": "--methods",
    "sweep": "--sweep",
    "template": "--template",
    "texts": "the caption",
}
ESTIMATE_FLAGS = {
    "KSG": "--method ksg",
    "PCA": "--compress pca:N",
    "bandwidth": "bandwidth of KernelDensity in Python",
    "estimate_discrete": "--discrete",
    "jitter": "--jitter",
    "k": "--k",
    "labels": "y",
    "n": "N of --compress",
}

UNITS = {"nib": "cosine", "mfaba": "cosine", "fastig": "cosine", "rise": "cosine", "m2ib": "nats"}
"""What a method's numbers are: signed parts of the cosine; nats, which are never negative; those
of the others are never negative either, and have no unit."""
EXTREMES = {
    "cosine": ("most for it", "most against it"),
    "nats": ("most nats", "fewest nats"),
    None: ("most relevant", "least relevant"),
}
COLORS = {
    "cosine": "red speaks for the text, blue against it, in parts of the cosine",
    "nats": "the redder, the more nats the text needs",
    None: "the redder, the more relevant to the text",
}

MODEL_HELP = (
    "image-text model, such as CLIP, in Hugging Face layout (default: an embedded CLIP that knows"
    " colored shapes, no photographs)"
)
STEPS_HELP = "steps of nib, m2ib and mfaba (default: 10)"

SHIPPED_SCENE = 8
DEMONSTRATION = {"mutual_information": 2.0, "samples": 2000}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``captum-mi``; returns the exit status: 0, 2 for bad input, 130 when stopped."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    options, rest = _parser().parse_known_args(arguments)

    def say(message: object) -> None:
        line = " ".join(_in_flags(str(message), options.flags).split())
        print(f"captum-mi {options.command}: {line}", file=sys.stderr)

    told: set[str] = set()

    def warn_once(message: Warning | str, *_args: object, **_kwargs: object) -> None:
        if str(message) not in told:
            told.add(str(message))
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = warn_once
        try:
            _take(rest, options)
            options.run(options)
        except OSError as error:
            say(f"{error.strerror}: {error.filename!r}" if error.filename else error)
            return 2
        except (TypeError, ValueError) as error:
            say(error)
            return 2
        except KeyboardInterrupt:
            say("stopped")
            return 130
    return 0


def _take(rest: list[str], options: argparse.Namespace) -> None:
    """Takes texts that stand behind an option, where argparse takes no more of them."""
    unknown = [argument for argument in rest if argument.startswith("-")]
    if unknown or (rest and options.command != "explain"):
        raise ValueError(
            f"there is no {(unknown or rest)[0]!r} here; captum-mi {options.command} --help lists"
            " the options"
        )
    if rest:
        options.texts = [*options.texts, *rest]


def _in_flags(message: str, flags: Mapping[str, str]) -> str:
    """Calls the library's arguments, which stand in backticks, as the command line does."""
    return re.sub(r"`(\w+)`", lambda name: f"`{flags.get(name[1], name[1])}`", message)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captum-mi", description="Explain representations with mutual information."
    )
    parser.add_argument("--version", action="version", version=version("captum_mi"))
    commands = parser.add_subparsers(dest="command", required=True)
    explain = commands.add_parser(
        "explain",
        help="where in an image, and in which words, the evidence for a text lies",
        description=(
            "Explain an image with one or more texts: a map of the image and scores of the words,"
            " red for and blue against the pair. Writes a picture and the numbers behind it, as"
            " JSON, and prints a table."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument(
        "image",
        nargs="?",
        metavar="IMAGE",
        help="an image file (default: a shipped scene, with its own texts)",
    )
    explain.add_argument(
        "texts", nargs="*", metavar="TEXT", help="one or more texts, each explained on its own"
    )
    explain.add_argument("--model", metavar="FOLDER|HUB_NAME", help=MODEL_HELP)
    explain.add_argument(
        "--method",
        default="nib",
        help="nib, m2ib, rise, gradcam, chefer, attention, mfaba or fastig (default: nib)",
    )
    explain.add_argument(
        "--layer",
        type=_layers,
        default=(None, None),
        metavar="N[,M]",
        help=(
            "explain the hidden state after N blocks of both encoders, or after N of the image's"
            " and M of the text's (default: three blocks before the end of each)"
        ),
    )
    explain.add_argument("--steps", type=int, default=10, metavar="N", help=STEPS_HELP)
    explain.add_argument(
        "--out",
        type=Path,
        default=Path("explanation"),
        metavar="PATH",
        help="write PATH.png and PATH.json, over what is there (default: explanation)",
    )
    explain.set_defaults(run=_explain, flags=EXPLAIN_FLAGS)
    _add_evaluate(commands)
    _add_estimate(commands)
    return parser


def _add_evaluate(commands: Any) -> None:  # noqa: ANN401
    evaluate = commands.add_parser(
        "evaluate",
        help="which method explains a model best on your data",
        description=(
            "Explain every pair of a data set with every method, and judge the maps: what the"
            " similarity loses (drop, lower is better) or wins (increase, share of pairs in"
            " percent, higher is better) where only what the map shows remains, of the image and of"
            " the text, with standard errors; speed; encoder passes, forward / backward. On scenes"
            " also whether the map points at the named object. Writes table.csv, table.json,"
            " examples.png and the records in OUT; with --sweep one CSV and one plot instead."
        ),
        epilog=EVALUATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = evaluate.add_argument_group("data (default: scenes)")
    data.add_argument("--images", metavar="FOLDER", help="a folder of images with captions")
    data.add_argument(
        "--captions",
        metavar="FILE",
        help="the captions of --images (default: a .txt or .json beside each image)",
    )
    data.add_argument(
        "--classes", metavar="FOLDER", help="a folder with one folder of images per class"
    )
    data.add_argument(
        "--class-names",
        metavar="FILE",
        help="lines 'folder<TAB>name' for --classes (default: the folders' own names)",
    )
    data.add_argument(
        "--template",
        metavar="TEXT",
        default="a photo of a {}",
        help="text for an image of --classes, {} the class (default: 'a photo of a {}')",
    )
    data.add_argument(
        "--samples",
        type=int,
        default=200,
        metavar="N",
        help="pairs, evenly spread over the data set (default: 200)",
    )
    evaluate.add_argument("--model", metavar="FOLDER|HUB_NAME", help=MODEL_HELP)
    evaluate.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help=(
            "rows: nib m2ib rise gradcam chefer attention mfaba fastig, and for comparison ig"
            " (Captum's IntegratedGradients), random and patches (noise on pixels, on patches),"
            " inverted (nib with its sign turned); default: all; with --sweep the NIB paper's"
        ),
    )
    evaluate.add_argument(
        "--layer",
        type=_layers,
        default=(None, None),
        metavar="N[,M]",
        help=(
            "nib, m2ib, gradcam and fastig explain the hidden state after N blocks of both"
            " encoders, or after N of the image's and M of the text's (default: three blocks before"
            " the end of each)"
        ),
    )
    evaluate.add_argument("--steps", type=int, default=10, metavar="N", help=STEPS_HELP)
    evaluate.add_argument(
        "--masks", type=int, default=500, metavar="N", help="masks of rise (default: 500)"
    )
    evaluate.add_argument(
        "--compat",
        choices=["nib"],
        help=(
            "score texts as the NIB paper's code does, to compare with its tables: it leaves out"
            " the token in which the model gathers the text"
        ),
    )
    evaluate.add_argument(
        "--sweep",
        nargs="+",
        metavar=("SETTING", "VALUE"),
        help=(
            "run --methods once for each value of n_steps (the steps), layer or beta (m2ib's weight"
            " of the nats) instead (default: the NIB paper's values)"
        ),
    )
    evaluate.add_argument(
        "--examples",
        type=int,
        default=4,
        metavar="N",
        help="the first N pairs' maps are drawn, side by side (default: 4)",
    )
    evaluate.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation"),
        metavar="FOLDER",
        help="where to write, and to go on after a run that was killed (default: evaluation)",
    )
    evaluate.set_defaults(run=_evaluate, flags=EVALUATE_FLAGS)


def _add_estimate(commands: Any) -> None:  # noqa: ANN401
    estimate = commands.add_parser(
        "estimate",
        help="mutual information of two variables in a file",
        description=(
            "Estimate the mutual information of two variables, in nats, with its standard error and"
            " 95 % interval. The error is that of sampling; an estimator's bias is not in it."
            " Nothing is clipped: near independence an estimate may be negative."
        ),
        epilog=ESTIMATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    estimate.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help=".npz with two arrays, .npy or .csv with columns (default: a demonstration)",
    )
    estimate.add_argument(
        "--x",
        metavar="NAMES",
        help=(
            "one variable: an array of the .npz file, or columns of the table, by name, by number"
            " from 0 or as a range: height,width or 0-3 (default: array x, or the first of two)"
        ),
    )
    estimate.add_argument(
        "--y", metavar="NAMES", help="the other (default: array y, or the second of two)"
    )
    estimate.add_argument(
        "--method",
        default="wkl",
        help=(
            "wkl (weighted nearest neighbours), kl (nearest neighbour), ksg (neighbour counts) or"
            " kde (kernel density); default: wkl"
        ),
    )
    estimate.add_argument(
        "--k",
        type=int,
        metavar="N",
        help=(
            "how many neighbours wkl weighs, or which one kl and ksg take (default: wkl as many as"
            " there are columns, at least 5; kl 1; ksg 3)"
        ),
    )
    estimate.add_argument(
        "--jitter",
        type=float,
        metavar="S",
        help=(
            "add normal noise, which separates ties, of S standard deviations of each column: about"
            " the step to which values were rounded; a tiny one, say 1e-10, serves ksg alone"
            " (default: none)"
        ),
    )
    estimate.add_argument(
        "--discrete", action="store_true", help="y is a label, of numbers or texts, in one column"
    )
    estimate.add_argument(
        "--compress",
        metavar="KIND:N",
        help="compress each variable of more than N columns first: pca:4 or autoencoder:4",
    )
    estimate.add_argument("--out", type=Path, metavar="PATH", help="write the result as JSON too")
    estimate.set_defaults(run=_estimate, flags=ESTIMATE_FLAGS)


def _layers(value: str) -> tuple[int, int]:
    if not re.fullmatch(r"-?\d+(, *-?\d+)?", value, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be a number N, or N,M; got {value!r}")
    parts = value.split(",")
    return int(parts[0]), int(parts[-1])


def _explain(options: argparse.Namespace) -> None:
    from captum_mi._checks import check_positive
    from captum_mi.attr import METHODS
    from captum_mi.evaluation.rows import check_steps

    if options.method not in METHODS:
        known = ", ".join(METHODS)
        raise ValueError(f"`--method` must be one of {known}, got {options.method!r}")
    check_positive("--steps", options.steps)
    check_steps("`--steps`", options.steps, options.method)
    base = options.out.with_suffix("") if options.out.suffix in (".png", ".json") else options.out
    picture, record = Path(f"{base}.png"), Path(f"{base}.json")
    for path in (picture, record):
        _check_out(path)
    image, texts, source = _image_and_texts(options)

    from captum_mi.explanation import PLACES, explain_pairs, place, takes_steps
    from captum_mi.models import load_clip

    model, processor = load_clip(options.model)
    result = explain_pairs(
        model,
        processor,
        image,
        texts,
        method=options.method,
        layers=options.layer,
        n_steps=options.steps,
        show_progress=True,
    )
    settings = {
        "image": source,
        "model": options.model or "embedded",
        "method": options.method,
        "unit": UNITS.get(options.method),
        "explained": place(options.method, result.layers),
    }
    if takes_steps(options.method):
        settings["steps"] = options.steps
    if options.method not in PLACES:
        settings["layers"] = dict(zip(("image", "text"), result.layers, strict=True))
    base.parent.mkdir(parents=True, exist_ok=True)
    _draw(result, settings).savefig(picture, dpi=100)
    record.write_text(json.dumps(_record(result, settings), indent=1) + "\n")
    print(_table(result, settings["unit"]))
    print(f"\nwrote {picture} and {record}")


def _evaluate(options: argparse.Namespace) -> None:
    from captum_mi._checks import check_positive
    from captum_mi.attr import METHODS
    from captum_mi.evaluation import report
    from captum_mi.evaluation.processes import Processes
    from captum_mi.evaluation.rows import CONTROLS, sweep_rows, table_rows
    from captum_mi.evaluation.run import Evaluation, evaluate
    from captum_mi.models import load_clip
    from captum_mi.models.clip import hidden_states

    for name in ("samples", "steps", "masks"):
        check_positive(f"--{name}", getattr(options, name))
    if options.examples < 0:
        raise ValueError(f"`--examples` must not be negative, got {options.examples}")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"`--out` must be a folder, {str(options.out)!r} is a file")
    _check_out(options.out / "table.csv")
    pairs, source = _pairs(options)
    model, processor = load_clip(options.model)
    states = hidden_states(model, options.layer)
    arguments = {"n_steps": options.steps, "n_masks": options.masks}
    setting, values = None, []
    if options.sweep:
        setting, *given = options.sweep
        values = [_number(value) for value in given]
        rows, values = sweep_rows(
            setting, values, options.methods or [], model, states, **arguments
        )
    else:
        rows = table_rows(options.methods or [*METHODS, *CONTROLS], states, **arguments)
    settings = {
        "data": source,
        "samples": len(pairs),
        "model": options.model or "embedded",
        "rows": [row.name for row in rows],
        "layers": list(states),
        "steps": options.steps,
        "masks": options.masks,
        "compat": options.compat,
        "examples": options.examples,
        "version": version("captum_mi"),
    }
    processes = Processes()
    try:
        records = evaluate(
            Evaluation(model.to(processes.device), processor, compat=options.compat),
            pairs,
            rows,
            options.out,
            settings=settings,
            examples=options.examples,
            processes=processes,
            report=lambda message: print(
                _in_flags(message, options.flags), file=sys.stderr
            ),
        )
        if all("row" not in record for record in records):
            raise ValueError(f"no pair could be read, the first for: {records[0]['error']}")
        if processes.first:
            lines = report.summarise(records, rows)
            _report(options.out, lines, records, rows, settings, setting, values)
    finally:
        processes.close()


def _report(
    folder: Path,
    lines: list[dict[str, Any]],
    records: list[dict[str, Any]],
    rows: list[Any],
    settings: dict[str, Any],
    setting: str | None,
    values: list[float],
) -> None:
    from captum_mi.evaluation import report

    base = setting or "table"
    written = [folder / f"{base}.csv", folder / f"{base}.json"]
    report.write_csv(lines, written[0])
    report.write_json(lines, written[1], settings)
    figure = (
        report.examples(records, rows)
        if setting is None
        else report.sweep_plot(lines, setting, values)
    )
    if figure is not None:
        written.append(folder / ("examples.png" if setting is None else f"{setting}.png"))
        figure.savefig(written[-1], dpi=120)
    skipped = sum("row" not in record for record in records)
    read = len({record["index"] for record in records}) - skipped
    print(f"{settings['data']}: {read} pairs, {skipped} skipped")
    print(report.table(lines))
    for line in report.comparisons(records, rows):
        print(line)
    print(f"\nwrote {', '.join(str(path) for path in written)}")


def _pairs(options: argparse.Namespace) -> tuple[Sequence[Any], str]:
    """Returns the pairs to evaluate on, evenly spread, and what they are."""
    from captum_mi.benchmarks.pointing import SEED
    from captum_mi.datasets import captioned_images, class_folders, scene_pairs

    if options.images and options.classes:
        raise ValueError("`--images` and `--classes` exclude each other; give one of them")
    for name, needed in {"captions": "images", "class_names": "classes"}.items():
        if getattr(options, name) and not getattr(options, needed):
            raise ValueError(f"`--{name.replace('_', '-')}` needs `--{needed} FOLDER`")
    if options.images:
        pairs = captioned_images(options.images, options.captions)
        source = f"{options.images} with {options.captions or 'captions beside the images'}"
    elif options.classes:
        options.flags = options.flags | {"folder": "--classes"}
        pairs = class_folders(options.classes, options.template, class_names=options.class_names)
        source = f"{options.classes}, {options.template!r}"
    else:
        return scene_pairs(options.samples, SEED), "scenes of two objects, one named"
    _warn_of_embedded(options)
    count = min(options.samples, len(pairs))
    return [pairs[i * len(pairs) // count] for i in range(count)], source


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"`--sweep` takes numbers, got {value!r}") from None


def _estimate(options: argparse.Namespace) -> None:
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
        _check_out(options.out)
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


def _image_and_texts(options: argparse.Namespace) -> tuple[Any, list[str], str]:
    """Reads the image and the texts, or takes a shipped scene, its caption and its objects."""
    from PIL import Image

    from captum_mi.datasets import Scenes
    from captum_mi.datasets.captions import read_image

    if options.image is None:
        scene = Scenes(SHIPPED_SCENE + 1, objects=2)[SHIPPED_SCENE]
        return Image.fromarray(scene.image), [scene.caption, *scene.texts], "shipped scene"
    image = read_image(options.image)
    if not options.texts:
        raise ValueError(
            f"image {options.image!r} needs at least one text: captum-mi explain"
            f" {shlex.quote(options.image)} 'a red circle'"
        )
    for text in options.texts:
        if not text.strip():
            raise ValueError(f"a text must not be empty, got {text!r}")
        is_a_word = len(text.split()) == 1
        if is_a_word and Path(text).suffix.lower() in Image.registered_extensions():
            raise ValueError(
                f"{text!r} is the name of an image, not a text; one call explains one image, the"
                " first argument, with one or more texts"
            )
    _warn_of_embedded(options)
    return image, options.texts, options.image


def _warn_of_embedded(options: argparse.Namespace) -> None:
    """Warns whoever gives images, but no model that knows what is on them."""
    if options.model is None:
        warnings.warn(
            "without `--model` the embedded model explains, which knows eight shapes in eight"
            " colors and nothing else; for photographs give `--model openai/clip-vit-base-patch32`",
            stacklevel=2,
        )


def _check_out(path: Path) -> None:
    """Raises ValueError where no file can be written, before work is done for it."""
    if path.is_dir():
        raise ValueError(f"`--out` must name a file, {str(path)!r} is a folder")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(f"`--out` cannot be written: {str(above)!r} is no folder to write in")


def _draw(result: ImageExplanation, settings: dict[str, Any]) -> Any:  # noqa: ANN401
    from captum_mi import visualization

    steps = f", {settings['steps']} steps" if "steps" in settings else ""
    return visualization.explanation(
        result.pixels,
        [pair.heat for pair in result.pairs],
        [pair.tokens for pair in result.pairs],
        [f"{pair.text}\ncosine {pair.cosine:.3f}" for pair in result.pairs],
        caption=(
            f"{COLORS[settings['unit']]}; method {settings['method']}{steps},"
            f" {settings['explained']}, model {settings['model']}"
        ),
    )


def _record(result: ImageExplanation, settings: dict[str, Any]) -> dict[str, Any]:
    packages = ("captum_mi", "captum", "torch", "transformers")
    return {
        **settings,
        "versions": {name: version(name) for name in packages},
        "explanations": [
            {
                "text": pair.text,
                "cosine": pair.cosine,
                "patches": pair.patches.tolist(),
                "tokens": [
                    {"token": token, "score": score, "special": special}
                    for token, score, special in zip(
                        pair.tokens.tokens, pair.tokens.scores, pair.tokens.special, strict=True
                    )
                ],
            }
            for pair in result.pairs
        ],
    }


def _table(result: ImageExplanation, unit: str | None) -> str:
    width = max(len("text"), *(len(pair.text) for pair in result.pairs))
    first, last = EXTREMES[unit]
    lines = [f"{'text':{width}}  cosine  {first:13}  {last}"]
    for pair in result.pairs:
        words = [
            (score, token)
            for token, score, special in zip(
                pair.tokens.tokens, pair.tokens.scores, pair.tokens.special, strict=True
            )
            if not special
        ] or [(0.0, "-")]
        (high, best), (low, worst) = max(words), min(words)
        strongest, weakest = f"{best} {high:.3f}", f"{worst} {low:.3f}"
        if unit == "cosine":
            strongest = f"{best} {high:+.3f}" if high > 0 else "-"
            weakest = f"{worst} {low:+.3f}" if low < 0 else "-"
        lines.append(f"{pair.text:{width}}  {pair.cosine:6.3f}  {strongest:13}  {weakest}")
    return "\n".join(lines)
