"""Tables of images: csv, tsv, parquet, with files or with the images themselves."""

from __future__ import annotations

import csv
import io
import json
import pickle
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image
from tests.data.image_files import class_folders, locations, write

from evensphere.data.scan import scan
from evensphere.data.table import table
from evensphere.errors import InputError


def write_csv(file: Path, *rows: tuple[object, ...]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, delimiter="\t" if file.suffix == ".tsv" else ",").writerows(rows)
    return file


def write_parquet(file: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None) -> Path:
    pyarrow.parquet.write_table(pa.table(columns).replace_schema_metadata(metadata), file)
    return file


def png(red: int) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (8, 6), (red, 0, 0)).save(encoded, "png")
    return encoded.getvalue()


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet"])
def test_files_classes_groups_and_parts(tmp_path: Path, name: str) -> None:
    class_folders(tmp_path / "images", cat=4, dog=4)
    rows = [(f"{kind}/{i}.png", kind, f"take {i // 2}", part) for kind in ("dog", "cat") for i, part in PARTS]
    header = ("filename", "species", "take", "split")
    if name == "rows.parquet":
        columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
        file = write_parquet(tmp_path / name, columns)
    else:
        file = write_csv(tmp_path / name, header, *rows)
    splits = table(file, label_column="species", group_column="take", root=tmp_path / "images")
    assert locations(splits.pretrain) == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert splits.pretrain.class_names == ("cat", "dog")
    assert splits.probe is splits.pretrain
    assert splits.validation is not None
    assert splits.test is not None
    assert locations(splits.validation) == ["cat/2.png", "dog/2.png"]
    assert locations(splits.test) == ["cat/3.png", "dog/3.png"]
    labels, groups = splits.pretrain.labels(), splits.pretrain.groups()
    assert labels is not None
    assert groups is not None
    assert labels.tolist() == [0, 0, 1, 1]
    assert groups.tolist() == [0, 0, 0, 0], "both classes have a 'take 0'"
    assert int(splits.test.read(1)[0, 0, 0]) == 3


PARTS = [(0, "train"), (1, "Training"), (2, "val"), (3, "TEST")]


def test_cells_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    names = ["a,b.png", 'say "x".png', "two\nlines.png", "=1+2.png", "-1.png", "007.png", "NA.png", "über.png"]
    for name in names:
        write(tmp_path / name)
    write_csv(
        tmp_path / "rows.csv", ("path", "label"), *((name, "=A1" if i else "NULL") for i, name in enumerate(names))
    )
    source = table(tmp_path / "rows.csv").pretrain
    assert sorted(locations(source)) == sorted([*names[:2], r"two\x0alines.png", *names[3:]])
    assert source.class_names == ("=A1", "NULL")
    assert scan(source) == []


def test_a_table_from_elsewhere(tmp_path: Path) -> None:
    """A byte order mark, CRLF, a name that is no text, an empty line, an empty cell."""
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\nb.png,1\r\n\r\n\xff.png,0\r\n,1\r\na.png,10\r\n")
    source = table(tmp_path / "rows.csv").pretrain
    assert locations(source) == ["a.png", "b.png", r"\xff.png"]
    assert source.class_names == ("0", "1", "10"), "numbers are in the order of numbers"
    assert source.unlisted == (("rows.csv[2]", "the row has no image"),)


def test_labels_in_some_rows_only_are_none(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "rows.csv", ("path", "label"), ("a.png", 1), ("b.png", ""), ("c.png", 0))
    assert table(file).pretrain.labels() is None
    negative = write_parquet(tmp_path / "rows.parquet", {"path": ["a.png", "b.png"], "label": [-1, -1]})
    assert table(negative).pretrain.labels() is None
    halves = write_parquet(tmp_path / "floats.parquet", {"path": ["a.png", "b.png"], "label": [1.0, 0.0]})
    assert table(halves).pretrain.class_names == ("0", "1")
    assert table(halves, label_column="").pretrain.class_names is None


def test_images_without_a_group_stand_alone(tmp_path: Path) -> None:
    rows = [("a.png", "x"), ("b.png", ""), ("c.png", "x"), ("d.png", "")]
    groups = table(write_csv(tmp_path / "rows.csv", ("path", "burst"), *rows), group_column="burst").pretrain.groups()
    assert groups is not None
    assert groups.tolist() == [0, 1, 0, 2]


