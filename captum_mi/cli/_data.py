"""The flags that name a data set, and its pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_mi.cli._options import warn_of_embedded

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from captum_mi.datasets import Pair

DATA_FLAGS = {
    "class_names": "--class-names",
    "data": "--data",
    "image_column": "--image-column",
    "image_folder": "--image-folder",
    "split": "--split",
    "template": "--template",
    "text_column": "--text-column",
}
"""What the commands that read a data set call the library's arguments."""
FITTED_FLAGS = {"latents": "--data", "loader": "--data"}
"""What the commands that fit call the library's arguments."""
TO_FIT = 256
"""Pairs that statistics are fitted on."""


def add_data_flags(
    parser: argparse.ArgumentParser, samples: int | None, said: str | None = None
) -> None:
    """Adds the flags of the data set, and of how many of its pairs are taken.

    Args:
        parser: of the command.
        samples: how many pairs by default.
        said: what the help says of it, if not the number alone.
    """
    data = parser.add_argument_group("data (default: scenes)")
    data.add_argument(
        "--data", metavar="PLACE", help="a folder, a file, or a name on the Hugging Face hub"
    )
    data.add_argument(
        "--split", metavar="NAME", help="its split; of a folder of images, one of its folders"
    )
    data.add_argument(
        "--image-column",
        metavar="NAME",
        help="column of the images or of their paths (default: found by its type or name)",
    )
    data.add_argument(
        "--text-column",
        metavar="NAME",
        help="column of the captions or classes (default: found by its name or type)",
    )
    data.add_argument(
        "--image-folder",
        metavar="FOLDER",
        help="where a table's paths start (default: the folder of the table)",
    )
    data.add_argument(
        "--template",
        metavar="TEXT",
        help="the text, {} the class or caption (default: 'a photo of a {}' for a class)",
    )
    data.add_argument(
        "--class-names",
        metavar="FILE",
        help="lines 'class<TAB>name' (default: the classes themselves)",
    )
    data.add_argument(
        "--samples",
        type=int,
        default=samples,
        metavar="N",
        help=f"pairs, evenly spread over the data set (default: {said or samples})",
    )


def read_pairs(
    options: argparse.Namespace,
    samples: int,
    *,
    others: bool = False,
    first_colors: Sequence[str] | None = None,
) -> tuple[Sequence[Pair], str]:
    """Returns pairs of the data set, evenly spread, and what they are.

    Args:
        options: the flags.
        samples: how many pairs.
        others: without a data set, draw other scenes than those that are judged.
        first_colors: without a data set, those that the named object may have, and no other one.
    """
    from captum_mi.datasets import captioned_images, scene_pairs
    from captum_mi.evaluation.pointing import SEED

    names = DATA_FLAGS.keys() - {"data"}
    given = {name: value for name in sorted(names) if (value := getattr(options, name)) is not None}
    if options.data is None:
        if given:
            raise ValueError(f"`{DATA_FLAGS[next(iter(given))]}` needs `--data`")
        drawn = scene_pairs(samples, SEED + others, first_colors=first_colors)
        return drawn, "scenes of two objects, one named"
    pairs = captioned_images(options.data, samples=samples, **given)
    warn_of_embedded(options)
    flags = "".join(f" {DATA_FLAGS[name]} {value!r}" for name, value in given.items())
    return pairs, f"{options.data}{flags} (first text: {pairs[0].text!r})"


def read_images(
    options: argparse.Namespace, samples: int, **scenes: Any
) -> tuple[Sequence[Pair], str]:
    """Returns images whose texts do not matter, evenly spread, and what they are.

    Those of a folder, however deep, need no texts there; other data are read as pairs.

    Args:
        options: the flags.
        samples: how many images.
        **scenes: what :func:`read_pairs` takes of scenes.
    """
    from torchvision.datasets.folder import is_image_file

    from captum_mi.datasets import Pair

    alone = all(getattr(options, name) is None for name in DATA_FLAGS.keys() - {"data"})
    folder = Path(options.data) if options.data is not None and alone else None
    found = sorted(file for file in folder.rglob("*") if is_image_file(file.name)) if folder else []
    if not found:
        return read_pairs(options, samples, **scenes)
    warn_of_embedded(options)
    count = min(samples, len(found))
    files = [found[i * len(found) // count] for i in range(count)]
    return [Pair(str(file), file.name, file) for file in files], f"{count} images of {folder}"
