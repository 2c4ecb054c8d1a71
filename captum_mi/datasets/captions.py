"""Images with captions or classes: folders, tables, and data sets of Hugging Face."""

from __future__ import annotations

import reprlib
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from captum_mi._checks import check_positive
from captum_mi.datasets._sources import library, read
from captum_mi.datasets.pairs import Pair, Pairs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from datasets import Dataset, DatasetDict

    Key = str | bytes | int

IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename", "filepath", "path")
TEXT_COLUMNS = ("caption", "captions", "text", "comment", "sentence", "sentences", "txt")
CLASS_TEMPLATE = "a photo of a {}"


def captioned_images(
    data: str | Path | Dataset | DatasetDict,
    *,
    split: str | None = None,
    samples: int | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    image_folder: str | Path | None = None,
    template: str | None = None,
    class_names: str | Path | None = None,
) -> Sequence[Pair]:
    r"""Reads which image of a data set has which text; images are opened later, by ``Pair.load``.

    Hugging Face's ``datasets`` reads the data (``pip install "captum_mi[data]"``):

    - a folder of images with metadata.csv or metadata.jsonl, with one folder per class, or with
      0000.txt beside 0000.jpg, as img2dataset writes them;
    - a table that names images: CSV, TSV, JSON, JSON lines, Parquet; also COCO's captions (JSON),
      Flickr8k.token.txt and Conceptual Captions' ``caption<tab>address``, where the file has the
      last part of the address as its name;
    - a table, folder or tar that holds the images: Parquet, webdataset;
    - a data set of the hub by its name, or one that is loaded already.

    There is one pair for each image, with its first text that is not empty. An image that is absent
    or has no text keeps its place; its ``load`` says what is wrong.

    Args:
        data: a folder, a file, a name on the hub, or a data set.
        split: which split; of a folder of images, the name of one of its folders.
        samples: how many pairs, evenly spread over the data; None takes all.
        image_column: column of images or of their paths; None takes the column of images, or of a
            usual name: image, image_name, file_name, filename, filepath, path.
        text_column: column of texts, of lists of texts or of class labels; None takes one of a
            usual name (caption, captions, text, comment, sentence, sentences, txt), or the labels.
        image_folder: where a table's paths start; None takes the folder of the table.
        template: the text, with ``{}`` where the caption or the class goes; None takes a caption
            as it is, and "a photo of a {}" for a class.
        class_names: file of lines ``class<tab>name, synonym, ...``, as tiny-imagenet's
            ``words.txt``, whose first name is taken; None takes the class itself, underscores read
            as spaces.

    Returns:
        The pairs, in the order of the data.

    Raises:
        ImportError: if ``datasets`` is not installed.
        ValueError: if the data cannot be read, a split or a column is not found, or a path leads
            out of its folder.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     table = Path(folder, "captions.txt")
        ...     _ = table.write_text("image,caption\nrex.jpg,a dog on a sofa\n")
        ...     captioned_images(table)[0]
        Pair(name='rex.jpg', text='a dog on a sofa', problem=None)
    """
    if template is not None and "{}" not in template:
        raise ValueError(f"`template` must hold {{}} where the text goes, got {template!r}")
    if samples is not None:
        check_positive("samples", samples)
    dataset, folder = read(data, split)
    dataset = dataset.with_format(None)
    if image_folder is not None:
        folder = Path(image_folder).expanduser().resolve()
        if not folder.is_dir():
            raise ValueError(f"`image_folder` must be a folder, got {str(image_folder)!r}")
    image_column, text_column = _columns(dataset, image_column, text_column)
    texts = _texts(dataset, text_column, template, class_names)
    images = dataset.select_columns([image_column])
    if isinstance(images.features[image_column], library().Image):
        images = images.cast_column(image_column, library().Image(decode=False))

    rows: dict[Key, int] = {}
    captions: dict[Key, str] = {}
    keys = _keys(images, image_column, folder)
    for row, (key, text) in enumerate(zip(keys, texts, strict=True)):
        rows.setdefault(key, row)
        captions[key] = captions.get(key) or text
    if not any(captions.values()):
        raise ValueError(f"`data` has no text in its column {text_column!r}")
    found = [(key, row, captions[key]) for key, row in rows.items()]

    def pair(number: int) -> Pair:
        key, row, text = found[number]
        if isinstance(key, str):
            name = f"{Path(key).name} (row {row})" if folder is None else key
            return Pair(name, text, Path(key) if folder is None else folder / key)
        image = images[row][image_column]
        if isinstance(key, int):
            problem = f"row {row} names no image, or one that other rows name too"
            return Pair(f"row {row}", text, Path(), problem=problem)
        name = f"{PurePosixPath(image['path'] or 'image').name} (row {row})"
        return Pair(name, text, image["bytes"])

    count = len(found) if samples is None else min(samples, len(found))
    return Pairs(pair, [i * len(found) // count for i in range(count)])


def _columns(
    dataset: Dataset, image_column: str | None, text_column: str | None
) -> tuple[str, str]:
    """Returns the columns of the images and of the texts: those given, else by type and name."""
    kinds = dataset.features
    images = [name for name in kinds if isinstance(kinds[name], library().Image)]
    labels = [name for name in kinds if isinstance(kinds[name], library().ClassLabel)]
    if len(images) != 1:
        images = _usual(images or kinds, IMAGE_COLUMNS)
    texts = _usual(kinds, TEXT_COLUMNS) or labels * (len(labels) == 1)
    image = _column("image_column", image_column, images, kinds)
    text = _column("text_column", text_column, texts, kinds)
    is_path = getattr(kinds[image], "dtype", None) in ("string", "large_string", "null")
    if not is_path and not isinstance(kinds[image], library().Image):
        raise ValueError(f"`image_column` {image!r} holds no images or paths: {kinds[image]}")
    return image, text


def _usual(columns: Iterable[str], names: Sequence[str]) -> list[str]:
    """Returns the columns that have one of the names, in the names' order."""
    found = {column.strip().lower(): column for column in columns}
    return [found[name] for name in names if name in found]


def _column(argument: str, given: str | None, found: list[str], columns: Iterable[str]) -> str:
    name = next(iter(found), None) if given is None else given
    if name is None or name not in columns:
        listed = ", ".join(map(reprlib.repr, columns)) or "none"
        raise ValueError(f"`{argument}` must name a column of `data` ({listed}), got {given!r}")
    return name


def _texts(
    dataset: Dataset, column: str, template: str | None, class_names: str | Path | None
) -> list[str]:
    """Returns the text of every row; empty where there is none."""
    kind = dataset.features[column]
    values = dataset.select_columns([column])[:][column]
    if isinstance(kind, library().ClassLabel):
        names = _class_names(kind.names, set(values), class_names)
        values = [names.get(value) for value in values]
        template = template or CLASS_TEMPLATE
    elif class_names is not None:
        raise ValueError(f"`class_names` is for classes, and the column {column!r} holds texts")
    texts = [_text(column, value) for value in values]
    return [template.replace("{}", text) if template and text else text for text in texts]


def _text(column: str, value: object) -> str:
    """Returns a caption, or the first of a list that is not empty, with single spaces."""
    if isinstance(value, list):
        return next((text for one in value if (text := _text(column, one))), "")
    if isinstance(value, dict):
        raise ValueError(f"`text_column` {column!r} holds no text: {reprlib.repr(value)}")
    return "" if value is None else " ".join(str(value).split())


def _class_names(
    classes: Sequence[str], used: Collection[object], path: str | Path | None
) -> dict[object, str]:
    """Returns the name of every class, by its number."""
    if path is None:
        return {number: name.replace("_", " ") for number, name in enumerate(classes)}
    names = {}
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise ValueError(f"`class_names` {str(path)!r} cannot be read: {error}") from None
    for line in lines:
        key, _, synonyms = line.partition("\t" if "\t" in line else " ")
        names[key.strip()] = synonyms.split(",")[0].strip()
    for number, name in enumerate(classes):
        if number in used and not names.get(name):
            raise ValueError(f"`class_names` {str(path)!r} has no line {name}<tab>NAME")
    return {number: names.get(name, "") for number, name in enumerate(classes)}


def _keys(images: Dataset, column: str, folder: Path | None) -> Iterator[Key]:
    """Yields what tells an image from others: its path or digest; its row where there is none."""
    cells = (cell for batch in images.iter(256) for cell in batch[column])
    for row, cell in enumerate(cells):
        path, content = (cell["path"], cell["bytes"]) if isinstance(cell, dict) else (cell, None)
        if content is not None:
            yield blake2b(content, digest_size=16).digest()
        elif not path or not path.strip():
            yield row
        else:
            yield path if folder is None else _inside(folder, path.strip())


def _inside(folder: Path, path: str) -> str:
    """Returns the path from the folder; refuses one that leads out of it."""
    place = folder / path
    if ".." in place.parts or not place.is_relative_to(folder):
        raise ValueError(f"`data` names the image {path!r}, outside its folder {str(folder)!r}")
    return place.relative_to(folder).as_posix()
