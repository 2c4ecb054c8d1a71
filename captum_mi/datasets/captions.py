"""Pairs of an image and a text from captioned photographs and class folders."""

from __future__ import annotations

import csv
import io
import json
import re
import reprlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from captum_mi.datasets.pairs import Pair

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    Row = tuple[str, str]

IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename", "filepath", "path")
CAPTION_COLUMNS = ("caption", "text", "comment", "sentence")
DELIMITERS = {",": "comma", "\t": "tab", "|": "bar", ";": "semicolon"}
QUOTED = (",", ";")

_FLICKR_TOKEN = re.compile(r"(?P<image>[^\t]+)#\d+\t(?P<caption>.*)")


def captioned_images(folder: str | Path, captions: str | Path | None = None) -> list[Pair]:
    r"""Reads which image of a folder has which caption; images are opened later, by ``Pair.load``.

    The layout of the captions is detected from what they hold:

    - a table with a header (comma, semicolon, tab or bar between columns) that names an image
      column (image, image_name, file_name, filename, filepath, path) and a caption column
      (caption, text, comment, sentence), as Flickr8k's ``captions.txt`` does;
    - Flickr8k's ``Flickr8k.token.txt``: ``name.jpg#0<tab>caption``, no header;
    - Conceptual Captions: ``caption<tab>address``, no header; the image is the file of the folder
      that has the last part of the address as its name;
    - JSON or JSON lines: records with the columns above, a mapping from image to its caption or
      captions, or COCO's ``images`` and ``annotations``;
    - img2dataset's folders, without a file of captions: ``0000.txt`` or ``0000.json`` next to
      ``0000.jpg``.

    There is one pair per image, with its first caption that is not empty. An image that is absent
    or has no caption keeps its place; its ``load`` says what is wrong.

    Args:
        folder: folder of the images; their paths in the captions start there.
        captions: file of captions in UTF-8; None for img2dataset's folders.

    Returns:
        The pairs, in the order of the file, or of the images' names without one.

    Raises:
        ValueError: if the captions cannot be understood, or a path in them leaves the folder.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     captions = Path(folder, "captions.txt")
        ...     _ = captions.write_text("image,caption\nrex.jpg,a dog on a sofa\n")
        ...     captioned_images(folder, captions)
        [Pair(name='rex.jpg', text='a dog on a sofa', problem=None)]
    """
    folder = _check_folder(folder)
    if captions is None:
        pairs = _folder_pairs(folder)
        if not any(pair.text for pair in pairs):
            raise ValueError(
                f"`folder` {str(folder)!r} has no image with a .txt or .json caption next to it;"
                " name a file of captions in `captions`"
            )
        return pairs
    where = f"`captions` {str(captions)!r}"
    content = _read_text(where, captions)
    _, first = next(_lines(content), (0, ""))
    suffix = Path(captions).suffix.lower()
    if suffix in (".json", ".jsonl", ".ndjson") or (
        suffix not in (".csv", ".tsv") and first.lstrip()[:1] in ("{", "[")
    ):
        pairs = _pairs(folder, where, _json_rows(where, content))
    elif (header := _header(first)) is not None:
        pairs = _pairs(folder, where, _table_rows(where, content, *header))
    elif _FLICKR_TOKEN.fullmatch(first):
        pairs = _pairs(folder, where, _flickr_rows(where, content))
    elif _is_conceptual(first):
        pairs = _conceptual_pairs(folder, where, content)
    else:
        raise ValueError(_unknown_layout(where, first))
    if not any(pair.text for pair in pairs):
        raise ValueError(f"{where} holds no caption")
    return pairs


