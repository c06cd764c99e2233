"""Tables of pictures, as spreadsheets, scripts and data sets write them."""

import csv
import dataclasses
import io
import pathlib
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import DataError, open_source
from effnetv2_jax.data.report import EVALUATION, TRAINING, describe_data
from effnetv2_jax.data.sources.open import open_sources
from effnetv2_jax.data.sources.table import TableSource
from effnetv2_jax.data.sources.table_file import DELIMITERS, read_table
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.train.evaluated_sets import open_sets


def touch(root: pathlib.Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def table(root: pathlib.Path, text: str | bytes, name: str = "t.csv", **fields: Any) -> DataConfig:
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return DataConfig(source="csv", path=str(path), **fields)


def whole(data: DataConfig, split: str = "all") -> TableSource:
    source = open_source(dataclasses.replace(data, train_split=split), "train")
    assert isinstance(source, TableSource)
    return source


def labels(data: DataConfig, split: str = "all") -> dict[str, tuple[str, ...]]:
    """The names of each picture's classes, by the picture's own name."""
    source = whole(data, split)
    return {
        pathlib.Path(source[n].key).name: tuple(source.class_names[k] for k in source[n].labels)
        for n in range(len(source))
    }


def refused(data: DataConfig) -> str:
    with pytest.raises(DataError) as error:
        open_sources(data)
    return str(error.value)


def notes(data: DataConfig) -> list[str]:
    train, evaluation = open_sources(data)
    return describe_data({TRAINING: train, EVALUATION: evaluation})


EXPECTED = {"1.png": ("cat",), "2.png": ("dog",), "3.png": ("cat",)}


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n1.png,cat\n2.png,dog\n3.png,cat\n",
        "\ufeffImage;Class\r\n1.png;cat\r\n2.png;dog\r\n3.png;cat\r\n",
        "1.png\tcat\n2.png\tdog\n3.png\tcat",
        "file_name, label\n 1.png , cat\n\n2.png, dog\n3.png, cat\n",
        '"image_id" , "target"\n"1" , "cat"\n"2" , "dog"\n"3" , "cat"\n',
        "1.png cat\n2.png dog\n3.png cat\n",
        "label|x|path\rcat|1|1.png\rdog|2|2.png\rcat|3|3.png\r",
        "path,label\n1.png,cat\n2.png,dog\n3.png,cat\n".encode("utf-16"),
    ],
)
def test_as_people_write_them(tmp_path: pathlib.Path, text: str | bytes) -> None:
    touch(tmp_path, "1.png", "2.png", "3.png")
    data = table(tmp_path, text)
    assert labels(data) == EXPECTED
    assert sorted(whole(data)[n].encoded for n in range(3)) == [b"1.png", b"2.png", b"3.png"]


_CELL = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\x85\u2028\u2029"),
    min_size=1,
).filter(lambda cell: cell == cell.strip() and cell.strip('"') == cell and "\ufeff" not in cell)


@given(
    rows=st.lists(st.tuples(_CELL, _CELL, _CELL), min_size=1, max_size=8),
    delimiter=st.sampled_from([each for each in DELIMITERS if each != " "]),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
@settings(max_examples=60, deadline=None)
def test_what_pythons_writer_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, ...]],
    delimiter: str,
    end: str,
    quoting: Any,
    encoding: str,
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.csv"
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    path.write_bytes(buffer.getvalue().encode(encoding))
    read = read_table(path, delimiter=delimiter)
    assert [row.cells for row in read.rows] == rows
    assert [row.number for row in read.rows] == list(range(1, len(rows) + 1))


def test_the_class_order_is_that_of_names_or_numbers(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "a.png", "b.png", "c.png")
    text = "path,label\na.png,10\nb.png,9\nc.png,2\n"
    data = table(tmp_path, text, train_split="all")
    assert open_source(data, "train").class_names == ("2", "9", "10")
    stated = table(tmp_path, text, train_split="all", num_classes=12, first_label=1)
    source = open_source(stated, "train")
    assert source.class_names == tuple(map(str, range(12)))
    assert [source[n].labels for n in range(3)] == [(9,), (8,), (1,)]
    few = dataclasses.replace(stated, num_classes=9)
    assert "row 2 has 10. The classes, those of training, are 1 to 9 (data" in refused(few)


def test_splits_by_a_column(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(6)))
    rows = "".join(f"{n}.png,{'ab'[n % 2]},{'train' if n < 4 else 'val'}\n" for n in range(6))
    data = table(tmp_path, f"path,label,split\n{rows}")
    train, evaluation = open_sources(data)
    assert [len(train), len(evaluation)] == [4, 2]
    assert evaluation.name.endswith("t.csv (test: val)")
    assert "no split 'night'; there are 'train', 'val'" in refused(
        dataclasses.replace(data, eval_split="night")
    )
    odd = table(tmp_path, f"path,label,split\n{rows.replace('val', '3')}")
    assert any("the column split is not taken for that of the splits" in n for n in notes(odd))


