"""``python -m captum_mi.models.prototypical train | accuracy``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from captum_mi._checks import check_positive
from captum_mi.models.prototypical import data
from captum_mi.models.prototypical.network import Conv4
from captum_mi.models.prototypical.training import accuracy, fit

EXAMPLES = """\
examples:
  # scenes of one colored shape; every fifth pair of a color and a shape is held out
  python -m captum_mi.models.prototypical train --out scenes.safetensors
  python -m captum_mi.models.prototypical accuracy scenes.safetensors
  # the even digits of ~/data/MNIST; the odd ones are held out
  python -m captum_mi.models.prototypical train --data mnist --root ~/data --out mnist.safetensors
  python -m captum_mi.models.prototypical accuracy mnist.safetensors --data mnist --root ~/data
  # photographs, one folder for each class, such as CUB_200_2011/images; every fifth is held out
  python -m captum_mi.models.prototypical train --data folder --root images --out birds.safetensors
  python -m captum_mi.models.prototypical accuracy birds.safetensors --data folder --root images
"""


def main() -> None:
    """Trains a Conv4 on episodes, or prints its accuracy on held-out classes."""
    parser = argparse.ArgumentParser(
        prog="python -m captum_mi.models.prototypical",
        description="Train a prototypical network, or print its accuracy on held-out classes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train on episodes and write a safetensors file")
    train.set_defaults(run=_train)
    train.add_argument("--out", type=Path, required=True, metavar="FILE", help="what to write")
    check = commands.add_parser("accuracy", help="print the accuracy on held-out classes")
    check.set_defaults(run=_accuracy)
    check.add_argument("file", type=Path, help="what train wrote")
    for command, ways in ((train, 10), (check, 5)):  # more ways teach more
        command.add_argument(
            "--data", choices=data.DATA, default="scenes", help="which images (default: scenes)"
        )
        command.add_argument(
            "--root", type=Path, metavar="FOLDER", help="where the digits or photographs are"
        )
        command.add_argument(
            "--ways", type=int, default=ways, help=f"classes of an episode (default: {ways})"
        )
        command.add_argument(
            "--shots", type=int, default=1, help="labeled images of each (default: 1)"
        )
    train.add_argument("--steps", type=int, default=800, help="episodes to train on (default: 800)")
    train.add_argument(
        "--seed", type=int, default=0, help="seed of weights and episodes (default: 0)"
    )
    check.add_argument(
        "--episodes", type=int, default=1000, help="how many; always the same (default: 1000)"
    )
    for command in (train, check):
        command.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    options = parser.parse_args()
    try:
        options.run(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _train(options: argparse.Namespace) -> None:
    check_positive("--steps", options.steps)
    episodes, validation = data.training_episodes(
        options.data,
        options.root,
        ways=options.ways,
        shots=options.shots,
        length=options.steps,
        seed=options.seed,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.open("ab").close()  # what cannot be written fails before the training
    torch.manual_seed(options.seed)
    backbone = Conv4(channels=episodes[0].support.shape[1])
    backbone.to(options.device).to(memory_format=torch.channels_last)  # faster on CPUs
    history = fit(backbone, episodes, validation)
    backbone.save(options.out)
    best = 1 - min(progress.error for progress in history)
    print(f"wrote {options.out}; accuracy on other images of the classes trained on: {best:.3f}")


def _accuracy(options: argparse.Namespace) -> None:
    check_positive("--episodes", options.episodes)
    backbone = Conv4.load(options.file).to(options.device)
    episodes = data.held_out_episodes(
        options.data,
        options.root,
        ways=options.ways,
        shots=options.shots,
        length=options.episodes,
    )
    mean, standard_error = accuracy(backbone, episodes)
    print(
        f"held-out classes, {options.ways}-way {options.shots}-shot: {mean:.3f}"
        f" (standard error {standard_error:.4f}, {len(episodes)} episodes)"
    )


if __name__ == "__main__":
    main()