def class_folders(
    folder: str | Path,
    template: str = "a photo of a {}",
    *,
    class_names: str | Path | None = None,
) -> list[Pair]:
    """Reads a folder with one folder of images per class, torchvision's ``ImageFolder`` layout.

    Args:
        folder: folder of the classes' folders; images may lie deeper in them.
        template: the text, with ``{}`` where the name of the class goes.
        class_names: file of lines ``folder<tab>name, synonym, ...``, as tiny-imagenet's
            ``words.txt``, whose first name is taken; None takes the folder's name, underscores
            read as spaces.

    Returns:
        The pairs, class by class in alphabetical order.

    Raises:
        ValueError: if there are no images, ``template`` has no ``{}``, or ``class_names`` lacks a
            class.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     Path(folder, "tabby_cat").mkdir()
        ...     Image.new("RGB", (4, 3)).save(Path(folder, "tabby_cat", "1.png"))
        ...     class_folders(folder)
        [Pair(name='tabby_cat/1.png', text='a photo of a tabby cat', problem=None)]
    """
    from torchvision.datasets import ImageFolder

    folder = _check_folder(folder)
    if "{}" not in template:
        raise ValueError(
            f"`template` must contain {{}} where the name of the class goes, got {template!r}"
        )
    try:
        images = ImageFolder(str(folder), allow_empty=True)
    except FileNotFoundError:
        images = None
    if images is None or not images.samples:
        raise ValueError(f"`folder` must hold one folder of images per class, got {str(folder)!r}")
    used = {images.classes[index] for _, index in images.samples}
    if class_names is None:
        names = {name: name.replace("_", " ") for name in used}
    else:
        names = _class_names(class_names, used)
    return [
        Pair(
            name=Path(path).relative_to(folder).as_posix(),
            text=template.replace("{}", names[images.classes[index]]),
            source=Path(path),
        )
        for path, index in images.samples
    ]


def _class_names(path: str | Path, used: Collection[str]) -> dict[str, str]:
    """First name of each used class, from lines "class<tab or space>name, synonym"."""
    where = f"`class_names` {str(path)!r}"
    names = {}
    for line in _read_text(where, path).split("\n"):
        key, _, synonyms = line.partition("\t" if "\t" in line else " ")
        if name := _tidy(synonyms.split(",")[0]):
            names[key.strip()] = name
    if missing := sorted(set(used) - set(names)):
        raise ValueError(
            f"{where} has no line CLASS<tab>NAME for {len(missing)} of {len(used)} folders, the"
            f" first of them {missing[0]!r}"
        )
    return names


def _check_folder(folder: str | Path) -> Path:
    if not Path(folder).is_dir():
        raise ValueError(f"`folder` must be an existing folder, got {str(folder)!r}")
    return Path(folder)


def _read_text(where: str, path: str | Path) -> str:
    if not Path(path).is_file():
        raise ValueError(f"{where} is not a file; give the path of an existing file")
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text ({error}); save it as UTF-8") from None


