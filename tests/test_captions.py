"""Pairs of image and text: every layout of captions, class folders."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from captum_mi.datasets import captioned_images, class_folders

RED, BLUE = (214, 39, 40), (40, 80, 210)


def picture(path, size=(4, 3), colour=RED, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def read(tmp_path, content, name="captions.txt", folder=None):
    """The name and text of every pair of a captions file."""
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(pair.name, pair.text) for pair in captioned_images(folder or tmp_path, file)]


TABLES = {
    "Flickr8k on Kaggle": 'image,caption\n1_a.jpg,"A dog , wet , runs ."\n1_a.jpg,two\n2.jpg,B\n',
    "Flickr30k on Kaggle": (
        "image_name| comment_number| comment\n1_a.jpg| 0| A dog , wet , runs .\n"
        "1_a.jpg| 1| two\n2.jpg| 4   a row that lost its bar\n2.jpg| 1| B\n"
    ),
    "tabs": "caption\tother\tfilepath\nA dog , wet , runs .\t3\t./1_a.jpg\nB\t4\t2.jpg\n",
    "semicolons": 'Text;Path\n"A dog , wet , runs .";1_a.jpg\n\nB;2.jpg\n',
    "quotes everywhere": '"image", "text"\r\n"1_a.jpg", "A dog , wet , runs ."\r\n"2.jpg", "B"\r\n',
    "a byte order mark": '\ufefffilename,sentence\n1_a.jpg,"A dog , wet\n, runs ."\n2.jpg,B,\n',
    "empty first captions": (
        'file_name,text\n1_a.jpg,\n2.jpg,B\n1_a.jpg,  \n1_a.jpg,"A dog , wet , runs ."\n'
    ),
    "Flickr8k's tokens": "1_a.jpg#0\tA dog , wet , runs .\n1_a.jpg#1\ttwo\n2.jpg#0\tB\n",
    "JSON records": json.dumps(
        [
            {"image": "1_a.jpg", "caption": "A dog , wet , runs ."},
            {"image": "1_a.jpg", "caption": "two"},
            {"path": "2.jpg", "text": ["", None, "B"]},
        ]
    ),
    "JSON lines": (
        '{"file_name": "1_a.jpg", "text": "A dog , wet , runs ."}\n\n'
        '{"file_name": "2.jpg", "text": "B"}\n'
    ),
    "a JSON mapping": json.dumps({"1_a.jpg": ["A dog , wet , runs .", "two"], "2.jpg": "B"}),
    "COCO": json.dumps(
        {
            "info": {},
            "images": [{"id": 7, "file_name": "1_a.jpg"}, {"id": 3, "file_name": "2.jpg"}],
            "annotations": [
                {"image_id": 3, "id": 1, "caption": "B\n"},
                {"image_id": 7, "id": 2, "caption": "A dog , wet , runs ."},
                {"image_id": 7, "id": 3, "caption": "two"},
            ],
        },
        indent=1,
    ),
    "Conceptual Captions": (
        "A dog , wet , runs .\thttps://example.org/x/1_a.jpg?w=300#top\nB\thttp://e.org/b/2.jpg\n"
    ),
    "Conceptual Captions with files": "A dog , wet , runs .\ttrain/1_a.jpg\nB\t2.jpg\n",
}


@pytest.mark.parametrize("layout", TABLES)
def test_layouts(tmp_path, layout):
    assert read(tmp_path, TABLES[layout]) == [("1_a.jpg", "A dog , wet , runs ."), ("2.jpg", "B")]


def test_unicode_quotes_and_spaces(tmp_path):
    picture(tmp_path / "images/été à Köln/ein Hund #1, nass.png", colour=BLUE)
    content = 'path\tcaption\nété à Köln/ein Hund #1, nass.png\t"Wow", sagt   ein 犬 🐕\n'
    file = tmp_path / "Ü b.tsv"
    file.write_text(content, encoding="utf-8")
    (pair,) = captioned_images(tmp_path / "images", file)
    assert pair.name == "été à Köln/ein Hund #1, nass.png"
    assert pair.text == '"Wow", sagt ein 犬 🐕'
    assert pair.load().getpixel((0, 0)) == BLUE


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ('"she said ""hi"""', 'she said "hi"'),
        ('"Hi" and "ho"', '"Hi" and "ho"'),
        ('"an open quote', '"an open quote'),
        ('"', '"'),
    ],
)
def test_quotes_between_tabs(tmp_path, field, text):
    content = f"image\tcaption\n1.jpg\t{field}\n2.jpg\tB\n"
    assert read(tmp_path, content) == [("1.jpg", text), ("2.jpg", "B")]