def test_a_column_may_serve_twice(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "rows.csv", ("path", "label"), ("a.png", "x"), ("b.png", "y"), ("c.png", "x"))
    source = table(file, group_column="label").pretrain
    labels, groups = source.labels(), source.groups()
    assert labels is not None
    assert groups is not None
    assert labels.tolist() == groups.tolist() == [0, 1, 0]


# --- images in the table ----------------------------------------------------------------------------------------------


def test_a_table_as_hugging_face_writes_it(tmp_path: Path) -> None:
    reds = [30, 10, 20, 40, 50, 60]
    images = [{"bytes": png(red), "path": f"{red}.png"} for red in reds]
    names = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["cat", "dog"]}}}})}
    file = write_parquet(tmp_path / "x.parquet", {"image": images, "label": [0, 1, 1, 0, 0, 1]}, names)
    splits = table(file)
    assert locations(splits.pretrain) == [f"{red}.png" for red in sorted(reds)]
    assert [int(splits.pretrain.read(i)[0, 0, 0]) for i in range(6)] == sorted(reds)
    assert splits.pretrain.class_names == ("cat", "dog")
    assert splits.train_counts() == [3, 3]
    assert splits.test is not None
    copy = pickle.loads(pickle.dumps(splits.pretrain))
    assert copy.read(5).equal(splits.pretrain.read(5))


def test_encoded_images_without_telling_names_are_numbered(tmp_path: Path) -> None:
    images = [png(1), None, png(3), b"no image"] * 4
    source = table(write_parquet(tmp_path / "x.parquet", {"image": images})).pretrain
    assert locations(source)[:4] == ["x.parquet[0]", "x.parquet[2]", "x.parquet[3]", "x.parquet[4]"]
    assert locations(source)[-1] == "x.parquet[15]"
    assert int(source.read(1)[0, 0, 0]) == 3
    assert source.unlisted[0] == ("x.parquet[1]", "the row has no image")
    assert len(scan(source, workers=2)) == 4
    named = [{"bytes": png(red), "path": "same.png"} for red in (1, 2)]
    source = table(write_parquet(tmp_path / "x.parquet", {"image": named})).pretrain
    assert locations(source) == ["x.parquet[0]", "x.parquet[1]"]


def test_a_struct_may_hold_paths_alone(tmp_path: Path) -> None:
    class_folders(tmp_path, a=2)
    images = [{"bytes": None, "path": f"a/{i}.png"} for i in (1, 0)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    source = table(write_parquet(tmp_path / "x.parquet", {"image": pa.array(images, kind)})).pretrain
    assert locations(source) == ["a/0.png", "a/1.png"]
    assert int(source.read(1)[0, 0, 0]) == 1


def test_more_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_parquet(tmp_path / "x.parquet", {"image": [png(i) for i in range(100)], "label": [0, 1] * 50})
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=1000))
    with pytest.raises(InputError, match=r"take 0\.0 GB, and 0\.0 GB of memory are free; unpack them"):
        table(file)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image_column": "photo"}, r"has no column 'photo' \(image_column\); its columns are path, label, part"),
        ({"label_column": "photo"}, r"has no column 'photo' \(label_column\)"),
        ({"group_column": "photo"}, r"has no column 'photo' \(group_column\)"),
        ({"split_column": "part"}, "holds 'maybe'; a column that divides the images holds train, val and test"),
    ],
)
def test_wrong_columns_are_one_sentence(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    file = write_csv(tmp_path / "x.csv", ("path", "label", "part"), ("a.png", 1, "maybe"), ("b.png", 2, "train"))
    with pytest.raises(InputError, match=sentence):
        table(file, **options)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "Empty CSV"),
        (b"photo,label\na.png,1\n", "has no column for the images' files; its columns are photo, label"),
        (b"path,path\na.png,1\n", "more than one column called 'path'"),
        (b"path,label\na.png\n", "Expected 2 columns, got 1"),
        (b"path,label\na.png,1\nb.png,1\na.png,2\n", r"a\.png is in .* more than once, in its rows 1 and 3"),
        (b"path,label\na.png,1\n", "holds one image"),
    ],
)
def test_tables_that_cannot_be_used_are_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(InputError, match=sentence) as caught:
        table(tmp_path / "x.csv")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        table(tmp_path / "nowhere.csv")
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="cannot be read"):
        table(tmp_path / "x.parquet")
    file = write_parquet(tmp_path / "y.parquet", {"path": ["a.png", "b.png"], "label": [0.5, 1.0]})
    with pytest.raises(InputError, match="holds fractions"):
        table(file)
