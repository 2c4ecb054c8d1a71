"""What the commands share: flags, their helps, their names in messages, checks of ``--out``."""

from __future__ import annotations

import argparse
import os
import re
import warnings
from typing import TYPE_CHECKING

from captum_mi._checks import enumerated
from captum_mi.attr.methods import EARLY, METHODS, Place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from captum_mi.estimators import Compressor

MODEL_FLAGS = {
    "hidden_state": "--hidden-state N,M (image, text)",
    "model": "--model",
    "n_steps": "--steps",
}
"""What the commands that load a model call the library's arguments, in errors and warnings."""


def add_model_flag(parser: argparse.ArgumentParser) -> None:
    """Adds the flag of the model."""
    parser.add_argument(
        "--model",
        metavar="FOLDER|HUB_NAME",
        help=(
            "image-text model, such as CLIP, in Hugging Face layout (default: an embedded CLIP that"
            " knows colored shapes, no photographs)"
        ),
    )


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the model, of the place in it that is explained, and of the steps."""
    movable = [name for name, method in METHODS.items() if method.place is Place.HIDDEN_STATES]
    early = [name for name in movable if METHODS[name].hidden_states is not None]
    stepping = [name for name, method in METHODS.items() if method.least_steps is not None]
    add_model_flag(parser)
    parser.add_argument(
        "--hidden-state",
        type=hidden_states_of,
        default=(None, None),
        metavar="N[,M]",
        help=(
            f"{enumerated(movable)} explain the hidden state after N blocks of both encoders, or"
            f" after N of the image's and M of the text's (default: {EARLY[0]},{EARLY[1]} for"
            f" {enumerated(early)}, otherwise three blocks before the end of each); the other"
            " methods explain a place of their own"
        ),
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=10,
        metavar="N",
        help=f"steps of {enumerated(stepping)} (default: 10)",
    )


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """Renames the library's arguments, which stand in backticks, to the command line's."""
    return re.sub(r"`([^`]+)`", lambda name: f"`{flags.get(name[1], name[1])}`", message)


def warn_of_embedded(options: argparse.Namespace) -> None:
    """Warns if images are given, but no model that knows what is on them."""
    if options.model is None:
        warnings.warn(
            "without `--model` the embedded model explains, which knows eight shapes in eight"
            " colors and nothing else; for photographs give `--model openai/clip-vit-base-patch32`",
            stacklevel=2,
        )


def check_out(path: Path) -> None:
    """Raises ValueError where no file can be written, before work is done for it."""
    if path.is_dir():
        raise ValueError(f"`--out` must name a file, {str(path)!r} is a folder")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(f"`--out` cannot be written: {str(above)!r} is no folder to write in")


def hidden_states_of(value: str) -> tuple[int, int]:
    """Returns the hidden states, of the image and of the text, that a flag names."""
    if not re.fullmatch(r"-?\d+(, *-?\d+)?", value, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be a number N, or N,M; got {value!r}")
    parts = value.split(",")
    return int(parts[0]), int(parts[-1])


def compressor_of(spec: str, flag: str) -> Compressor:
    """Returns the compressor that a flag's text, such as "pca:4", asks for."""
    from captum_mi.estimators import COMPRESSORS

    kind, _, size = spec.partition(":")
    if kind not in COMPRESSORS or not size.isdecimal() or int(size) < 1:
        known = " or ".join(f"{name}:N" for name in COMPRESSORS)
        raise ValueError(f"`{flag}` must be {known}, got {spec!r}")
    return COMPRESSORS[kind](int(size))