def _lines(content: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    return ((n, line) for n, line in enumerate(content.split("\n"), 1) if line.strip())


def _tidy(text: str) -> str:
    """The text with every run of white space as one space, none at the ends."""
    return " ".join(text.split())


def _inside(where: str, name: str) -> str:
    """The path of an image in its folder, refused if it leads elsewhere."""
    path = Path(name.strip())
    if path.anchor or ".." in path.parts:
        raise ValueError(
            f"{where} names the image {name!r}, outside the folder; paths must start in `folder`"
            " and stay there"
        )
    if not path.name:
        raise ValueError(f"{where} has a row without the name of an image")
    return path.as_posix()


def _pairs(folder: Path, where: str, rows: Iterable[Row]) -> list[Pair]:
    """One pair per image with its first caption that is not empty."""
    texts: dict[str, str] = {}
    for image, caption in rows:
        name = _inside(where, image)
        texts[name] = texts.get(name) or _tidy(caption)
    return [Pair(name, text, folder / name) for name, text in texts.items()]


def _column(columns: Iterable[str], accepted: Sequence[str]) -> str | None:
    """The column that has the earliest of the accepted names."""
    found = {column.strip().lower(): column for column in columns}
    return next((found[name] for name in accepted if name in found), None)


def _both_columns(columns: Collection[str]) -> tuple[str, str] | None:
    image, caption = _column(columns, IMAGE_COLUMNS), _column(columns, CAPTION_COLUMNS)
    return None if image is None or caption is None else (image, caption)


def _missing_columns(found: Collection[str]) -> str:
    return (
        f"has the columns {', '.join(map(reprlib.repr, found)) or 'none'}; it needs one of"
        f" {', '.join(IMAGE_COLUMNS)} and one of {', '.join(CAPTION_COLUMNS)}"
    )


def _fields(line: str, delimiter: str) -> list[str]:
    """The fields of one line. Tabs and bars separate everywhere, commas not within quotes."""
    if delimiter not in QUOTED:
        return [_unquoted(part.strip()) for part in line.split(delimiter)]
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:  # a field too long, or a zero byte in Python 3.10
        return [line]


def _unquoted(text: str) -> str:
    """What a spreadsheet quoted; a caption that merely starts with a quotation stays as it is."""
    inner = text[1:-1].replace('""', "")
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in inner:
        return text[1:-1].replace('""', '"')
    return text


def _header(line: str) -> tuple[str, str, str] | None:
    """Separator, image column and caption column, if the line is a header that names both."""
    for delimiter in DELIMITERS:
        if columns := _both_columns(_fields(line, delimiter)):
            return delimiter, *columns
    return None


def _table_rows(
    where: str, content: str, delimiter: str, image_column: str, caption_column: str
) -> Iterator[Row]:
    where = f"{where} ({DELIMITERS[delimiter]}-separated)"
    lines = _numbered_fields(where, content, delimiter)
    _, header = next(lines)
    image, caption = header.index(image_column), header.index(caption_column)
    remedy = "within quotes only" if delimiter in QUOTED else "in comma-separated files only"
    for number, fields in lines:
        if any(fields[len(header) :]):
            raise ValueError(
                f"{where} has {len(fields)} columns in line {number} and {len(header)} in its"
                f" header; a caption may hold a {DELIMITERS[delimiter]} {remedy}"
            )
        fields += [""] * (len(header) - len(fields))
        if not fields[image].strip():
            raise ValueError(f"{where} names no image in line {number}")
        yield fields[image], fields[caption]


def _numbered_fields(where: str, content: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Fields of every line that is not blank. Quoted fields may hold line breaks."""
    if delimiter not in QUOTED:
        yield from ((number, _fields(line, delimiter)) for number, line in _lines(content))
        return
    # Strict, because an open quote would otherwise swallow the rows behind it.
    reader = csv.reader(
        io.StringIO(content), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    try:
        for fields in reader:
            if any(part.strip() for part in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(
            f"{where} cannot be read at line {reader.line_num} ({error}); a quoted caption doubles"
            " the quotes inside it"
        ) from None


def _flickr_rows(where: str, content: str) -> Iterator[Row]:
    for number, line in _lines(content):
        match = _FLICKR_TOKEN.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{where} (Flickr8k's token layout) must read IMAGE#NUMBER<tab>CAPTION in line"
                f" {number}, got {line!r}"
            )
        yield match["image"], match["caption"]


def _is_conceptual(line: str) -> bool:
    fields = line.split("\t")
    return len(fields) == 2 and _is_address(fields[1].strip())


def _is_address(text: str) -> bool:
    """Whether the text is a web address or the name of an image file."""
    return "://" in text or Path(text).suffix.lower() in _image_suffixes()


def _conceptual_pairs(folder: Path, where: str, content: str) -> list[Pair]:
    where = f"{where} (Conceptual Captions' layout)"
    by_address: dict[str, str] = {}
    for number, line in _lines(content):
        fields = line.split("\t")
        if len(fields) != 2 or not fields[1].strip():
            raise ValueError(
                f"{where} must read CAPTION<tab>ADDRESS in line {number}, got {line!r}"
            )
        address = fields[1].strip()
        by_address[address] = by_address.get(address) or _tidy(_unquoted(fields[0].strip()))
    names = {address: _base_name(address) for address in by_address}
    shared = Counter(names.values())
    pairs = []
    for address, text in by_address.items():
        name = names[address]
        if not name:
            problem = f"the address {address!r} ends without the name of a file"
        elif shared[name] > 1:
            problem = (
                f"{shared[name]} addresses end in {name!r}, among them {address!r}; which of their"
                " captions is the file's is not known"
            )
        else:
            name = _inside(where, name)
            pairs.append(Pair(name, text, folder / name))
            continue
        pairs.append(Pair(address, text, folder, problem=problem))
    return pairs


def _base_name(address: str) -> str:
    """The last part of a web address (without host and query) or of a path."""
    _, scheme, rest = address.partition("://")
    if scheme:
        address = unquote(re.split("[?#]", rest)[0].partition("/")[2])
    return PurePosixPath(address).name.strip()


def _json_rows(where: str, content: str) -> Iterator[Row]:
    data = _parse_json(where, content)
    if isinstance(data, dict) and {"images", "annotations"} <= data.keys():
        yield from _coco_rows(where, data)
    elif isinstance(data, dict) and not _both_columns(data):
        for image, captions in data.items():
            yield from _each(where, image, captions)
    elif isinstance(data, (dict, list)):
        for number, record in enumerate(data if isinstance(data, list) else [data], 1):
            columns = _both_columns(record) if isinstance(record, dict) else None
            if columns is None:
                found = list(record) if isinstance(record, dict) else []
                raise ValueError(
                    f"{where} (JSON records): record {number} {_missing_columns(found)}"
                )
            yield from _each(where, record[columns[0]], record[columns[1]])
    else:
        raise ValueError(f"{where} must hold a JSON list or mapping, got {content.strip()[:40]!r}")


def _parse_json(where: str, content: str) -> Any:  # noqa: ANN401
    """The value of JSON, or the list of the values of JSON lines."""
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise ValueError(f"{where} is not valid JSON: {error}") from None
    values = []
    for number, line in _lines(content):
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{where} is not valid JSON lines: line {number}: {error.msg}"
            ) from None
    return values


def _each(where: str, image: object, captions: object) -> Iterator[Row]:
    """A row for every caption of a JSON value: a text, a list of texts, or null."""
    listed = captions if isinstance(captions, list) and captions else [captions]
    for caption in listed:
        caption = "" if caption in (None, []) else caption
        if not isinstance(image, str) or not isinstance(caption, str):
            raise ValueError(
                f"{where} (JSON) must give an image's path and a caption or a list of captions, got"
                f" {reprlib.repr(image)} and {reprlib.repr(captions)}"
            )
        yield image, caption


def _coco_rows(where: str, data: dict[str, Any]) -> Iterator[Row]:
    where = f"{where} (COCO's layout)"
    try:
        files = {image["id"]: image["file_name"] for image in data["images"]}
        captions = [(files[note["image_id"]], note["caption"]) for note in data["annotations"]]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{where} must have `id` and `file_name` in every image, and in every annotation"
            f" `caption` and the `image_id` of an image; not found: {error}"
        ) from None
    for image in files.values():
        yield from _each(where, image, "")
    for image, caption in captions:
        yield from _each(where, image, caption)


def _folder_pairs(folder: Path) -> list[Pair]:
    """Pairs of img2dataset's layout, captions next to their images."""
    suffixes = _image_suffixes()
    pairs = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes:
            name = path.relative_to(folder).as_posix()
            try:
                pairs.append(Pair(name, _sidecar(path), path))
            except ValueError as error:
                pairs.append(Pair(name, "", path, problem=str(error)))
    return pairs


def _sidecar(image: Path) -> str:
    """The caption next to an image: in NAME.txt, else in NAME.json; empty if there is none."""
    text, record = image.with_suffix(".txt"), image.with_suffix(".json")
    caption = ""
    if text.is_file():
        caption = _tidy(_read_text(f"caption {str(text)!r}", text))
    if not caption and record.is_file():
        where = f"caption {str(record)!r}"
        data = _parse_json(where, _read_text(where, record))
        column = _column(data, CAPTION_COLUMNS) if isinstance(data, dict) else None
        if column is None:
            raise ValueError(f"{where} has none of {', '.join(CAPTION_COLUMNS)}")
        caption = next(
            (t for _, c in _each(where, image.name, data[column]) if (t := _tidy(c))), ""
        )
    return caption


def _image_suffixes() -> tuple[str, ...]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return tuple(IMG_EXTENSIONS)


def _unknown_layout(where: str, first: str) -> str:
    """What was found and what is understood."""
    if not first:
        return f"{where} is empty"
    found, name = max(
        ((_fields(first, sign), name) for sign, name in DELIMITERS.items()),
        key=lambda pair: len(pair[0]),
    )
    return (
        f"{where} ({name}-separated) {_missing_columns(found)}; without a header it needs lines"
        " IMAGE#NUMBER<tab>CAPTION or CAPTION<tab>ADDRESS"
    )