def test_quotes_between_commas(tmp_path):
    content = 'image,caption\n1.jpg,"she said ""hi"", twice"\n2.jpg,a 5" disk\n'
    assert read(tmp_path, content) == [("1.jpg", 'she said "hi", twice'), ("2.jpg", 'a 5" disk')]


def test_conceptual_captions_finds_files_by_name(tmp_path):
    picture(tmp_path / "a dog.png", colour=BLUE)
    content = (
        "a dog\thttps://e.org/a%20dog.png\na dog again\thttps://e.org/a%20dog.png\n"
        "one\thttps://e.org/1/image.jpg\ntwo\thttps://e.org/2/image.jpg\nhost\thttp://e.org/?id=3\n"
    )
    file = tmp_path / "Validation.tsv"
    file.write_text(content)
    pairs = captioned_images(tmp_path, file)
    assert [pair.text for pair in pairs] == ["a dog", "one", "two", "host"]
    assert pairs[0].name == "a dog.png"
    assert pairs[0].load().getpixel((0, 0)) == BLUE
    for pair in pairs[1:3]:
        assert pair.name.endswith("/image.jpg")
        with pytest.raises(ValueError, match=rf"2 addresses end in 'image.jpg', .*'{pair.name}'"):
            pair.load()
    with pytest.raises(ValueError, match=r"'http://e.org/\?id=3' ends without the name of a file"):
        pairs[3].load()


def test_img2dataset(tmp_path):
    for name in ("00001/000010001.jpg", "00000/000000002.png", "00000/000000003.webp"):
        picture(tmp_path / name)
    picture(tmp_path / "00001/broken.JPEG")
    picture(tmp_path / "00001/mute.jpg")
    (tmp_path / "00000/000000002.txt").write_text("a wall\n")
    (tmp_path / "00000/000000002.json").write_text('{"caption": "from JSON"}')
    (tmp_path / "00000/000000003.json").write_text('{"key": "3", "caption": "a fence"}')
    (tmp_path / "00000/000000004.txt").write_text("the image could not be fetched")
    (tmp_path / "00001/000010001.txt").write_text("")
    (tmp_path / "00001/000010001.json").write_text('{"caption": ["", "a house"]}')
    (tmp_path / "00001/broken.json").write_text('{"url": "x"}')
    pairs = captioned_images(tmp_path)
    assert [(pair.name, pair.text) for pair in pairs] == [
        ("00000/000000002.png", "a wall"),
        ("00000/000000003.webp", "a fence"),
        ("00001/000010001.jpg", "a house"),
        ("00001/broken.JPEG", ""),
        ("00001/mute.jpg", ""),
    ]
    assert pairs[0].load().size == (4, 3)
    with pytest.raises(ValueError, match=r"broken.json' has none of caption, text"):
        pairs[3].load()
    with pytest.raises(ValueError, match=r"mute.jpg' has no caption"):
        pairs[4].load()


def test_a_coco_image_without_a_caption_stays(tmp_path):
    data = {
        "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
        "annotations": [{"image_id": 2, "caption": "two"}],
    }
    assert read(tmp_path, json.dumps(data)) == [("1.jpg", ""), ("2.jpg", "two")]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_one_record_is_a_set_of_one(tmp_path, suffix):
    record = "image,text\n1.jpg,a" if suffix == ".csv" else '{"image": "1.jpg", "text": "a"}'
    assert read(tmp_path, record, f"captions{suffix}") == [("1.jpg", "a")]


