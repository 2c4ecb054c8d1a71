"""The command line: parsing and printing only."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from captum_mi.explanation import ImageExplanation

EXAMPLES = """\
examples:
  captum-mi explain
      a scene that the package ships, with the embedded CLIP
  captum-mi explain scene.png "a red circle" "a blue square"
  captum-mi explain dog.jpg "a dog on a sofa" --model openai/clip-vit-base-patch32
  captum-mi explain dog.jpg "a dog" --model ./my-clip --layer 9,8 --steps 20 --out dog
"""

SHIPPED_SCENE = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``captum-mi``; returns the exit status: 0, or 2 for bad input."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    options = _parser().parse_args(arguments)

    def say(message: object) -> None:
        line = " ".join(str(message).split())
        print(f"captum-mi {options.command}: {line}", file=sys.stderr)  # noqa: T201

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_args, **_kwargs: say(f"warning: {message}")
        try:
            options.run(options)
        except (OSError, TypeError, ValueError) as error:
            say(error)
            return 2
    return 0


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
            " red for and blue against the pair. Writes OUT.png and OUT.json and prints a table."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument(
        "image", nargs="?", metavar="IMAGE", help="an image file (default: a shipped scene)"
    )
    explain.add_argument("texts", nargs="*", metavar="TEXT", help="texts to explain the image with")
    explain.add_argument(
        "--model", metavar="FOLDER|HUB_NAME", help="image-text model (default: the embedded CLIP)"
    )
    explain.add_argument("--method", default="nib", help="attribution method (default: nib)")
    explain.add_argument(
        "--layer",
        type=_layers,
        default=(None, None),
        metavar="N[,M]",
        help=(
            "hidden state to explain: how many blocks have run, in both towers, or N in the image"
            " and M in the text tower (default: three blocks before the end)"
        ),
    )
    explain.add_argument(
        "--steps", type=int, default=10, metavar="N", help="steps of the method (default: 10)"
    )
    explain.add_argument(
        "--out",
        type=Path,
        default=Path("explanation"),
        metavar="PATH",
        help="where to write PATH.png and PATH.json (default: explanation)",
    )
    explain.set_defaults(run=_explain)
    return parser


def _layers(value: str) -> tuple[int, int]:
    parts = value.split(",")
    if len(parts) > 2 or not all(part.strip().lstrip("-").isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"must be a number N, or N,M; got {value!r}")
    return int(parts[0]), int(parts[-1])


def _explain(options: argparse.Namespace) -> None:
    from captum_mi.attr import METHODS

    if options.method not in METHODS:
        known = ", ".join(METHODS)
        raise ValueError(f"`--method` must be one of {known}, got {options.method!r}")
    if options.steps < 1:
        raise ValueError(f"`--steps` must be at least 1, got {options.steps}")
    image, texts, source = _image_and_texts(options)

    from captum_mi.explanation import explain_pairs
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
    )
    settings = {
        "image": source,
        "model": options.model or "embedded",
        "method": options.method,
        "layers": dict(zip(("image", "text"), result.layers, strict=True)),
        "steps": options.steps,
    }
    base = options.out.with_suffix("") if options.out.suffix in (".png", ".json") else options.out
    base.parent.mkdir(parents=True, exist_ok=True)
    picture, record = Path(f"{base}.png"), Path(f"{base}.json")
    _draw(result, settings).savefig(picture, dpi=100)
    record.write_text(json.dumps(_record(result, settings), indent=1) + "\n")
    print(_table(result))  # noqa: T201
    print(f"\nwrote {picture} and {record}")  # noqa: T201


def _image_and_texts(options: argparse.Namespace) -> tuple[Any, list[str], str]:
    """Reads the image and the texts, or takes a shipped scene, its caption and its objects."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if options.image is None:
        from captum_mi.datasets import Scenes

        scene = Scenes(SHIPPED_SCENE + 1, objects=2)[SHIPPED_SCENE]
        return Image.fromarray(scene.image), [scene.caption, *scene.texts], "shipped scene"
    if not options.texts:
        raise ValueError(
            f'image {options.image!r} needs at least one text: captum-mi explain {options.image} "a'
            ' red circle"'
        )
    for text in options.texts:
        if not text.strip():
            raise ValueError(f"a text must not be empty, got {text!r}")
    try:
        with Image.open(options.image) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError:
        raise ValueError(
            f"there is no image {options.image!r}; give the path of an image file"
        ) from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{options.image!r} cannot be read as an image ({error})") from error
    return image, options.texts, options.image


def _draw(result: ImageExplanation, settings: dict[str, Any]) -> Any:  # noqa: ANN401
    from captum_mi import visualization

    layers = settings["layers"]
    return visualization.explanation(
        result.pixels,
        [pair.heat for pair in result.pairs],
        [pair.tokens for pair in result.pairs],
        [f"{pair.text}\ncosine {pair.cosine:.3f}" for pair in result.pairs],
        caption=(
            f"red speaks for the text, blue against it; method {settings['method']},"
            f" {settings['steps']} steps, hidden states {layers['image']} (image) and"
            f" {layers['text']} (text), model {settings['model']}"
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


def _table(result: ImageExplanation) -> str:
    width = max(len("text"), *(len(pair.text) for pair in result.pairs))
    lines = [f"{'text':{width}}  cosine  most for it    most against it"]
    for pair in result.pairs:
        words = [
            (score, token)
            for token, score, special in zip(
                pair.tokens.tokens, pair.tokens.scores, pair.tokens.special, strict=True
            )
            if not special
        ] or [(0.0, "-")]
        (high, best), (low, worst) = max(words), min(words)
        strongest = f"{best} {high:+.3f}" if high > 0 else "-"
        weakest = f"{worst} {low:+.3f}" if low < 0 else "-"
        lines.append(f"{pair.text:{width}}  {pair.cosine:6.3f}  {strongest:13}  {weakest}")
    return "\n".join(lines)
