"""``captum-mi infomax``: encoders trained by mutual information, and what their codes hold."""

from __future__ import annotations

import argparse
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from captum_mi._checks import check_choice
from captum_mi.cli._networks import device_of, own_network
from captum_mi.cli._options import check_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from captum_mi.estimators import MutualInformationEstimator
    from captum_mi.infomax import Mixture, Row, Training
    from captum_mi.infoplane.classifier import Images

HELP = "train encoders by mutual information (Deep InfoMax), and judge their codes"
DESCRIPTION = (
    "Train encoders without labels by Deep InfoMax: a code of 64 numbers that tells much of the"
    " whole map of an earlier layer (weight ALPHA), of each of its places (BETA), and looks uniform"
    " to a discriminator (GAMMA). Print how well linear, support-vector and small-network probes"
    " tell the classes from frozen layers (percent), what the code tells of the image (nats), how"
    " near a decoder comes (L2, multi-scale SSIM), how much the code's numbers depend on each other"
    " (NDM, nats) and how far they are from uniform (KS), beside an encoder with random weights and"
    " one trained with labels. Writes table.txt, table.json and the trained encoders to --out."
)
EXAMPLES = """\
examples:
  captum-mi infomax
      on scikit-learn's digits
  captum-mi infomax --data ~/data --out mnist
      on torchvision's MNIST, from ~/data/MNIST/raw; minutes a row
  captum-mi infomax --data ~/data --dim 0,1,0.1:infonce 0,1,0:infonce 0,1,0.1:jsd:concat
      rows of your own; concat reads every place with every code: a smaller --batch-size is faster
  captum-mi infomax --data ~/data --dataset cifar10 --model my_networks:resnet \\
      --layer layer2 --global-layer avgpool --out resnet
A run that was killed goes on with the row it was at when the same command is given again. With
other --dim, rows are added to the table.
"""
FLAGS = {
    "alpha": "--dim",
    "batch_size": "--batch-size",
    "beta": "--dim",
    "bound": "--dim",
    "critic": "--dim",
    "dataset": "--dataset",
    "epochs": "--epochs",
    "gamma": "--dim",
    "layer": "--layer",
    "learning_rate": "--rate",
    "root": "--data",
    "units": "--units",
}
RANDOM, SUPERVISED = "random weights", "supervised"
DIMS = ("1,0,1:jsd", "1,0,1:infonce", "0,1,0.1:jsd", "0,1,0.1:infonce")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    data = parser.add_argument_group("data (default: scikit-learn's digits)")
    data.add_argument(
        "--data", type=Path, metavar="FOLDER", help="where torchvision finds the data set"
    )
    data.add_argument("--dataset", choices=["mnist", "cifar10"], help="which one (default: mnist)")
    model = parser.add_argument_group("encoder (default: the paper's)")
    model.add_argument(
        "--model",
        metavar="MODULE:FUNCTION",
        help=(
            "Python function without arguments that returns a torch module of images; needs --layer"
            " and --global-layer"
        ),
    )
    model.add_argument("--layer", metavar="NAME", help="its layer whose tensor is the map")
    model.add_argument("--global-layer", metavar="NAME", help="its layer whose tensor is the code")
    model.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    rows = parser.add_argument_group("rows")
    rows.add_argument(
        "--dim",
        nargs="*",
        default=list(DIMS),
        metavar="SPEC",
        help=(
            "ALPHA,BETA,GAMMA:BOUND[:CRITIC], the weights of the global, the local and the prior's"
            " objective, dv, jsd or infonce, and dot or concat (default: the paper's DIM(G) and"
            f" DIM(L), {' '.join(DIMS)})"
        ),
    )
    rows.add_argument(
        "--no-references", action="store_true", help="leave out random and supervised encoders"
    )
    rows.add_argument(
        "--method",
        default="mine",
        help=(
            "estimator of what the code tells of the image: mine, which refuses where it is more"
            " than the images can show; smile, infonce, or none (default: mine)"
        ),
    )
    training = parser.add_argument_group("training by Adam")
    training.add_argument("--epochs", type=int, default=10, metavar="N", help="default: 10")
    training.add_argument(
        "--rate",
        type=float,
        default=1e-3,
        metavar="R",
        help=(
            "learning rate at the start (default: 1e-3, which needs fewer epochs than the paper's"
            " 1e-4)"
        ),
    )
    training.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="default, and the paper's: 64"
    )
    training.add_argument(
        "--units",
        type=int,
        default=256,
        metavar="N",
        help="of each layer of a critic (default: 256; the paper's: 2048 for dot, 512 for concat)",
    )
    training.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of weights, order and noise (default: 0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("infomax"),
        metavar="FOLDER",
        help="where to write, and to go on with a run that was killed (default: infomax)",
    )


