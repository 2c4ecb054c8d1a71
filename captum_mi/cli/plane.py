"""``captum-mi plane``: the information plane of a classifier while it trains."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from captum_mi._checks import check_choice, check_positive
from captum_mi.cli._networks import network_of
from captum_mi.cli._options import check_out, compressor_of

if TYPE_CHECKING:
    from captum_mi.estimators import Compressor
    from captum_mi.estimators.base import MutualInformationEstimator
    from captum_mi.infoplane import InformationPlane
    from captum_mi.infoplane.classifier import Images

HELP = "what each layer tells of the input and of the class, while a network trains"
DESCRIPTION = (
    "Train the convolutional classifier of the paper (three convolutions, two dense layers, L1 to"
    " L5) with a little noise at the input of each layer, and estimate after every epoch how many"
    " nats each layer holds about the image, I(X; L), and about its class, I(L; Y). Both are"
    " estimated between codes of a few numbers, and can miss what the codes leave out. Writes"
    " plane.csv, plane.json with the phases, plane.png (the path of each layer) and epochs.png"
    " (both quantities by epoch) to --out."
)
EXAMPLES = """\
examples:
  captum-mi plane
      on scikit-learn's digits; two minutes
  captum-mi plane --data ~/data --out mnist
      on torchvision's MNIST, from ~/data/MNIST/raw
  captum-mi plane --data ~/data --rate 1e-5 --epochs 300 --batch-size 1024 --out paper
      as the paper has it; hours on a CPU
  captum-mi plane --data ~/data --dataset cifar10 --model my_networks:small_resnet \\
      --layers stem blocks.0 blocks.1 head --out resnet
  captum-mi plane --data ~/data --checkpoints 'run7/epoch-*.safetensors' --out run7/plane
      the plane of a training that is over
A run that was killed goes on when the same command is given again, and gives the same numbers. With
more --epochs a run is prolonged.
"""
FLAGS = {
    "batch_size": "--batch-size",
    "checkpoints": "--checkpoints",
    "dataset": "--dataset",
    "epochs": "--epochs",
    "k": "--k",
    "layers": "--layers",
    "learning_rate": "--rate",
    "n": "N of --input-code or --layer-code",
    "noise": "--noise",
    "path": "--out",
    "root": "--data",
    "smooth": "--smooth",
}

TO_CODE = 10_000
"""Images that the autoencoder is trained on, at most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    data = parser.add_argument_group("data (default: scikit-learn's digits)")
    data.add_argument(
        "--data", type=Path, metavar="FOLDER", help="where torchvision finds the data set"
    )
    data.add_argument("--dataset", choices=["mnist", "cifar10"], help="which one (default: mnist)")
    data.add_argument(
        "--record",
        choices=["test", "all"],
        help=(
            "images to estimate with: those to test with, as the paper, or all, for smaller"
            " intervals (default: test; of digits, which are few, all)"
        ),
    )
    model = parser.add_argument_group("network (default: the paper's)")
    model.add_argument(
        "--model",
        metavar="MODULE:FUNCTION",
        help=(
            "Python function without arguments that returns a torch module: images in, scores of"
            " ten classes out; needs --layers"
        ),
    )
    model.add_argument(
        "--layers", nargs="+", metavar="NAME", help="its layers to record, by their dotted names"
    )
    model.add_argument(
        "--noise",
        type=float,
        default=1e-3,
        metavar="S",
        help=(
            "deviation of the noise that each layer's input is multiplied with, in training and in"
            " records (default, and the paper's: 1e-3)"
        ),
    )
    model.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    training = parser.add_argument_group("training by Adam")
    training.add_argument(
        "--epochs", type=int, default=40, metavar="N", help="default: 40; the paper's: 300"
    )
    training.add_argument(
        "--rate",
        type=float,
        default=1e-3,
        metavar="R",
        help=(
            "learning rate (default: 1e-3, which needs no more than the default epochs; the"
            " paper's: 1e-5)"
        ),
    )
    training.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="images of a step (default: 512, of digits 32; the paper's: 1024)",
    )
    training.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of weights, order and noise (default: 0)"
    )
    training.add_argument(
        "--checkpoints",
        metavar="GLOB",
        help=(
            "instead of training, load these safetensors files, in quotation marks; the last number"
            " in a file's name is its epoch"
        ),
    )
    plane = parser.add_argument_group("plane")
    plane.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="record epochs 0 (before training), N, 2N, ... (default: 1)",
    )
    plane.add_argument(
        "--input-code",
        default="autoencoder:4",
        metavar="KIND:N",
        help=(
            "how an image becomes N numbers: autoencoder:N, trained once on the images to train on,"
            " or pca:N (default, and the paper's: autoencoder:4)"
        ),
    )
    plane.add_argument(
        "--layer-code",
        default="pca:4",
        metavar="KIND:N",
        help="likewise of each layer, anew at each record (default, and the paper's: pca:4)",
    )
    plane.add_argument(
        "--method",
        default="wkl",
        help="wkl, kl, ksg, copula, see captum-mi estimate (default, and the paper's: wkl)",
    )
    plane.add_argument(
        "--k",
        type=int,
        metavar="N",
        help="its neighbors (default: wkl 5, as the paper; kl 1; ksg 3)",
    )
    plane.add_argument(
        "--smooth",
        type=int,
        metavar="N",
        help="draw paths smoothed over N records, and say so (default: as they are)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("plane"),
        metavar="FOLDER",
        help="where to write, and to go on with a run that was killed (default: plane)",
    )


