"""``python -m captum_mi.models.tiny_clip train | accuracy``."""

from __future__ import annotations

import argparse
from pathlib import Path

from captum_mi.models.tiny_clip import training


def main() -> None:
    """Trains the embedded CLIP or prints its accuracy."""
    parser = argparse.ArgumentParser(
        prog="python -m captum_mi.models.tiny_clip",
        description=(
            "Train the embedded CLIP from nothing, or print its accuracy on held-out scenes."
        ),
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train and write a Hugging Face folder")
    train.add_argument("folder", type=Path, help="where to write the model")
    train.add_argument(
        "--steps", type=int, default=4000, help="steps of the first stage (default: 4000)"
    )
    train.add_argument("--batch-size", type=int, default=128, help="scenes a step (default: 128)")
    train.add_argument(
        "--seed", type=int, default=0, help="seed of scenes and weights (default: 0)"
    )
    train.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    train.add_argument(
        "--workers", type=int, default=1, help="processes drawing scenes (default: 1)"
    )
    check = commands.add_parser("accuracy", help="print the two accuracies")
    check.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent)
    check.add_argument(
        "--scenes", type=int, default=1000, help="scenes of each kind (default: 1000)"
    )
    arguments = vars(parser.parse_args())
    if arguments.pop("command") == "train":
        training.train(**arguments)
        return
    from transformers import AutoProcessor, CLIPModel

    folder = arguments["folder"]
    model = CLIPModel.from_pretrained(folder, use_safetensors=True).eval()
    figures = training.accuracy(
        model, AutoProcessor.from_pretrained(folder), scenes=arguments["scenes"]
    )
    print(f"one object, ranked first of 64 texts: {figures.single_top1:.3f}")
    print(f"two objects, both in the first two:   {figures.two_in_top2:.3f}")


if __name__ == "__main__":
    main()