def run(options: argparse.Namespace) -> None:
    """Trains and judges one encoder after another; prints the table, and writes it."""
    from captum_mi._records import RecordWriter, check_settings, read_records, write_settings
    from captum_mi.infomax import Row, Training, table

    mixtures = [mixture_of(spec, options.units) for spec in options.dim]
    training = Training(options.epochs, options.batch_size, options.rate, options.seed)
    estimator = _estimator(options.method)
    if len({flag is None for flag in (options.model, options.layer, options.global_layer)}) > 1:
        raise ValueError("`--model`, `--layer` and `--global-layer` need each other")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"`--out` must be a folder, {str(options.out)!r} is a file")
    check_out(options.out / "table.txt")
    data = _images(options)
    build, layers = _encoders(options, data[0])
    settings: dict[str, object] = {
        "data": f"{options.dataset or 'mnist'} in {options.data}" if options.data else "digits",
        "model": options.model or "the paper's",
        "layers": layers,
        "method": options.method,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "learning_rate": options.rate,
        "units": options.units,
        "seed": options.seed,
        "version": version("captum_mi"),
    }
    check_settings(options.out, settings)
    options.out.mkdir(parents=True, exist_ok=True)
    write_settings(options.out, settings)
    done = {record["name"]: Row.of_record(record) for record in read_records(options.out)}
    jobs: dict[str, Mixture | None] = {}
    if not options.no_references:
        jobs = {RANDOM: None, SUPERVISED: None}
    jobs |= {mixture.name: mixture for mixture in mixtures}
    writer = RecordWriter(options.out)
    try:
        for name, mixture in jobs.items():
            if name not in done:
                path = options.out / f"{re.sub('[^a-z0-9.]+', '-', name.lower()).strip('-')}"
                path = path.with_name(f"{path.name}.safetensors")
                done[name] = _row(name, mixture, build(), layers, training, data, estimator, path)
                writer.append(done[name].record())
    finally:
        writer.close()
    rows = list(done.values())
    text = table(rows)
    (options.out / "table.txt").write_text(text + "\n")
    found = {"settings": settings, "rows": [row.record() for row in rows]}
    (options.out / "table.json").write_text(json.dumps(found, indent=1) + "\n")
    print(text)
    print(f"\nwrote {options.out / 'table.txt'}, table.json and the encoders")


def mixture_of(spec: str, units: int) -> Mixture:
    """Returns the mixture that a text such as "0,1,0.1:jsd:dot" asks for."""
    from captum_mi.infomax import Mixture

    weights, _, names = spec.partition(":")
    try:
        alpha, beta, gamma = map(float, weights.split(","))
    except ValueError:
        raise ValueError(f"`--dim` must be ALPHA,BETA,GAMMA:BOUND[:CRITIC], got {spec!r}") from None
    bound, _, critic = names.partition(":")
    return Mixture(alpha, beta, gamma, bound or "infonce", critic or "dot", units)


def _row(
    name: str,
    mixture: Mixture | None,
    encoder: nn.Module,
    layers: list[str],
    training: Training,
    data: tuple[Images, Images],
    estimator: MutualInformationEstimator | None,
    path: Path,
) -> Row:
    """Trains an encoder as its row says, keeps its weights, and judges it."""
    from captum_mi._state_file import write_state
    from captum_mi.infomax import DeepInfoMax, judge, train_supervised

    train, test = data
    layer, *_, code = layers
    extra = {}
    if mixture is not None:
        infomax = DeepInfoMax(encoder, layer, code, mixture).fit(train.images, training)
        infomax.save(path)
        extra = infomax.bounds(test.images, training.batch_size)
    elif name == SUPERVISED:
        train_supervised(encoder, code, train.images, train.labels, training)
        write_state(path, encoder, {"layers": layers})
    return judge(
        name, encoder, layers, train, test, estimator=estimator, seed=training.seed, extra=extra
    )


def _images(options: argparse.Namespace) -> tuple[Images, Images]:
    from captum_mi.infoplane.classifier import read_images

    if options.dataset is not None and options.data is None:
        raise ValueError("`--dataset` needs `--data`")
    dataset = (options.dataset or "mnist") if options.data else "digits"
    return read_images(dataset, options.data and options.data.expanduser())


def _encoders(
    options: argparse.Namespace, train: Images
) -> tuple[Callable[[], nn.Module], list[str]]:
    """Returns what makes an encoder of the seed, and the layers to read, the code last."""
    import torch

    from captum_mi.infomax import ConvEncoder
    from captum_mi.infomax.encoders import read_layers

    device = device_of(options.device)

    def build() -> nn.Module:
        torch.manual_seed(options.seed)
        if options.model is None:
            return ConvEncoder(train.images.shape[1], train.images.shape[-1]).to(device)
        return own_network(options.model).to(device)

    if options.model is None:
        return build, ["conv2", "fc", "code"]
    layers = [options.layer, options.global_layer]
    read_layers(build(), layers, train.images[:2])  # what has no such layers fails before training
    return build, layers


def _estimator(method: str) -> MutualInformationEstimator | None:
    from captum_mi.estimators import MINE, SMILE, InfoNCE

    estimators = {"mine": MINE, "smile": SMILE, "infonce": InfoNCE}
    known = check_choice("--method", method, [*estimators, "none"])
    return None if known == "none" else estimators[known]()