@pytest.mark.parametrize("image", ["../up.jpg", "a/../../up.jpg", "/etc/up.jpg"])
def test_paths_stay_in_the_folder(tmp_path, image):
    picture(tmp_path / "up.jpg")
    (tmp_path / "a").mkdir()
    message = f"names the image '{re.escape(image)}', outside the folder"
    for content in (
        f"image,caption\n{image},a\n",
        f"{image}#0\ta\n",
        json.dumps({image: "a"}),
        json.dumps([{"image": image, "caption": "a"}]),
        json.dumps(
            {
                "images": [{"id": 1, "file_name": image}],
                "annotations": [{"image_id": 1, "caption": "a"}],
            }
        ),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path, content, folder=tmp_path / "a")


def test_an_address_cannot_leave_the_folder(tmp_path):
    content = "a\thttps://e.org/x%2F..%2F..%2Fup.jpg\n"
    assert read(tmp_path, content) == [("up.jpg", "a")]
    with pytest.raises(ValueError, match=r"names the image '\.\.', outside the folder"):
        read(tmp_path, "a\thttps://e.org/x%2F..\n")


NEEDS = "it needs one of image, image_name, .* and one of caption, text, comment, sentence"
BAD = {
    "empty": ("", "is empty"),
    "blank": ("\n \n", "is empty"),
    "no caption column": (
        "image,label\n1.jpg,a\n",
        rf"\(comma-separated\) has the columns 'image', 'label'; {NEEDS}",
    ),
    "no image column": ("id\ttext\n1.jpg\ta\n", r"\(tab-separated\) has the columns 'id', 'text'"),
    "no header": ("1.jpg,a dog\n", r"has the columns '1.jpg', 'a dog'; .* without a header"),
    "header only": ("image,caption\n", "holds no caption"),
    "empty captions": ("image,caption\n1.jpg,\n", "holds no caption"),
    "an unquoted comma": (
        "image,caption\n1.jpg,a dog, wet\n",
        r"has 3 columns in line 2 and 2 in its header; a caption may hold a comma within quotes",
    ),
    "a tab too many": ("image\tcaption\n1.jpg\ta\tb\n", "hold a tab in comma-separated files only"),
    "an open quote": ('image,caption\n1.jpg,"a\n2.jpg,b\n', r"cannot be read at line 3 \(unexp"),
    "no image": ("image,caption\n1.jpg,a\n ,b\n", "names no image in line 3"),
    "no image in JSON": ('[{"image": "", "text": "a"}]', "without the name of an image"),
    "bad token": ("1.jpg#0\ta\n\n2.jpg\tb\n", r"token layout\) must .* line 3, got '2.jpg\\tb'"),
    "bad address": ("a\thttp://e.org/1.jpg\nb\n", r"must read CAPTION<tab>ADDRESS in line 2"),
    "broken JSON": ('[{"image": "1.jpg",]', "is not valid JSON: .* line 1 column"),
    "broken JSON line": ('{"image": "1.jpg", "text": "a"}\n\n{"image"}', "JSON lines: line 3: Exp"),
    "JSON columns": (
        '[{"image": "1.jpg", "text": "a"}, {"image": "2.jpg", "label": 3}]',
        rf"\(JSON records\): record 2 has the columns 'image', 'label'; {NEEDS}",
    ),
    "JSON values": ("[1, 2]", "record 1 has the columns none"),
    "JSON caption": ('{"1.jpg": {"raw": "a"}}', r"got '1.jpg' and {'raw': 'a'}"),
    "JSON image": ('[{"image": 3, "text": "a"}]', "got 3 and 'a'"),
    "COCO boxes": (
        '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": []}]}',
        r"\(COCO's layout\) must have .* not found: 'caption'",
    ),
    "COCO's unknown image": (
        '{"images": [], "annotations": [{"image_id": 5, "caption": "a"}]}',
        "not found: 5",
    ),
    "another encoding": ("image,caption\n1.jpg,Köln\n".encode("latin-1"), "is not UTF-8 text"),
    "a binary file": (bytes(200), "has the columns"),
    "one long line": ("a," + 200_000 * "b", r"has the columns .{1,99}; it needs"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_captions(tmp_path, case):
    content, message = BAD[case]
    with pytest.raises(ValueError, match=rf"(?s)`captions` '.*captions.txt' ?.*{message}"):
        read(tmp_path, content)


def test_json_by_its_suffix(tmp_path):
    with pytest.raises(ValueError, match="must hold a JSON list or mapping, got '\"a dog\"'"):
        read(tmp_path, '"a dog"', "captions.json")


def test_absent_folders_and_files(tmp_path):
    with pytest.raises(ValueError, match=r"`folder` must be an existing folder, got '.*away'"):
        captioned_images(tmp_path / "away")
    with pytest.raises(ValueError, match=r"`captions` '.*away.csv' is not a file"):
        captioned_images(tmp_path, tmp_path / "away.csv")
    with pytest.raises(ValueError, match=r"`captions` '.*' is not a file"):
        captioned_images(tmp_path, tmp_path)
    picture(tmp_path / "1.jpg")
    with pytest.raises(ValueError, match=r"has no image with a \.txt or \.json caption next"):
        captioned_images(tmp_path)


def test_class_folders(tmp_path, monkeypatch):
    picture(tmp_path / "tabby_cat/images/2.JPEG", colour=BLUE, format="PNG")
    picture(tmp_path / "tabby_cat/1 a.png")
    picture(tmp_path / "Köter/3.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "tabby_cat/list.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, Path()):
        pairs = class_folders(folder)
        assert [(pair.name, pair.text) for pair in pairs] == [
            ("Köter/3.jpg", "a photo of a Köter"),
            ("tabby_cat/1 a.png", "a photo of a tabby cat"),
            ("tabby_cat/images/2.JPEG", "a photo of a tabby cat"),
        ]
        assert pairs[2].load().getpixel((0, 0)) == BLUE
    assert class_folders(tmp_path, "{}: {a}")[0].text == "Köter: {a}"


@pytest.mark.parametrize("separator", ["\t", " "])
def test_class_names(tmp_path, separator):
    picture(tmp_path / "train/n02099601/1.jpg")
    picture(tmp_path / "train/n01443537/1.jpg")
    words = tmp_path / "words.txt"
    words.write_text(
        f"n00001740{separator}entity\nn01443537{separator}goldfish, Carassius auratus\n\n"
        f"n02099601{separator}golden retriever\n"
    )
    pairs = class_folders(tmp_path / "train", class_names=words)
    assert [pair.text for pair in pairs] == [
        "a photo of a goldfish",
        "a photo of a golden retriever",
    ]
    words.write_text("n02099601\tgolden retriever\n")
    with pytest.raises(ValueError, match="for 1 of 2 folders, the first of them 'n01443537'"):
        class_folders(tmp_path / "train", class_names=words)


def test_bad_class_folders(tmp_path):
    for make in (lambda: None, (tmp_path / "empty").mkdir):
        make()
        with pytest.raises(ValueError, match="`folder` must hold one folder of images per class"):
            class_folders(tmp_path)
    picture(tmp_path / "cat/1.jpg")
    with pytest.raises(ValueError, match=r"`template` must contain {} .*, got 'a photo'"):
        class_folders(tmp_path, "a photo")
    with pytest.raises(ValueError, match="`folder` must be an existing folder"):
        class_folders(tmp_path / "away")
    with pytest.raises(ValueError, match=r"`class_names` '.*away.txt' is not a file"):
        class_folders(tmp_path, class_names=tmp_path / "away.txt")


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_of_several_columns_the_first_that_the_docstring_names_is_read(tmp_path, suffix):
    columns = {"path": "/far/1.jpg", "text": "alt", "image": "1.jpg", "caption": "a dog"}
    table = ",".join(columns) + "\n" + ",".join(columns.values())
    content = table if suffix == ".csv" else json.dumps([columns])
    assert read(tmp_path, content, f"captions{suffix}") == [("1.jpg", "a dog")]
