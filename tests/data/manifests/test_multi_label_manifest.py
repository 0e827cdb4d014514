"""Manifests whose clips have several classes, and rows that contradict each other."""

import numpy as np
import pytest

from avt_jax.data.manifests.label_columns import join_names, split_names
from avt_jax.data.manifests.manifest import read_manifest
from avt_jax.data.manifests.resplit import split_manifest
from avt_jax.errors import UserError


def read(folder, text, **options):
    path = folder / "clips.csv"
    path.write_text(text)
    return read_manifest(path, **options)


def classes_of(manifest, label_set="label"):
    names = manifest.label_sets[label_set]
    return [tuple(names[i] for i in clip.labels[label_set]) for clip in manifest.clips]


def test_cells_rows_and_columns_say_the_same(tmp_path):
    cells = read(tmp_path, "path,labels\na.mp4,dog|cat\nb.mp4,\nc.mp4,dog\n")
    rows = "path,label\na.mp4,dog\nc.mp4,dog\na.mp4,cat\n"
    rows = read(tmp_path, rows, multi_label=["label"])
    said = "path,labels:dog,labels:cat\na.mp4,1,TRUE\nb.mp4,0,\nc.mp4,1,false\n"
    columns = read(tmp_path, said)
    plain = read(tmp_path, said.replace("labels:", ""), multi_label=["label"])
    for found in (cells, rows, columns, plain):
        assert found.label_sets == {"label": ("cat", "dog")}
        assert found.multi_label == ("label",)
        assert not found.warnings
    for found in (cells, columns, plain):
        assert classes_of(found) == [("cat", "dog"), (), ("dog",)]
    assert classes_of(rows) == [("cat", "dog"), ("dog",)]
    assert [clip.line for clip in rows.clips] == [2, 3]
    assert [clip.id for clip in rows.clips] == ["a.mp4@0.000-end#0", "c.mp4@0.000-end#1"]


def test_rows_are_joined_only_where_span_split_and_other_sets_agree(tmp_path):
    text = (
        "path,start_sec,end_sec,labels,label_place,split\n"
        "a.mp4,0,1,x,in,train\na.mp4,0,1.0,y,in,train\na.mp4,0,2,y,in,train\n"
        "b.mp4,0,1,x,in,train\nb.mp4,0,1,y,in,val\nc.mp4,,,x,in,\n./c.mp4,0,,y,out,\n"
    )
    found = read(tmp_path, text)
    assert classes_of(found) == [("x", "y"), ("y",), ("x",), ("y",), ("x",), ("y",)]
    assert found.multi_label == ("label",)
    assert len(found.warnings) == 1
    assert "lines 7 and 8 give one clip two classes of the set 'place'" in found.warnings[0]


def test_contradictions_name_both_lines_and_the_remedy(tmp_path):
    text = "path,start_sec,label\na.mp4,1,dog\nb.mp4,1,dog\n\na.mp4,1,cat\na.mp4,2,cat\n"
    (warning,) = read(tmp_path, text).warnings
    assert "lines 2 and 5" in warning and "--multi-label label" in warning
    assert not read(tmp_path, "path,label\na.mp4,dog\na.mp4,dog\n").warnings
    many = "path,label\n" + "".join(f"{i}.mp4,{c}\n" for i in range(9) for c in "xy")
    assert "(and 8 clips more)" in read(tmp_path, many).warnings[0]


def test_bars_in_names_go_on_working(tmp_path):
    single = read(tmp_path, "path,label\na.mp4,dog|cat\nb.mp4,dog\n")
    assert single.label_sets == {"label": ("dog", "dog|cat")} and not single.multi_label
    assert "is taken for the name of one class" in single.warnings[0]
    listed = read(tmp_path, "path,label\na.mp4,dog|cat\n", classes={"label": ["dog|cat"]})
    assert not listed.warnings
    several = read(tmp_path, "path,labels\na.mp4,x\\|y|z\n")
    assert classes_of(several) == [("x|y", "z")]
    rng = np.random.default_rng(0)
    for _ in range(50):
        names = ["".join(rng.choice(list("ab| "), 4)).strip() or "a" for _ in range(3)]
        if not any(name.endswith("\\") for name in names):
            assert split_names(join_names(names)) == names


@pytest.mark.parametrize(
    "text, multi_label, message",
    [
        ("path,labels:x,label\na,1,y\n", (), "single-label and multi-label"),
        ("path,labels:x\na,2\n", (), "line 2: labels:x '2' is neither 0 nor 1"),
        ("path,labels\na,\n", (), "no clip has a class of the set 'label'"),
        ("path,label\na,x\n", ("lable",), "--multi-label lable.*mean 'label'"),
        ("path,label,dog\na,x,1\n", (), "unknown column 'dog'"),
        ("path,labels,labels\na,x,y\n", (), "appears twice"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(tmp_path, text, multi_label, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text, multi_label=multi_label)


def test_listed_classes_keep_their_order(tmp_path):
    found = read(tmp_path, "path,labels\na,x|z\n", classes={"label": ("z", "y", "x")})
    assert found.label_sets["label"] == ("z", "y", "x")
    assert [clip.labels["label"] for clip in found.clips] == [(0, 2)]
    with pytest.raises(UserError, match="not in the class list"):
        read(tmp_path, "path,labels\na,x|w\n", classes={"label": ("z", "y", "x")})


def test_a_multi_label_manifest_is_divided_row_by_row(tmp_path):
    rows = "".join(f"{i}.mp4,{c}\n" for i in range(12) for c in ("x", "y"))
    (tmp_path / "clips.csv").write_text(f"path,labels\n{rows}")
    split_manifest(tmp_path / "clips.csv", tmp_path / "new.csv")
    found = read_manifest(tmp_path / "new.csv")
    assert len(found.clips) == 12
    assert {clip.split for clip in found.clips} == {"train", "val", "test"}
    assert set(classes_of(found)) == {("x", "y")}