def test_a_file_for_each_split(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "train.csv").write_text("path,label\n1.png,cat\n2.png,dog\n")
    (tmp_path / "valid.csv").write_text("path,label\n3.png,dog\n")
    train, evaluation = open_sources(DataConfig(source="csv", path=str(tmp_path)))
    assert (len(train), len(evaluation), evaluation[0].labels) == (2, 1, (1,))
    (tmp_path / "valid.csv").write_text("path,label\n3.png,cow\n")
    assert "valid.csv, row 2 has cow" in refused(DataConfig(source="csv", path=str(tmp_path)))


def test_held_out_of_every_class(tmp_path: pathlib.Path) -> None:
    names = [f"{n}.png" for n in range(60)]
    touch(tmp_path, *names)
    text = "path,label\n" + "".join(f"{name},{n % 3}\n" for n, name in enumerate(names))
    train, evaluation = open_sources(table(tmp_path, text))
    assert isinstance(train, TableSource)
    assert isinstance(evaluation, TableSource)
    assert (train.class_counts, evaluation.class_counts) == ((18,) * 3, (2,) * 3)
    assert not {*train.paths} & {*evaluation.paths}
    moved = tmp_path.with_name(f"{tmp_path.name}_moved")
    tmp_path.rename(moved)
    again, _ = open_sources(DataConfig(source="csv", path=str(moved / "t.csv")))
    assert again.fingerprint == train.fingerprint != evaluation.fingerprint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "t.csv is empty"),
        ("a/1.png\nb/2.png\n", "names pictures, but no labels: it has a single column"),
        ("path,label\n1.png,cat\n2.png\n", "has 2 columns, but row 3 has 1"),
        ("path,label\n1.png,cat\n2.png,\n3.png,\n", "row 3, column label: it is empty, row 4"),
        ("path,label\n1.png,cat\n,dog\n", "column path is empty in row 3"),
        ("path,label\n1.png,cat\n9.png,dog\n", "1 of 2 pictures are missing: row 3: "),
        ("path,label\n1.png,cat\nhttp://a/b.png,dog\n", "holds an address, not a file, in row 3"),
        ("path,label\n1.png,cat\n1.png,dog\n", "row 2 and row 3 (1.png: cat and dog)"),
        ("a,b,c\n1.png,cat,x\n2.png,dog,x\n", "not clear which column is the picture; its columns"),
        ('path,label\n1.png,"cat\n', "unexpected end of data"),
        ("path,label\n1.png,c\xe9\n".encode("latin-1"), "line 2: it is not written in utf-8"),
        ("1.png,cat;dog\n2.png,cow;dog\n", "with comma or semicolon between its cells"),
    ],
)
def test_refuses_by_row_and_column(tmp_path: pathlib.Path, text: str | bytes, said: str) -> None:
    touch(tmp_path, "1.png", "2.png", "3.png")
    assert said in refused(table(tmp_path, text, max_unreadable=0))


def test_says_how_many_rows_more(tmp_path: pathlib.Path) -> None:
    rows = "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(40))
    said = refused(table(tmp_path, f"path,label\n{rows}"))
    assert "40 of 40 pictures are missing: row 2: " in said
    assert " and 35 more" in said
    touch(tmp_path, *(f"photos/{n}.png" for n in range(40)))
    assert "Is data.pictures=photos meant?" in refused(table(tmp_path, f"path,label\n{rows}"))
    elsewhere = table(tmp_path, f"path,label\n{rows}", pictures="photos")
    assert len(labels(elsewhere)) == 40


def test_says_how_a_table_is_read(tmp_path: pathlib.Path) -> None:
    names = [f"{n}.png" for n in range(20)]
    touch(tmp_path, *names[:-1])
    rows = [f"{name.upper()};{'ab'[n % 2]};x" for n, name in enumerate(names)]
    said = notes(table(tmp_path, "\n".join(["Image;Label;By", *rows, rows[0]])))
    assert said[0] == "2 classes: a, b"
    assert "t.csv: semicolon between cells, a header; pictures in Image; labels in Label; not " in (
        "\n".join(said)
    )
    assert "missing are 1 pictures: row 21: 19.PNG" in said
    assert any(each.startswith("20 pictures are called otherwise: row 2: 0.PNG") for each in said)
    assert any(
        each.startswith("1 rows repeat a picture, which counts once: row 2") for each in said
    )


