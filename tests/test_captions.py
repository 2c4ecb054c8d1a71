"""Images with captions or classes, from every kind of folder, table and data set."""

import io
import json
import logging
import os
import re
import sys
import tarfile

import datasets
import pytest
from PIL import Image

from captum_mi.datasets import captioned_images

RED, BLUE = (214, 39, 40), (40, 80, 210)
DOG = "A dog , wet , runs ."


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory, monkeypatch):
    """Where the library would keep what it reads."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


def picture(path, color=RED, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), color).save(path, **options)
    return path


def texts(data, **options):
    return [(pair.name, pair.text) for pair in captioned_images(data, **options)]


def read(tmp_path, content, name="captions.txt", **options):
    """The name and text of every pair of a table."""
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return texts(file, **options)


TABLES = {
    "Flickr8k on Kaggle.txt": f'image,caption\n1_a.jpg,"{DOG}"\n1_a.jpg,two\n2.jpg,B\n',
    "Flickr30k on Kaggle.csv": (
        f"image_name| comment_number| comment\n1_a.jpg| 0| {DOG}\n"
        "1_a.jpg| 1| two\n2.jpg| 4   a row that lost its bar\n2.jpg| 1| B\n"
    ),
    "tabs.tsv": f"caption\tother\tfilepath\n{DOG}\t3\t./1_a.jpg\nB\t4\t2.jpg\n",
    "semicolons.csv": f'Text;Path\n"{DOG}";1_a.jpg\n\nB;2.jpg\n',
    "quotes everywhere.csv": f'"image", "text"\r\n"1_a.jpg", "{DOG}"\r\n"2.jpg", "B"\r\n',
    "a byte order mark.csv": '\ufefffilename,sentence\n1_a.jpg,"A dog , wet\n, runs ."\n2.jpg,B\n',
    "empty first captions.csv": (
        f'file_name,text\n1_a.jpg,\n2.jpg,B\n1_a.jpg,  \n1_a.jpg,"{DOG}"\n'
    ),
    "Flickr8k.token.txt": f'1_a.jpg#0\t{DOG}\n1_a.jpg#1\t"two\n2.jpg#0\tB\n',
    "list.json": json.dumps(
        [
            {"image": "1_a.jpg", "caption": DOG},
            {"image": "1_a.jpg", "caption": "two"},
            {"image": "2.jpg", "caption": "B"},
        ]
    ),
    "lists.json": json.dumps(
        [{"path": "1_a.jpg", "text": [DOG, "two"]}, {"path": "2.jpg", "text": ["", None, "B"]}]
    ),
    "lines.jsonl": (
        f'{{"file_name": "1_a.jpg", "text": "{DOG}"}}\n\n{{"file_name": "2.jpg", "text": "B"}}\n'
    ),
    "lines.json": (f'{{"image": "1_a.jpg", "text": "{DOG}"}}\n{{"image": "2.jpg", "text": "B"}}\n'),
    "mapping.json": json.dumps({"1_a.jpg": [DOG, "two"], "2.jpg": "B"}),
    "captions_val2017.json": json.dumps(
        {
            "info": {},
            "images": [{"id": 7, "file_name": "1_a.jpg"}, {"id": 3, "file_name": "2.jpg"}],
            "annotations": [
                {"image_id": 3, "id": 1, "caption": "B\n"},
                {"image_id": 7, "id": 2, "caption": DOG},
                {"image_id": 7, "id": 3, "caption": "two"},
            ],
        },
        indent=1,
    ),
    "Conceptual Captions.tsv": (
        f"{DOG}\thttps://example.org/x/1_a.jpg?w=300#top\nB\thttp://e.org/b/2.jpg\n"
    ),
    "Conceptual Captions with files.tsv": f"{DOG}\ttrain/1_a.jpg\nB\t2.jpg\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, name, hub_cache, capfd):
    assert read(tmp_path, TABLES[name], name) == [("1_a.jpg", DOG), ("2.jpg", "B")]
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert not list(hub_cache.iterdir())
    assert capfd.readouterr() == ("", "")


def test_parquet_with_paths(tmp_path):
    rows = {"image": ["1_a.jpg", "1_a.jpg", "2.jpg"], "caption": [DOG, "two", "B"]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "a [b].parquet")
    assert texts(tmp_path / "a [b].parquet") == [("1_a.jpg", DOG), ("2.jpg", "B")]


def test_unicode_quotes_and_what_looks_like_nothing(tmp_path):
    picture(tmp_path / "images/été à Köln/ein Hund #1, nass.png", color=BLUE)
    content = (
        'path,caption\n"été à Köln/ein Hund #1, nass.png","she said ""Wow"",   犬 🐕"\n'
        "001,None\n002,007\n"
    )
    file = tmp_path / "Ü b.csv"
    file.write_text(content, encoding="utf-8")
    pairs = captioned_images(file, image_folder=tmp_path / "images")
    assert [pair.text for pair in pairs] == ['she said "Wow", 犬 🐕', "None", "007"]
    assert [pair.name for pair in pairs][1:] == ["001", "002"]
    assert pairs[0].load().getpixel((0, 0)) == BLUE


def test_conceptual_captions_finds_files_by_name(tmp_path):
    picture(tmp_path / "a dog.png", color=BLUE)
    content = (
        "a dog\thttps://e.org/a%20dog.png\na dog again\thttps://e.org/a%20dog.png\n"
        "one\thttps://e.org/1/image.jpg\ntwo\thttps://e.org/2/image.jpg\nhost\thttp://e.org/?id=3\n"
    )
    file = tmp_path / "Validation.tsv"
    file.write_text(content)
    pairs = captioned_images(file)
    assert [pair.text for pair in pairs] == ["a dog", "one", "two", "host"]
    assert pairs[0].name == "a dog.png"
    assert pairs[0].load().getpixel((0, 0)) == BLUE
    for row, pair in enumerate(pairs[1:], 2):
        with pytest.raises(ValueError, match=rf"row {row} names no image, or one that other rows"):
            pair.load()


def test_an_image_without_a_caption_stays(tmp_path):
    data = {
        "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
        "annotations": [{"image_id": 2, "caption": "two"}],
    }
    assert read(tmp_path, json.dumps(data), "a.json") == [("1.jpg", ""), ("2.jpg", "two")]
    with pytest.raises(ValueError, match=r"'1.jpg' has no caption"):
        captioned_images(tmp_path / "a.json")[0].load()
    assert read(tmp_path, "image,text\n1.jpg,\n2.jpg,two\n") == [("1.jpg", ""), ("2.jpg", "two")]


def test_one_record_is_a_set_of_one(tmp_path):
    assert read(tmp_path, '{"image": "1.jpg", "text": "a"}', "a.jsonl") == [("1.jpg", "a")]
    assert read(tmp_path, "image,text\n1.jpg,a", "a.csv") == [("1.jpg", "a")]


@pytest.mark.parametrize("image", ["../up.jpg", "a/../../up.jpg", "/etc/up.jpg"])
def test_paths_stay_in_the_folder(tmp_path, image):
    picture(tmp_path / "up.jpg")
    (tmp_path / "a").mkdir()
    message = f"`data` names the image '{re.escape(image)}', outside its folder"
    for name, content in {
        "1.csv": f"image,caption\n{image},a\n",
        "token.txt": f"{image}#0\ta\n",
        "1.json": json.dumps({image: "a"}),
        "1.jsonl": json.dumps({"image": image, "caption": "a"}),
    }.items():
        with pytest.raises(ValueError, match=message):
            read(tmp_path, content, name, image_folder=tmp_path / "a")
    datasets.Dataset.from_dict({"image": [image], "text": ["a"]}).to_parquet(
        tmp_path / "a/1.parquet"
    )
    with pytest.raises(ValueError, match=message):
        texts(tmp_path / "a/1.parquet")
    picture(tmp_path / "a/1.png")
    (tmp_path / "a/metadata.csv").write_text(f"file_name,text\n{image},a\n")
    with pytest.raises(ValueError, match=r"`data` .*up\.jpg"):
        texts(tmp_path / "a")


def test_an_address_cannot_leave_the_folder(tmp_path):
    content = "a\thttps://e.org/x%2F..%2F..%2Fup.jpg\n"
    assert read(tmp_path, content) == [("up.jpg", "a")]
    with pytest.raises(ValueError, match=r"names the image '\.\.', outside its folder"):
        read(tmp_path, "a\thttps://e.org/x%2F..\n")


METADATA = {
    "metadata.csv": 'file_name,text\nb/1.png,"one, red"\n2.png,\n2.png,two\ngone.png,three\n',
    "metadata.jsonl": (
        '{"file_name": "b/1.png", "text": "one, red"}\n{"file_name": "2.png", "text": ""}\n'
        '{"file_name": "2.png", "text": "two"}\n{"file_name": "gone.png", "text": "three"}\n'
    ),
}


@pytest.mark.parametrize("name", METADATA)
def test_image_folder_with_metadata(tmp_path, name, hub_cache, capfd):
    folder = tmp_path / ".hidden/my [red] test*"
    picture(folder / "b/1.png", color=BLUE)
    (folder / "2.png").write_text("no image")
    picture(folder / "unlisted.png")
    (folder / name).write_text(METADATA[name])
    before = sorted(folder.rglob("*"))
    pairs = captioned_images(folder)
    assert [(pair.name, pair.text) for pair in pairs] == [
        ("b/1.png", "one, red"),
        ("2.png", "two"),
        ("gone.png", "three"),
    ]
    assert pairs[0].load().getpixel((0, 0)) == BLUE
    with pytest.raises(ValueError, match=r"2.png' cannot be read as an image"):
        pairs[1].load()
    with pytest.raises(ValueError, match=r"there is no image '.*gone.png'"):
        pairs[2].load()
    assert sorted(folder.rglob("*")) == before
    assert not list(hub_cache.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["metadata.csv", "a.csv", "a.parquet"])
def test_what_changed_under_the_same_name_is_read_anew(tmp_path, name):
    picture(tmp_path / "1.png")
    file = tmp_path / name
    for text in ("old", "new"):
        if name == "a.parquet":
            datasets.Dataset.from_dict({"image": ["1.png"], "text": [text]}).to_parquet(file)
        else:
            file.write_text(f"file_name,text\n1.png,{text}\n")
        os.utime(file, (1, 1))
        assert texts(tmp_path if name == "metadata.csv" else file) == [("1.png", text)]


def test_class_folders(tmp_path):
    picture(tmp_path / "test_tube/2.JPEG", color=BLUE, format="PNG")
    picture(tmp_path / "test_tube/1 a.png")
    picture(tmp_path / "Köter/3.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "test_tube/list.txt").write_text("no image")
    expected = [
        ("Köter/3.jpg", "a photo of a Köter"),
        ("test_tube/1 a.png", "a photo of a test tube"),
        ("test_tube/2.JPEG", "a photo of a test tube"),
    ]
    assert sorted(texts(tmp_path)) == expected
    assert sorted(texts(tmp_path, template="{}: {a}"))[0] == ("Köter/3.jpg", "Köter: {a}")
    by_name = {pair.name: pair for pair in captioned_images(tmp_path)}
    assert by_name["test_tube/2.JPEG"].load().getpixel((0, 0)) == BLUE
    # Below a class the images may lie deeper.
    (tmp_path / "test_tube/images").mkdir()
    (tmp_path / "test_tube/2.JPEG").rename(tmp_path / "test_tube/images/2.JPEG")
    expected[2] = ("test_tube/images/2.JPEG", "a photo of a test tube")
    assert sorted(texts(tmp_path)) == expected


def test_split_folders(tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "val/dog/4.png"):
        picture(tmp_path / name)
    assert sorted(texts(tmp_path, split="val")) == [
        ("cat/3.png", "a photo of a cat"),
        ("dog/4.png", "a photo of a dog"),
    ]
    for split in ("test", ".."):
        message = f"`split` must be 'train', 'val', got '{re.escape(split)}'"
        with pytest.raises(ValueError, match=message):
            texts(tmp_path, split=split)


@pytest.mark.parametrize("separator", ["\t", " "])
def test_class_names(tmp_path, separator):
    for name in ("n02099601", "n01443537"):
        picture(tmp_path / f"train/{name}/images/1.jpg")
    words = tmp_path / "words.txt"
    words.write_text(
        f"n00001740{separator}entity\nn01443537{separator}goldfish, Carassius auratus\n\n"
        f"n02099601{separator}golden retriever\n"
    )
    assert [text for _, text in texts(tmp_path / "train", class_names=words)] == [
        "a photo of a goldfish",
        "a photo of a golden retriever",
    ]
    words.write_text("n02099601\tgolden retriever\n")
    with pytest.raises(ValueError, match=r"`class_names` '.*' has no line n01443537<tab>NAME"):
        texts(tmp_path / "train", class_names=words)
    with pytest.raises(ValueError, match=r"`class_names` '.*away.txt' cannot be read"):
        texts(tmp_path / "train", class_names=tmp_path / "away.txt")
    (tmp_path / "a.csv").write_text("image,text\n1.jpg,n02099601\n")
    with pytest.raises(ValueError, match=r"`class_names` is for classes, .*'text' holds texts"):
        texts(tmp_path / "a.csv", class_names=words)


@pytest.mark.parametrize("names", [["1.png"], ["Images/1.png"], ["a/1.png", "2.png"]])
def test_images_alone_have_no_text(tmp_path, names):
    for name in names:
        picture(tmp_path / name)
    (tmp_path / "captions.txt").write_text("image,caption\n1.png,a\n")
    with pytest.raises(ValueError, match=r"`data` '.*' cannot be read: its images have no meta"):
        texts(tmp_path)


def test_texts_beside_the_images(tmp_path):
    for name in ("00001/000010001.jpg", "00000/000000002.png", "00001/mute.jpg"):
        picture(tmp_path / name)
    (tmp_path / "00000/000000002.txt").write_text("a wall\n")
    (tmp_path / "00000/000000002.json").write_text('{"caption": "from JSON"}')
    (tmp_path / "00000/000000004.txt").write_text("the image could not be fetched")
    (tmp_path / "00001/000010001.txt").write_text("a house")
    assert sorted(texts(tmp_path)) == [
        ("00000/000000002.png", "a wall"),
        ("00001/000010001.jpg", "a house"),
        ("00001/mute.jpg", ""),
    ]


@pytest.mark.parametrize("whole", [True, False])
def test_webdataset(tmp_path, whole, hub_cache):
    folder = tmp_path / "data"
    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for i, color in enumerate((RED, BLUE)):
            image = picture(tmp_path / "1.png", color=color).read_bytes()
            parts = {"png": image, "txt": b"text %d" % i, "json": b'{"key": "x"}'}
            for suffix, content in parts.items():
                member = tarfile.TarInfo(f"{i:04}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    pairs = captioned_images(folder if whole else folder / "00000.tar")
    assert [(pair.name, pair.text) for pair in pairs] == [
        ("0000.png (row 0)", "text 0"),
        ("0001.png (row 1)", "text 1"),
    ]
    assert [pair.load().getpixel((0, 0)) for pair in pairs] == [RED, BLUE]
    assert not list(hub_cache.iterdir())


def photographs(tmp_path, **columns):
    """Two images of the same name, the first one twice, of which only the content is known."""
    red, blue = (picture(tmp_path / f"{i}.png", color=c) for i, c in enumerate((RED, BLUE)))
    contents = [red.read_bytes(), blue.read_bytes(), red.read_bytes()]
    features = datasets.Dataset.from_dict(columns).features
    return datasets.Dataset.from_dict(
        {"photo": [{"bytes": content, "path": "x/1.png"} for content in contents], **columns},
        features=datasets.Features({"photo": datasets.Image(), **features}),
    )


def test_a_data_set_in_memory(tmp_path):
    data = photographs(tmp_path, id=[1, 2, 3], sentences=[["", "one"], ["two"], ["three"]])
    pairs = captioned_images(data)
    assert [(pair.name, pair.text) for pair in pairs] == [
        ("1.png (row 0)", "one"),
        ("1.png (row 1)", "two"),
    ]
    assert [pair.load().getpixel((0, 0)) for pair in pairs] == [RED, BLUE]
    assert texts(data.select([1, 2]).with_format("numpy")) == [
        ("1.png (row 0)", "two"),
        ("1.png (row 1)", "three"),
    ]
    assert texts(data, text_column="id", template="number {}") == [
        ("1.png (row 0)", "number 1"),
        ("1.png (row 1)", "number 2"),
    ]


def test_a_data_set_of_paths_and_classes(tmp_path):
    file = str(picture(tmp_path / "1.png", color=BLUE))
    labels = datasets.ClassLabel(names=["tabby_cat", "dog"])
    data = datasets.Dataset.from_dict(
        {"image": [file, "away.png", None], "kind": [0, 1, 1]},
        features=datasets.Features({"image": datasets.Image(), "kind": labels}),
    )
    pairs = captioned_images(data)
    assert [(pair.name, pair.text) for pair in pairs] == [
        ("1.png (row 0)", "a photo of a tabby cat"),
        ("away.png (row 1)", "a photo of a dog"),
        ("row 2", "a photo of a dog"),
    ]
    assert pairs[0].load().getpixel((0, 0)) == BLUE
    with pytest.raises(ValueError, match=r"row 2 names no image"):
        pairs[2].load()
    several = data.rename_column("kind", "a").add_column("b", [0, 1, 1], feature=labels)
    with pytest.raises(ValueError, match=r"`text_column` .* \('image', 'a', 'b'\), got None"):
        captioned_images(several)
    assert texts(several, text_column="b")[1] == ("away.png (row 1)", "a photo of a dog")
    data = data.cast_column("kind", datasets.Value("int64"))
    with pytest.raises(ValueError, match=r"`text_column` .* \('image', 'kind'\), got None"):
        captioned_images(data)


def test_classes_that_no_image_has_need_no_name(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("n1\tgoldfish\n")
    data = datasets.Dataset.from_dict(
        {"image": ["1.png", "2.png"], "label": [1, -1]},
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["n0", "n1"])}
        ),
    )
    assert [text for _, text in texts(data, class_names=words)] == ["a photo of a goldfish", ""]


def test_images_are_decoded_by_load_alone(tmp_path):
    data = photographs(tmp_path, text=["one", "two", "three"])
    damaged = {"bytes": b"no image", "path": "2.png"}
    data = datasets.concatenate_datasets(
        [data, datasets.Dataset.from_dict({"photo": [damaged], "text": ["four"]}, data.features)]
    )
    pairs = captioned_images(data)
    assert len(pairs) == 3
    with pytest.raises(ValueError, match=r"'2.png \(row 3\)' cannot be read as an image"):
        pairs[2].load()


def test_splits(tmp_path):
    one = photographs(tmp_path, text=["one", "two", "three"])
    both = datasets.DatasetDict(train=one, test=one.select([1]))
    assert texts(both, split="test") == [("1.png (row 0)", "two")]
    assert len(captioned_images(datasets.DatasetDict(train=one))) == 2
    for split in (None, "val"):
        message = f"`split` must be 'train', 'test', got {split!r}"
        with pytest.raises(ValueError, match=message):
            texts(both, split=split)
    with pytest.raises(ValueError, match="`split` is 'test', but `data` has no splits"):
        texts(one, split="test")
    for name, part in both.items():
        part.to_parquet(tmp_path / f"data/{name}-00000.parquet")
    assert texts(tmp_path / "data", split="test") == [("1.png (row 0)", "two")]
    with pytest.raises(ValueError, match="`split` must be 'train', 'test', got 'val'"):
        texts(tmp_path / "data", split="val")


def test_samples_are_spread_evenly(tmp_path):
    rows = "".join(f"{i}.jpg,text {i}\n" for i in range(10))
    names = [name for name, _ in read(tmp_path, f"image,text\n{rows}", samples=4)]
    assert names == ["0.jpg", "2.jpg", "5.jpg", "7.jpg"]
    assert len(read(tmp_path, f"image,text\n{rows}", samples=11)) == 10
    with pytest.raises(ValueError, match="`samples` must be at least 1, got 0"):
        read(tmp_path, f"image,text\n{rows}", samples=0)


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
def test_of_several_columns_the_first_that_the_docstring_names_is_read(tmp_path, name):
    columns = {"path": "/far/1.jpg", "text": "alt", "image": "1.jpg", "caption": "a dog"}
    table = ",".join(columns) + "\n" + ",".join(columns.values())
    content = table if name == "a.csv" else json.dumps([columns])
    assert read(tmp_path, content, name) == [("1.jpg", "a dog")]
    columns["path"] = "2.jpg"
    content = content.replace("/far/1.jpg", "2.jpg")
    given = {"image_column": "path", "text_column": "text"}
    assert read(tmp_path, content, name, **given) == [("2.jpg", "alt")]


BAD = {
    "empty.csv": ("", "cannot be read: No columns"),
    "no caption.csv": (
        "image,label\n1.jpg,a\n",
        r"`text_column` must name a column of `data` \('image', 'label'\), got None",
    ),
    "no image.tsv": ("id\ttext\n1.jpg\ta\n", r"`image_column` must .* \('id', 'text'\), got None"),
    "no header.csv": ("1.jpg,a dog\n", r"`image_column` must .* \('1.jpg', 'a dog'\), got None"),
    "header only.csv": ("image,caption\n", "`data` has no text in its column 'caption'"),
    "empty captions.csv": ("image,caption\n1.jpg,\n", "`data` has no text in"),
    "an unquoted comma.csv": ("image,caption\n1.jpg,a dog, wet\n", "more columns than its header"),
    "unquoted commas.csv": ("image,caption\n1.jpg,a\n2.jpg,a, b\n", "Expected 2 fields in line 3"),
    "an open quote.csv": ('image,caption\n1.jpg,"a\n2.jpg,b\n', "EOF inside string"),
    "broken.json": ('[{"image": "1.jpg",]', "cannot be read: .* line 1 column"),
    "broken.jsonl": ('{"image": "1.jpg", "text": "a"}\n\n{"image"}', "cannot be read: Exp"),
    "values.json": ("[1, 2]", "cannot be read"),
    "no mapping.json": ('"a dog"', "cannot be read"),
    "dictionaries.json": (
        '[{"image": "1.jpg", "text": {"raw": "a"}}]',
        r"`text_column` 'text' holds no text: {'raw': 'a'}",
    ),
    "numbers.json": ('[{"image": 3, "text": "a"}]', "`image_column` 'image' holds no images or pa"),
    "boxes.json": (
        '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": []}]}',
        "an entry of its COCO layout has no 'caption'",
    ),
    "latin.csv": ("image,caption\n1.jpg,Köln\n".encode("latin-1"), "'utf-8' codec can't decode"),
    "binary.bin": (bytes(200), "`data`"),
    "binary.parquet": (b"no parquet", "cannot be read: .*Parquet"),
    "binary.tar": (b"no tar", "cannot be read: "),
    "dog.png": (b"\x89PNG", "cannot be read: it is an image; give the table"),
    "open.csv": ("image,caption\n1.jpg,a dog, a cat\n", "more columns than its header; put"),
    "one long line.csv": ("a," + 200_000 * "b", r"must name a column of `data` \(.{1,99}\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables(tmp_path, name, capfd):
    content, message = BAD[name]
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        read(tmp_path, content, name)
    assert len(str(caught.value)) < 500
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("data", ["nobody/nothing", "nothing", "./away", "away.csv", "/away.csv"])
def test_absent_data(data, tmp_path, monkeypatch, hub_cache, capfd):
    monkeypatch.chdir(tmp_path)
    message = f"`data` '{data}' is no file or folder, and not found on the hub: Could"
    with pytest.raises(ValueError, match=message):
        captioned_images(data)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_bad_arguments(tmp_path):
    picture(tmp_path / "1.png")
    table = tmp_path / "a.csv"
    table.write_text("image,text\n1.png,a\n")
    with pytest.raises(TypeError, match="`data` must be a path, a name or a Dataset, got int"):
        captioned_images(3)
    with pytest.raises(ValueError, match=r"`template` must hold {} .*, got 'a photo'"):
        captioned_images(table, template="a photo")
    with pytest.raises(ValueError, match=r"`image_folder` must be a folder, got '.*away'"):
        captioned_images(table, image_folder=tmp_path / "away")
    for argument in ("image_column", "text_column"):
        message = rf"`{argument}` must name a column of `data` \('image', 'text'\), got 'away'"
        with pytest.raises(ValueError, match=message):
            captioned_images(table, **{argument: "away"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"`data` '.*empty' cannot be read: .*any data files"):
        captioned_images(tmp_path / "empty")


def test_the_library_is_silent_and_speaks_again_afterwards(tmp_path):
    said = []
    handler = logging.Handler()
    handler.emit = said.append
    logger, level = logging.getLogger("datasets"), datasets.logging.get_verbosity()
    logger.addHandler(handler)
    datasets.logging.set_verbosity_info()
    try:
        picture(tmp_path / "1.png")
        (tmp_path / "metadata.csv").write_text("file_name,text\n1.png,a\n")
        assert texts(tmp_path) == [("1.png", "a")]
        with pytest.raises(ValueError, match="cannot be read"):
            read(tmp_path, "no parquet", "a.parquet")
        assert said == []
        assert datasets.logging.get_verbosity() == logging.INFO
        assert not datasets.utils.are_progress_bars_disabled()
    finally:
        logger.removeHandler(handler)
        datasets.logging.set_verbosity(level)


def test_without_the_library_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"`data` is read by .*: pip install \"captum_mi\[data"):
        captioned_images("x")