def run(options: argparse.Namespace) -> None:
    """Trains and records, or records what was trained; writes rows, pictures and a summary."""
    import torch

    from captum_mi._records import check_settings, write_settings
    from captum_mi.infoplane import InformationPlane
    from captum_mi.infoplane.classifier import Training, find_checkpoints, follow, load_each

    _check(options)
    train, recorded, source = _images(options)
    torch.manual_seed(options.seed)
    model, layers = network_of(options, train.images[:2])
    batch_size = options.batch_size
    if batch_size is None:
        batch_size = 512 if options.data else 32
    training = Training(
        layers, options.epochs, options.rate, batch_size, options.noise, options.seed
    )
    estimator = _estimator(options)
    layer_code = compressor_of(options.layer_code, "--layer-code")
    settings: dict[str, object] = {
        "data": source,
        "model": options.model or "the paper's",
        "layers": list(layers),
        "noise": options.noise,
        "seed": options.seed,
        "estimator": repr(estimator),
        "input_code": options.input_code,
        "layer_code": options.layer_code,
        "every": options.every,
        "version": version("captum_mi"),
    }
    if options.checkpoints is None:
        settings |= {"learning_rate": options.rate, "batch_size": batch_size}
    else:
        settings["checkpoints"] = options.checkpoints
    folder = options.out
    check_settings(folder, settings)
    state, table = folder / "state.pt", folder / "plane.csv"
    if state.exists() and not table.exists():
        raise ValueError(f"{str(folder)!r} has lost its plane.csv; remove the folder")
    checkpoints = {} if options.checkpoints is None else find_checkpoints(options.checkpoints)
    folder.mkdir(parents=True, exist_ok=True)
    write_settings(folder, settings)
    plane = InformationPlane(
        model,
        layers,
        estimator,
        input_code=_input_code(options.input_code, train, folder / "code.safetensors"),
        layer_compressor=layer_code,
        path=table,
    )
    epochs = load_each(model, checkpoints) if checkpoints else training.run(model, train, state)

    def report(message: str) -> None:
        print(f"captum-mi plane: {message}", file=sys.stderr)

    follow(plane, epochs, training, train, recorded, every=options.every, report=report)
    _write(options, plane, settings, recorded)


def _check(options: argparse.Namespace) -> None:
    from captum_mi.estimators import ESTIMATORS, method_options

    check_choice("--method", options.method, ESTIMATORS)
    check_positive("--every", options.every)
    if options.dataset is not None and options.data is None:
        raise ValueError("`--dataset` needs `--data`")
    if (options.model is None) != (options.layers is None):
        raise ValueError("`--model` and `--layers` need each other; the paper's has L1 to L5")
    if options.k is not None and "k" not in method_options(options.method):
        raise ValueError(f"`--k` is for methods of neighbors, not for {options.method}")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"`--out` must be a folder, {str(options.out)!r} is a file")
    check_out(options.out / "plane.csv")


def _images(options: argparse.Namespace) -> tuple[Images, Images, str]:
    """Returns the images to train on, those to record with, and what they are."""
    from captum_mi.infoplane.classifier import read_images

    dataset = (options.dataset or "mnist") if options.data else "digits"
    root = options.data and options.data.expanduser()
    train, test = read_images(dataset, root)
    record = options.record or ("test" if options.data else "all")
    recorded = train.with_those_of(test) if record == "all" else test
    source = dataset if root is None else f"{dataset} in {str(root)!r}"
    return train, recorded, f"{source}, {len(train.images)} to train on, {record} to record with"


def _estimator(options: argparse.Namespace) -> MutualInformationEstimator:
    from captum_mi.estimators import ESTIMATORS

    k = 5 if options.k is None and options.method == "wkl" else options.k
    return ESTIMATORS[options.method](**({} if k is None else {"k": k}))


def _input_code(spec: str, train: Images, path: Path) -> Compressor:
    """Returns the code of the images, fitted; an autoencoder is kept, and read if it is there."""
    from captum_mi.estimators import Autoencoder

    code = compressor_of(spec, "--input-code")
    if not isinstance(code, Autoencoder):
        return code.fit(train.images)
    if not path.exists():
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        code.fit(train.images[:TO_CODE]).save(partial)
        partial.replace(path)
    return Autoencoder.load(path)


def _write(
    options: argparse.Namespace,
    plane: InformationPlane,
    settings: dict[str, object],
    recorded: Images,
) -> None:
    """Draws the pictures, writes the summary, and prints it."""
    from captum_mi import visualization
    from captum_mi.infoplane.classifier import accuracy, describe, summarize

    if not plane.rows:
        raise ValueError("no epoch was recorded; choose a smaller `--every`")
    classes = int(recorded.labels.max()) + 1
    right = accuracy(plane.model, recorded)
    result = {
        "settings": settings,
        "samples": len(recorded.images),
        "seconds_per_record": None if math.isnan(plane.seconds) else plane.seconds,
        "accuracy": right,
        "log_classes": math.log(classes),
        "layers": summarize(plane.rows),
    }
    written = [
        options.out / name for name in ("plane.csv", "plane.json", "plane.png", "epochs.png")
    ]
    written[1].write_text(json.dumps(result, indent=1) + "\n")
    data = str(settings["data"])
    drawn = {"smooth": options.smooth, "caption": data}
    visualization.information_plane(plane.rows, **drawn).savefig(written[2], dpi=120)
    by_epoch = visualization.information_by_epoch(plane.rows, classes=classes, **drawn)
    by_epoch.savefig(written[3], dpi=120)
    print(f"{data}: {len(recorded.images)} images, {right:.1%} classified rightly at the end")
    print(f"log {classes} = {math.log(classes):.3f} nats is the most that I(L;Y) can be")
    print(*describe(plane.rows), sep="\n")
    if options.noise and all(math.isnan(row.hidden) for row in plane.rows):
        print("what codes hide of a layer has no known limit under noise at its input")
    print(f"\nwrote {', '.join(map(str, written))}")
