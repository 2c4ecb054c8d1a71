"""``captum-mi fit``: what ``captum-mi explain`` takes as ``--start FILE`` or ``--fitted FILE``."""

from __future__ import annotations

import argparse
from pathlib import Path

from captum_mi._checks import check_choice, check_positive
from captum_mi.attr.methods import EARLY, METHODS
from captum_mi.cli import _decomposition
from captum_mi.cli._data import DATA_FLAGS, FITTED_FLAGS, TO_FIT, add_data_flags, read_pairs
from captum_mi.cli._options import MODEL_FLAGS, add_model_flag, check_out, hidden_states_of

HELP = "what some methods learn from your data before they explain"
_AT_STATISTICS = [name for name, method in METHODS.items() if method.start == "fitted"]
_NEED_FIT = [name for name, method in METHODS.items() if method.needs_fit]
_STATISTICS = "statistics.safetensors"
DESCRIPTION = (
    f"For {_AT_STATISTICS[0]} and {_AT_STATISTICS[1]}, which take the same file: run both encoders"
    " of an image-text model up to a hidden state on images and texts, and write the mean and the"
    " deviation of every element. captum-mi explain --start FILE takes them: the path of"
    f" {_AT_STATISTICS[0]} starts at the mean, and {_AT_STATISTICS[1]} takes its noise from both."
    f" For {_NEED_FIT[0]}: train what tells how many nats of an image's embedding each of its"
    " patches holds, and how many of these the choice among texts needs. captum-mi explain --method"
    f" {_NEED_FIT[0]} --fitted FILE takes it. It also prints the means over images that were kept"
    " from the training."
)
EXAMPLES = """\
examples:
  captum-mi fit --data Flickr8k/captions.txt --image-folder Flickr8k/Images \\
      --model openai/clip-vit-base-patch32 --out flickr8k.safetensors
  captum-mi explain dog.jpg "a dog on a sofa" --model openai/clip-vit-base-patch32 \\
      --start flickr8k.safetensors
  captum-mi fit
  captum-mi fit --method infonce
      on scenes that the package draws, with the embedded CLIP
  captum-mi fit --method infonce --data photos --texts "a dog" "a cat" "a bird" \\
      --model openai/clip-vit-base-patch32 --out pets.safetensors
  captum-mi explain dog.jpg --method infonce --model openai/clip-vit-base-patch32 \\
      --fitted pets.safetensors
captum-mi evaluate --help says what --data reads. captum-mi evaluate fits its own statistics.
Of a classifier, such as torchvision's, a decomposition is fitted in Python:
  InfoNCEDecomposition(model, model.layer4, model.avgpool).fit(loader)
"""
FLAGS = MODEL_FLAGS | DATA_FLAGS | FITTED_FLAGS | {"pairs": "--data", "texts": "--texts"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--method",
        default=_AT_STATISTICS[0],
        help=(
            f"for which method: {', '.join([*_AT_STATISTICS, *_NEED_FIT])} (default:"
            f" {_AT_STATISTICS[0]})"
        ),
    )
    said = f"{TO_FIT}, for {_NEED_FIT[0]} {_decomposition.IMAGES}"
    add_data_flags(parser, None, said)
    add_model_flag(parser)
    parser.add_argument(
        "--hidden-state",
        type=hidden_states_of,
        default=(None, None),
        metavar="N[,M]",
        help=(
            "fit the hidden state after N blocks of both encoders, or after N of the image's and M"
            f" of the text's (default: {EARLY[0]},{EARLY[1]}, which explain starts from by"
            f" default); {_NEED_FIT[0]} needs the image's alone (default: 2)"
        ),
    )
    _decomposition.add_fit_flags(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=(
            f"a new file to write (default: {_STATISTICS}, or {_decomposition.FITTED} for"
            f" {_NEED_FIT[0]})"
        ),
    )


def run(options: argparse.Namespace) -> None:
    """Fits what the method needs, writes it, and says on how much data."""
    known = METHODS[check_choice("--method", options.method, [*_AT_STATISTICS, *_NEED_FIT])]
    if options.samples is not None:
        check_positive("--samples", options.samples)
    if options.out is None:
        options.out = Path(_decomposition.FITTED if known.needs_fit else _STATISTICS)
    check_out(options.out)
    if options.out.exists():
        raise ValueError(f"`--out` {str(options.out)!r} is there already; name a new file")
    said = _decomposition.fit(options) if known.needs_fit else _fit_statistics(options)
    print(f"{said}\nwrote {options.out}")


def _fit_statistics(options: argparse.Namespace) -> str:
    """Fits statistics and writes them; returns what to print."""
    from captum_mi.explanation import TowerStatistics
    from captum_mi.models import load_clip

    for name in _decomposition.FIT_OPTIONS:
        if getattr(options, name) is not None:
            raise ValueError(
                f"`--{name}` is for `--method` {_NEED_FIT[0]}, {options.method} takes none"
            )
    pairs, source = read_pairs(options, options.samples or TO_FIT, others=True)
    model, processor = load_clip(options.model)
    fitted = TowerStatistics.fit(model, processor, pairs, options.hidden_state)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    fitted.save(options.out)
    image, text = fitted.hidden_states
    return (
        f"{source}: hidden state {image} of {fitted.image.count} images, {text} of"
        f" {fitted.text.count} texts"
    )
