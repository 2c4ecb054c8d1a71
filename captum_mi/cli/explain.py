"""``captum-mi explain``: an image with texts, or a text with others."""

from __future__ import annotations

import argparse
import json
import shlex
import textwrap
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from captum_mi._checks import check_choice, check_positive, enumerated
from captum_mi.attr.methods import METHODS, Method, Place
from captum_mi.cli import _decomposition
from captum_mi.cli._findings import SHIPPED, Findings, shipped_scene, table_of_words
from captum_mi.cli._options import (
    MODEL_FLAGS,
    add_model_flags,
    check_out,
    warn_of_embedded,
)

if TYPE_CHECKING:
    from PIL.Image import Image

HELP = "where in an image, and in which words, the evidence for a text lies"
DESCRIPTION = (
    "Show where in an image, and in which words of a text, an image-text model such as CLIP"
    " finds the evidence that the two belong together; or, with a text encoder, in which words of"
    " two texts. Beside each word's score stands what the cosine loses when the word is blanked."
    " Writes a picture, and the numbers behind it as JSON; prints a table."
)
EXAMPLES = """\
examples:
  captum-mi explain
      a scene that the package ships, with the embedded CLIP
  captum-mi explain scene.png "a red circle" "a blue square"
  captum-mi explain dog.jpg "a dog on a sofa" --model openai/clip-vit-base-patch32
  captum-mi explain dog.jpg "a dog" --model ./my-clip --hidden-state 9,8 --steps 20 --out dog
  captum-mi explain dog.jpg "a dog" --start zero --hidden-state 9
      the published method: a path from the zero latent, three blocks before the end of both towers
  captum-mi explain "a dog sleeps" "a cat naps" --model sentence-transformers/all-MiniLM-L6-v2
      why two texts are similar, word by word, from both sides
  captum-mi explain scene.png --method infonce
      what each patch tells of the image's embedding, and what of it the choice among texts needs
"""
FLAGS = MODEL_FLAGS | {
    "forward_func": "--model",
    "layer_baselines": "--start",
    "path": "--fitted",
    "prior": "--start",
    "start": "--start",
    "texts": "TEXT",
}

PACKAGES = ("captum_mi", "captum", "torch", "transformers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments, and to the examples what the methods give."""
    parser.epilog = f"{EXAMPLES}\n{textwrap.fill(_what_methods_give(), 100)}"
    parser.add_argument(
        "image",
        nargs="?",
        metavar="IMAGE",
        help=(
            "an image file (default: a scene that the package ships, with its own texts); for a"
            " text encoder a text"
        ),
    )
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="one or more texts, each explained on its own",
    )
    parser.add_argument(
        "--method",
        default="nib",
        help=f"one of {', '.join(METHODS)} (default: nib)",
    )
    add_model_flags(parser)
    parser.add_argument(
        "--start",
        metavar="zero|blank|FILE",
        help=(
            "where the path of nib starts: the zero latent (the published method), a blank input,"
            " or the mean of statistics that captum-mi fit wrote, which m2ib takes its noise from"
            " (default: nib blank, nib-zero and m2ib zero)"
        ),
    )
    parser.add_argument(
        "--fitted",
        type=Path,
        metavar="FILE",
        help=(
            "what infonce explains with: a file that captum-mi fit --method infonce wrote for the"
            " model (default: one that the package ships for the embedded CLIP)"
        ),
    )
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
    fitted = [method.name for method in methods if method.needs_fit]
    placed = [method.name for method in methods if method.place is not Place.HIDDEN_STATES]
    return (
        f"{enumerated(signed)} say what speaks for a text and what against it; the numbers of"
        f" {enumerated(in_nats)} are the nats that the text needs; those of {enumerated(fitted)},"
        " which takes no texts, are nats of the image's embedding, and of the choice that it was"
        " fitted to; the others say what is relevant."
        f" {enumerated(placed)} explain a place of their own, whatever --hidden-state says; the"
        " JSON names it."
    )


def run(options: argparse.Namespace) -> None:
    """Explains an image or a text, writes the picture and the numbers, prints the table."""
    method = METHODS[check_choice("--method", options.method, METHODS)]
    method.check_steps(check_positive("--steps", options.steps), "`--steps`")
    base = options.out.with_suffix("") if options.out.suffix in (".png", ".json") else options.out
    picture, numbers = Path(f"{base}.png"), Path(f"{base}.json")
    for path in (picture, numbers):
        check_out(path)
    if options.fitted is not None and not method.needs_fit:
        raise ValueError(f"`--fitted` is not for `--method` {method.name}, which needs no fit")
    if method.needs_fit:
        found = _decomposition.explain(options)
    else:
        explained = _of_texts if _explains_texts(options) else _of_image
        found = explained(options, method)
    settings = {
        **found.settings,
        "model": options.model or "embedded",
        "method": method.name,
        "unit": method.unit,
    }
    how = [f"method {method.name}"]
    if method.start is not None:
        settings["start"] = options.start or method.start
        how.append(f"start {settings['start']}")
    if method.takes("n_steps"):
        settings["steps"] = options.steps
        how.append(f"{options.steps} steps")
    base.parent.mkdir(parents=True, exist_ok=True)
    caption = f"{', '.join(how)}, {settings['explained']}, model {settings['model']}"
    found.draw(caption=caption).savefig(picture, dpi=100)
    written = {
        **settings,
        "versions": {name: version(name) for name in PACKAGES},
        "explanations": found.explanations,
    }
    numbers.write_text(json.dumps(written, indent=1) + "\n")
    print(found.table)
    print(f"\nwrote {picture} and {numbers}")