def test_several_labels(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "1.png", "2.png", "3.png", "4.png")
    expected = {"1.png": ("cat", "dog"), "2.png": ("dog",), "3.png": (), "4.png": ("cat",)}
    joined = table(
        tmp_path,
        "path,labels\n1.png,cat; dog\n2.png,dog\n3.png,\n4.png,cat;\n",
        label_separator=";",
        max_labels=2,
    )
    assert {name: tuple(sorted(its)) for name, its in labels(joined).items()} == expected
    flags = table(
        tmp_path,
        "path,cat,dog,owl\n1.png,1,1,0\n2.png,0,1,0\n3.png,0,0,0\n4.png,1.0,,0\n",
        label_columns=("*",),
        max_labels=3,
    )
    assert labels(flags) == expected
    assert whole(flags).class_names == ("cat", "dog", "owl")
    rows = table(
        tmp_path, "path,label\n1.png,dog\n1.png,cat\n2.png,dog\n4.png,cat\n3.png,\n", max_labels=2
    )
    assert {name: tuple(sorted(its)) for name, its in labels(rows).items()} == expected
    odd = "path,cat,dog\n1.png,1,2\n2.png,0,x\n"
    said = refused(table(tmp_path, odd, label_columns=("cat", "dog"), max_labels=2))
    assert "row 2, column dog: 2 is neither 0 nor 1, row 3, column dog: x is" in said
    few = table(tmp_path, "path,label\n1.png,a;b;c\n2.png,a\n", label_separator=";", max_labels=2)
    assert "row 2 has 3 labels, more than data.max_labels=2" in refused(few)


def test_labels_that_look_like_several(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(9)))
    rows = "".join(f"{n}.png,{('cat', 'dog', 'cat;dog')[n % 3]}\n" for n in range(9))
    said = notes(table(tmp_path, f"path,label\n{rows}"))
    assert any(each.startswith("cat;dog are classes of their own; for several") for each in said)


def test_tiny_imagenets_list(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "images/val_0.JPEG", "images/val_1.JPEG")
    text = "val_0.JPEG\tn01\t0\t32\t44\t62\nval_1.JPEG\tn02\t52\t55\t57\t59\n"
    data = table(tmp_path, text, name="val_annotations.txt")
    assert labels(data) == {"val_0.JPEG": ("n01",), "val_1.JPEG": ("n02",)}
    assert any("Tiny ImageNet's list" in note for note in whole(data).notes)


def test_imagenets_lists(tmp_path: pathlib.Path) -> None:
    names = [f"ILSVRC2012_val_{n:08}.JPEG" for n in (1, 2, 3)]
    touch(tmp_path, *(f"val/{name}" for name in names))
    kaggle = table(
        tmp_path,
        "ImageId,PredictionString\nILSVRC2012_val_00000001,n02 1 2 3 4 n02 5 6 7 8 \n"
        "ILSVRC2012_val_00000002,n01 1 2 3 4 \nILSVRC2012_val_00000003,n02 1 2 3 4 \n",
        name="LOC_val_solution.csv",
        pictures="val",
    )
    expected = dict(zip(names, [("n02",), ("n01",), ("n02",)]))
    assert labels(kaggle) == expected
    alone = table(tmp_path, "n02\nn01\nn02\n", name="synset_labels.txt", pictures="val")
    assert labels(alone) == expected
    assert "a single column of 2 rows, and there are 3 pictures" in refused(
        table(tmp_path, "n02\nn01\n", name="synset_labels.txt", pictures="val")
    )
    caffe = table(
        tmp_path,
        "".join(f"{name} {n}\n" for name, n in zip(names, (65, 970, 230))),
        name="val.txt",
        pictures="val",
        num_classes=1000,
    )
    assert labels(caffe) == dict(zip(names, [("65",), ("970",), ("230",)]))
    devkit = table(tmp_path, "1\n2\n3\n", name="ILSVRC2012_validation_ground_truth.txt")
    assert "as the development kit does" in refused(devkit)


def test_numbers_are_places_among_the_classes_of_weights(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "1.png", "2.png", "3.png")
    data = table(tmp_path, "1.png 1\n2.png 0\n3.png 1\n", eval_split="all", num_classes=2)
    experiment = tiny.experiment(data=data)
    mesh = make_mesh()
    said: list[str] = []
    (found,) = open_sets(experiment, mesh, ("dog", "cat"), "weights", said.append)
    assert [found.source[n].labels for n in range(3)] == [(1,), (0,), (1,)]
    unstated = dataclasses.replace(experiment, data=dataclasses.replace(data, num_classes=None))
    with pytest.raises(DataError, match="has '0', '1', which weights does not know"):
        open_sets(unstated, mesh, ("dog", "cat"), "weights", said.append)
