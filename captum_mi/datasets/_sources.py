"""From the place of a data set to a ``datasets.Dataset``: folders, files, names on the hub."""

from __future__ import annotations

import csv
import glob
import json
import re
from collections import Counter, defaultdict
from contextlib import contextmanager
from importlib import import_module
from logging import CRITICAL
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from torchvision.datasets.folder import is_image_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import ModuleType

    from datasets import Dataset, DatasetDict

_TOKEN = re.compile(r"[^\t]+\.\w+#\d+\t")  # of Flickr8k.token.txt
_ADDRESS = re.compile(r"[^\t]+\t\S+://\S+")  # of Conceptual Captions


def library() -> ModuleType:
    """Returns Hugging Face's ``datasets``, imported now, or says how to install it."""
    try:
        return import_module("datasets")
    except ModuleNotFoundError as error:
        raise ImportError(
            '`data` is read by Hugging Face datasets: pip install "captum_mi[data]"'
        ) from error


def read(
    data: str | Path | Dataset | DatasetDict, split: str | None
) -> tuple[Dataset, Path | None]:
    """Reads the data; nothing is kept of what is local, so that no old copy is ever served.

    Args:
        data: a folder, a file, a name on the hub, or data that is loaded already.
        split: which split; of a folder of images, the name of one of its folders.

    Returns:
        the data, and the folder where its paths start; None where they stand by themselves.

    Raises:
        ValueError: if there is no such data, it cannot be read, or has no such split.
    """
    if isinstance(data, (library().Dataset, library().DatasetDict)):
        return _part(data, split), None
    if not isinstance(data, (str, Path)):
        raise TypeError(f"`data` must be a path, a name or a Dataset, got {type(data).__name__}")
    path = Path(data).expanduser().resolve()
    images = path.is_dir() and any(is_image_file(str(file)) for file in path.rglob("*"))
    if images and split is not None:
        path /= _one_of(split, sorted(inner.name for inner in path.iterdir() if inner.is_dir()))
    with _quiet(), TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        try:
            if images:
                return _image_folder(path, cache), path
            loaded = _load(path, cache) if path.exists() else library().load_dataset(str(data))
        except Exception as error:  # readers fail in as many ways as there are formats
            what = (
                "cannot be read"
                if path.exists()
                else "is no file or folder, and not found on the hub"
            )
            raise ValueError(f"`data` {str(data)!r} {what}: {error.__cause__ or error}") from error
    folder = path if path.is_dir() else path.parent
    return _part(loaded, split), folder if path.exists() else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the library; what goes wrong is in the errors that it raises."""
    level = library().logging.get_verbosity()
    bars_were_off = library().utils.are_progress_bars_disabled()
    library().logging.set_verbosity(CRITICAL)
    library().utils.disable_progress_bars()
    try:
        yield
    finally:
        library().logging.set_verbosity(level)
        if not bars_were_off:
            library().utils.enable_progress_bars()


def _part(loaded: Dataset | DatasetDict, split: str | None) -> Dataset:
    """Returns the split of that name; without a name the only one."""
    if isinstance(loaded, dict):
        return loaded[_one_of(split, loaded) if split or len(loaded) > 1 else next(iter(loaded))]
    if split is not None:
        raise ValueError(f"`split` is {split!r}, but `data` has no splits")
    return loaded


def _one_of(split: str | None, splits: Collection[str]) -> str:
    if split is None or split not in splits:
        known = ", ".join(map(repr, splits)) or "left out"
        raise ValueError(f"`split` must be {known}, got {split!r}")
    return split


def _load(path: Path, cache: str) -> Dataset | DatasetDict:
    if path.is_dir():
        return library().load_dataset(str(path), cache_dir=cache)
    if is_image_file(path.name):
        raise ValueError("it is an image; give the table of captions, or the folder of the images")
    if path.suffix.lower() in (".parquet", ".arrow", ".tar"):
        file = glob.escape(str(path))
        return library().load_dataset(str(path.parent), data_files=file, cache_dir=cache)
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        return library().Dataset.from_list(_records(path))
    return library().Dataset.from_dict(_table(path))


def _image_folder(folder: Path, cache: str) -> Dataset:
    """Reads images with metadata, with texts beside them, or in one folder for each class."""
    dataset: Dataset = library().load_dataset(
        "imagefolder",
        # Else a class called test_tube would be the split test.
        data_files={"train": f"{glob.escape(str(folder))}/**"},
        split="train",
        cache_dir=cache,
    )
    if not set(dataset.column_names) <= {"image", "label"}:
        return dataset
    undecoded = dataset.cast_column("image", library().Image(decode=False))
    files = [Path(image["path"]) for image in undecoded[:]["image"]]
    texts = [file.with_suffix(".txt") for file in files]
    if any(text.is_file() for text in texts):
        found = [text.read_text(encoding="utf-8") if text.is_file() else "" for text in texts]
        return dataset.add_column("text", found)
    classes = ["".join(file.relative_to(folder).parts[:-1][:1]) for file in files]
    names = sorted(set(classes))
    if "label" in dataset.column_names:
        return dataset
    if len(names) < 2 or "" in names:
        raise ValueError(
            "its images have no metadata.csv, no texts beside them and no folders of several"
            " classes; where a table holds their captions, give the table"
        )
    labels = library().ClassLabel(names=names)
    return dataset.add_column("label", [labels.str2int(name) for name in classes], feature=labels)


def _table(path: Path) -> dict[str, list[str]]:
    """Reads the columns of a table; the sign between them is found in its first line."""
    import pandas as pd

    with path.open(encoding="utf-8-sig") as file:
        first = next((line.strip() for line in file if line.strip()), "")
    names = None
    if _TOKEN.match(first):
        names = ["image", "caption"]
    elif _ADDRESS.fullmatch(first) or (first.count("\t") == 1 and is_image_file(first)):
        names = ["caption", "address"]
    sign = next((sign for sign in "\t|;" if sign in first), ",")
    table = pd.read_csv(
        path,
        sep=sign,
        names=names,
        dtype=str,
        keep_default_na=False,  # a caption may be "None"
        skipinitialspace=True,
        quoting=csv.QUOTE_NONE if names or sign == "|" else csv.QUOTE_MINIMAL,
    )
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(
            "its rows have more columns than its header; put captions with commas in quotes"
        )
    columns: dict[str, list[str]] = table.to_dict("list")
    if names and "image" in names:
        columns["image"] = [name.rpartition("#")[0] for name in columns["image"]]
    elif names:
        files = {address: _base_name(address) for address in columns["address"]}
        shared = Counter(files.values())
        unique = {address: name for address, name in files.items() if shared[name] == 1}
        columns["image"] = [unique.get(address, "") for address in columns["address"]]
    return columns


def _base_name(address: str) -> str:
    """Returns the last part of a web address, without its query, or of a path."""
    return PurePosixPath(unquote(urlsplit(address).path)).name


def _records(path: Path) -> list[dict[str, object]]:
    """Reads JSON lines, a JSON list, a mapping from images to captions, or COCO's captions."""
    text = path.read_text(encoding="utf-8-sig")
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        return [json.loads(line) for line in lines]
    if isinstance(data, list) or path.suffix.lower() != ".json":
        return data if isinstance(data, list) else [data]
    if {"images", "annotations"} <= data.keys():
        captions = defaultdict(list)
        try:
            for note in data["annotations"]:
                captions[note["image_id"]].append(note["caption"])
            data = {image["file_name"]: captions[image["id"]] for image in data["images"]}
        except KeyError as error:
            raise ValueError(f"an entry of its COCO layout has no {error}") from None
    listed = {name: [texts] if isinstance(texts, str) else texts for name, texts in data.items()}
    return [{"image": name, "caption": texts} for name, texts in listed.items()]