def _explains_texts(options: argparse.Namespace) -> bool:
    from captum_mi.models.sentences import is_text_encoder

    return options.model is not None and is_text_encoder(options.model)


def _of_image(options: argparse.Namespace, method: Method) -> Findings:
    """Explains an image with its texts."""
    image, texts, source = _image_and_texts(options)

    from captum_mi import visualization
    from captum_mi.explanation import TowerStatistics, explain_pairs
    from captum_mi.models import load_clip

    start = options.start
    if start not in (None, "zero", "blank"):
        start = TowerStatistics.load(start)
    model, processor = load_clip(options.model)
    result = explain_pairs(
        model,
        processor,
        image,
        texts,
        method=method.name,
        hidden_states=options.hidden_state,
        start=start,
        n_steps=options.steps,
        show_progress=True,
    )
    settings: dict[str, object] = {
        "image": source,
        "explained": method.place.words(result.hidden_states),
    }
    if method.place is Place.HIDDEN_STATES:
        settings["hidden_states"] = dict(zip(("image", "text"), result.hidden_states, strict=True))
    pairs = result.pairs
    return Findings(
        settings,
        partial(
            visualization.explanation,
            result.pixels,
            [pair.heat for pair in pairs],
            [pair.words.tokens for pair in pairs],
            [f"{_short(pair.text)}: cosine {pair.cosine:.3f}" for pair in pairs],
            unit=method.unit,
            losses=[pair.words.losses for pair in pairs],
        ),
        [pair.as_dict() for pair in pairs],
        table_of_words([(pair.text, pair.cosine, pair.words) for pair in pairs], method.unit),
    )


def _of_texts(options: argparse.Namespace, method: Method) -> Findings:
    """Explains the first text with each of the others, and these with the first."""
    texts = [text for text in (options.image, *options.texts) if text is not None]
    if len(texts) < 2:
        raise ValueError(
            f"{options.model!r} is a text encoder, which compares texts; give two or more, got"
            f" {len(texts)}"
        )
    for text in texts:
        if not text.strip():
            raise ValueError(f"a text must not be empty, got {text!r}")
        if _names_image(text):
            raise ValueError(
                f"{options.model!r} is a text encoder and sees no images, but {text!r} is the name"
                " of one; give texts, or an image-text model"
            )
    if options.start not in (None, "zero", "blank"):
        raise ValueError(f"`start` of a text encoder must be zero or blank, got {options.start!r}")
    if options.start is None and method.start == "fitted":
        raise ValueError(
            f"`--method` {method.name} starts at statistics of image-text models, but"
            f" {options.model!r} is a text encoder; take another method, or `--start` zero"
        )

    from captum_mi import visualization
    from captum_mi.explanation import explain_sentences
    from captum_mi.models import load_sentence_encoder
    from captum_mi.models.towers import hidden_states

    model, tokenizer, pooling = load_sentence_encoder(options.model)
    _, state = hidden_states(model, (None, options.hidden_state[1]), method.hidden_states)
    pairs = explain_sentences(
        model,
        tokenizer,
        texts[0],
        texts[1:],
        pooling=pooling,
        method=method.name,
        hidden_state=state,
        start=options.start,
        n_steps=options.steps,
    )
    states = method.place is Place.HIDDEN_STATES
    at = f"hidden state {state}" if states else method.place.words((state, state))
    sides = [
        (pair.texts[i], pair.cosine, pair.words[i], pair.texts[1 - i])
        for pair in pairs
        for i in (0, 1)
    ]
    return Findings(
        {"text": texts[0], "explained": at, "pooling": pooling},
        partial(
            visualization.sentences,
            [words.tokens for _, _, words, _ in sides],
            [f"with: {_short(other)}, cosine {cosine:.3f}" for _, cosine, _, other in sides],
            unit=method.unit,
            losses=[words.losses for _, _, words, _ in sides],
        ),
        [pair.as_dict() for pair in pairs],
        table_of_words([(text, cosine, words) for text, cosine, words, _ in sides], method.unit),
    )


def _short(text: str) -> str:
    return textwrap.shorten(text, 80)


def _names_image(text: str) -> bool:
    """Returns True if a text ends as the names of images do, and is one word or such a file."""
    from PIL.Image import registered_extensions

    if Path(text).suffix.lower() not in registered_extensions():
        return False
    return len(text.split()) == 1 or _is_file(text)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # longer than the name of a file may be
        return False


def _image_and_texts(options: argparse.Namespace) -> tuple[Image, list[str], str]:
    """Reads the image and the texts, or takes a shipped scene, its caption and its objects."""
    from PIL.Image import fromarray

    from captum_mi.datasets.pairs import read_image

    if options.image is None:
        scene = shipped_scene()
        return fromarray(scene.image), [scene.caption, *scene.texts], SHIPPED
    if len(options.image.split()) > 1 and not _is_file(options.image):
        raise ValueError(
            f"there is no image {options.image!r}; give the path of an image file first, or, to"
            " compare texts, `--model` with a text encoder"
        )
    image = read_image(options.image)
    if not options.texts:
        raise ValueError(
            f"image {options.image!r} needs at least one text: captum-mi explain"
            f" {shlex.quote(options.image)} 'a red circle'"
        )
    for text in options.texts:
        if not text.strip():
            raise ValueError(f"a text must not be empty, got {text!r}")
        if _names_image(text):
            raise ValueError(
                f"{text!r} is the name of an image, not a text; one call explains one image, the"
                " first argument, with one or more texts"
            )
    warn_of_embedded(options)
    return image, options.texts, options.image
