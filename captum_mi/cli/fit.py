"""``captum-mi fit``: statistics of hidden states, for ``captum-mi explain --start FILE``."""

from __future__ import annotations

import argparse
from pathlib import Path

from captum_mi._checks import check_positive
from captum_mi.attr.methods import EARLY, METHODS
from captum_mi.cli._data import DATA_FLAGS, FITTED_FLAGS, TO_FIT, add_data_flags, read_pairs
from captum_mi.cli._options import MODEL_FLAGS, add_model_flag, check_out, hidden_states_of

HELP = "statistics of hidden states over your data, where explanations may start"
_FITTED = [name for name, method in METHODS.items() if method.start == "fitted"]
DESCRIPTION = (
    "Run both encoders of an image-text model up to a hidden state on images and texts, and write"
    " the mean and the deviation of every element. captum-mi explain --start FILE takes them: the"
    f" path of {_FITTED[0]} starts at the mean, and {_FITTED[1]} takes its noise from both."
)
EXAMPLES = """\
examples:
  captum-mi fit --data Flickr8k/captions.txt --image-folder Flickr8k/Images \\
      --model openai/clip-vit-base-patch32 --out flickr8k.safetensors
  captum-mi explain dog.jpg "a dog on a sofa" --model openai/clip-vit-base-patch32 \\
      --start flickr8k.safetensors
  captum-mi fit
      on 256 scenes that the package draws, with the embedded CLIP
captum-mi evaluate --help says what --data reads. captum-mi evaluate fits its own statistics.
"""
FLAGS = MODEL_FLAGS | DATA_FLAGS | FITTED_FLAGS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_data_flags(parser, TO_FIT)
    add_model_flag(parser)
    parser.add_argument(
        "--hidden-state",
        type=hidden_states_of,
        default=(None, None),
        metavar="N[,M]",
        help=(
            "fit the hidden state after N blocks of both encoders, or after N of the image's and M"
            f" of the text's (default: {EARLY[0]},{EARLY[1]}, which explain starts from by default)"
        ),
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("statistics.safetensors"),
        metavar="FILE",
        help="what to write, over what is there (default: statistics.safetensors)",
    )


def run(options: argparse.Namespace) -> None:
    """Fits the statistics, writes them, and says of how many images and texts."""
    from captum_mi.explanation import TowerStatistics
    from captum_mi.models import load_clip

    check_positive("--samples", options.samples)
    check_out(options.out)
    pairs, source = read_pairs(options, options.samples, others=True)
    model, processor = load_clip(options.model)
    fitted = TowerStatistics.fit(model, processor, pairs, options.hidden_state)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    fitted.save(options.out)
    image, text = fitted.hidden_states
    print(
        f"{source}: hidden state {image} of {fitted.image.count} images, {text} of"
        f" {fitted.text.count} texts\nwrote {options.out}"
    )
