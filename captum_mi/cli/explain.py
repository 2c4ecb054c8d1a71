"""``captum-mi explain``: an image with texts."""

from __future__ import annotations

import argparse
import json
import shlex
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from captum_mi._checks import check_choice, check_positive, enumerated
from captum_mi.attr.methods import METHODS, Place
from captum_mi.cli._options import (
    MODEL_FLAGS,
    add_model_flags,
    check_out,
    warn_of_embedded,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from captum_mi.explanation import ImageExplanation
    from captum_mi.visualization import Unit

HELP = "where in an image, and in which words, the evidence for a text lies"
DESCRIPTION = (
    "Show where in an image, and in which words of a text, an image-text model such as CLIP"
    " finds the evidence that the two belong together. Writes a picture, a map of the image and"
    " the scored words for each text, and the numbers behind it as JSON; prints a table."
)
EXAMPLES = """\
examples:
  captum-mi explain
      a scene that the package ships, with the embedded CLIP
  captum-mi explain scene.png "a red circle" "a blue square"
  captum-mi explain dog.jpg "a dog on a sofa" --model openai/clip-vit-base-patch32
  captum-mi explain dog.jpg "a dog" --model ./my-clip --hidden-state 9,8 --steps 20 --out dog
"""
FLAGS = MODEL_FLAGS | {"texts": "TEXT"}

EXTREMES = {
    "cosine": ("most for it", "most against it"),
    "nats": ("most nats", "fewest nats"),
    None: ("most relevant", "least relevant"),
}
PACKAGES = ("captum_mi", "captum", "torch", "transformers")
SHIPPED_SCENE = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments, and to the examples what the methods give."""
    parser.epilog = f"{EXAMPLES}\n{textwrap.fill(_what_methods_give(), 100)}"
    parser.add_argument(
        "image",
        nargs="?",
        metavar="IMAGE",
        help="an image file (default: a scene that the package ships, with its own texts)",
    )
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help="one or more texts, each explained on its own"
    )
    parser.add_argument(
        "--method",
        default="nib",
        help=f"one of {', '.join(METHODS)} (default: nib)",
    )
    add_model_flags(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("explanation"),
        metavar="PATH",
        help="write PATH.png and PATH.json, over what is there (default: explanation)",
    )


def _what_methods_give() -> str:
    """Returns what the methods' numbers say, and which methods have a place of their own."""
    methods = METHODS.values()
    signed = [method.name for method in methods if method.unit == "cosine"]
    in_nats = [method.name for method in methods if method.unit == "nats"]
    placed = [method.name for method in methods if method.place is not Place.HIDDEN_STATES]
    return (
        f"{enumerated(signed)} say what speaks for a text and what against it; the numbers of"
        f" {enumerated(in_nats)} are the nats that the text needs; the others say what is relevant."
        f" {enumerated(placed)} explain a place of their own, whatever --hidden-state says; the"
        " JSON names it."
    )


def run(options: argparse.Namespace) -> None:
    """Explains an image, writes the picture and the numbers, prints the table."""
    method = METHODS[check_choice("--method", options.method, METHODS)]
    method.check_steps(check_positive("--steps", options.steps), "`--steps`")
    base = options.out.with_suffix("") if options.out.suffix in (".png", ".json") else options.out
    picture, numbers = Path(f"{base}.png"), Path(f"{base}.json")
    for path in (picture, numbers):
        check_out(path)
    image, texts, source = _image_and_texts(options)

    from captum_mi.explanation import explain_pairs
    from captum_mi.models import load_clip

    model, processor = load_clip(options.model)
    result = explain_pairs(
        model,
        processor,
        image,
        texts,
        method=method.name,
        hidden_states=options.hidden_state,
        n_steps=options.steps,
        show_progress=True,
    )
    settings = {
        "image": source,
        "model": options.model or "embedded",
        "method": method.name,
        "unit": method.unit,
        "explained": method.place.words(result.hidden_states),
    }
    if method.takes("n_steps"):
        settings["steps"] = options.steps
    if method.place is Place.HIDDEN_STATES:
        settings["hidden_states"] = dict(zip(("image", "text"), result.hidden_states, strict=True))
    base.parent.mkdir(parents=True, exist_ok=True)
    steps = f", {options.steps} steps" if "steps" in settings else ""
    caption = f"method {method.name}{steps}, {settings['explained']}, model {settings['model']}"
    _draw(result, method.unit, caption).savefig(picture, dpi=100)
    written = {
        **settings,
        "versions": {name: version(name) for name in PACKAGES},
        "explanations": [pair.as_dict() for pair in result.pairs],
    }
    numbers.write_text(json.dumps(written, indent=1) + "\n")
    print(_table(result, method.unit))
    print(f"\nwrote {picture} and {numbers}")


def _image_and_texts(options: argparse.Namespace) -> tuple[Image, list[str], str]:
    """Reads the image and the texts, or takes a shipped scene, its caption and its objects."""
    from PIL.Image import fromarray, registered_extensions

    from captum_mi.datasets import Scenes
    from captum_mi.datasets.pairs import read_image

    if options.image is None:
        scene = Scenes(SHIPPED_SCENE + 1, objects=2)[SHIPPED_SCENE]
        return fromarray(scene.image), [scene.caption, *scene.texts], "shipped scene"
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
        if is_a_word and Path(text).suffix.lower() in registered_extensions():
            raise ValueError(
                f"{text!r} is the name of an image, not a text; one call explains one image, the"
                " first argument, with one or more texts"
            )
    warn_of_embedded(options)
    return image, options.texts, options.image


def _draw(result: ImageExplanation, unit: Unit, caption: str) -> Figure:
    from captum_mi import visualization

    return visualization.explanation(
        result.pixels,
        [pair.heat for pair in result.pairs],
        [pair.tokens for pair in result.pairs],
        [f"{textwrap.shorten(pair.text, 80)}: cosine {pair.cosine:.3f}" for pair in result.pairs],
        unit=unit,
        caption=caption,
    )


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
