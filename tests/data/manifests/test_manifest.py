"""Manifests are read as written, and every mistake is named with its line."""

import csv

import pytest

from avt_jax.data.manifests.from_folder import SplitFractions, manifest_from_folder
from avt_jax.data.manifests.manifest import read_classes, read_manifest
from avt_jax.errors import UserError

HEADER = "path,start_sec,end_sec,label,split\n"


def manifest_file(tmp_path, text):
    path = tmp_path / "clips.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_reads_spans_labels_and_splits(tmp_path):
    text = (
        "\ufeff"
        + HEADER
        + './v//a.mp4,,,dog,\n\n"x, y.mp4",1.5,2,cat,test\r\n/abs/é.mp4,3,,dog,val\n'
    )
    manifest = read_manifest(manifest_file(tmp_path, text))
    first, second, third = manifest.clips
    assert manifest.label_sets == {"label": ("cat", "dog")}
    assert (first.start_sec, first.end_sec, first.split, first.labels) == (
        0,
        None,
        "train",
        {"label": 1},
    )
    assert first.source == "v/a.mp4" and first.path == tmp_path / "v/a.mp4"
    assert (second.source, second.start_sec, second.end_sec, second.split) == (
        "x, y.mp4",
        1.5,
        2,
        "test",
    )
    assert str(third.path) == "/abs/é.mp4" and third.id.isascii()
    assert [clip.line for clip in manifest.clips] == [2, 4, 5]


def test_same_rows_get_different_ids(tmp_path):
    manifest = read_manifest(manifest_file(tmp_path, HEADER + "a.mp4,0,1,x,\na.mp4,0,1,x,\n"))
    assert len({clip.id for clip in manifest.clips}) == 2


def test_several_label_sets_and_class_lists(tmp_path):
    path = manifest_file(tmp_path, "path,label_verb,label_noun\na.mp4,cut,bread\nb.mp4,mix,dough\n")
    manifest = read_manifest(path, {"verb": ("wash", "mix", "cut")})
    assert manifest.label_sets == {"verb": ("wash", "mix", "cut"), "noun": ("bread", "dough")}
    assert manifest.clips[0].labels == {"verb": 2, "noun": 0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["is empty"]),
        ("  \n \n", ["is empty"]),
        (HEADER, ["no clips"]),
        ("path,lable\na.mp4,x\n", ["unknown column 'lable'", "did you mean 'label'"]),
        ("path,label,label\na.mp4,x,x\n", ["'label' appears twice"]),
        ("path,label,label_label\na.mp4,x,x\n", ["mean the same"]),
        ("path,label_Big!\na.mp4,x\n", ["unknown column 'label_Big!'"]),
        ("path,start_sec\na.mp4,0\n", ["no column 'label'"]),
        ("label\nx\n", ["no column 'path'"]),
        (HEADER + "a.mp4,0,1,x\n", ["line 2", "4 fields", "5"]),
        (HEADER + "a.mp4,0,1,x,\nb.mp4,1o,2,x,\n", ["line 3", "start_sec '1o'"]),
        (HEADER + "a.mp4,0,nan,x,\n", ["line 2", "end_sec 'nan'"]),
        (HEADER + "a.mp4,-1,2,x,\n", ["line 2", "start_sec '-1'"]),
        (HEADER + "a.mp4,3,2,x,\n", ["line 2", "end_sec 2 is not after start_sec 3"]),
        (HEADER + "a.mp4,2,2,x,\n", ["line 2", "not after"]),
        (HEADER + "a.mp4,0,1,,\n", ["line 2", "label is empty"]),
        (HEADER + ",0,1,x,\n", ["line 2", "path is empty"]),
        (HEADER + "v/../../a.mp4,0,1,x,\n", ["line 2", "contains '..'"]),
        (HEADER + "a.mp4,1_0,20,x,\n", ["line 2", "start_sec '1_0'"]),
        (HEADER + "a.mp4,1:30,,x,\n", ["line 2", "start_sec '1:30'", "H:MM:SS"]),
        (HEADER + "a.mp4,0:61:00,,x,\n", ["line 2", "start_sec '0:61:00'"]),
        (HEADER + "a.mp4,\u0661,,x,\n", ["line 2", "start_sec '\u0661'"]),
        (HEADER + "a.mp4,1e400,,x,\n", ["line 2", "start_sec '1e400'"]),
        (HEADER + 'a.mp4,"1,5",,x,\n', ["line 2", "start_sec '1,5'"]),
        ("path|label\na.mp4|x\n", ["unknown column 'path|label'", "semicolons or tabs"]),
        ("path;label\na.mp4;x;y\n", ["line 2", "3 fields", "a field with a semicolon"]),
        (b"p\0a\0t\0h\0,\0", ["UTF-16 without its mark"]),
        (HEADER.encode() + b"caf\xe9.mp4,,,x,\n", ["not UTF-8 text (byte 38)", "Windows-1252"]),
        (HEADER + "a.mp4,0,1,x,trian\n", ["line 2", "'trian'", "did you mean 'train'"]),
        (HEADER + '"a.mp4,0,1,x,\n', ["line"]),
        (b"\xff\xfepa\x00", ["not UTF-16 text"]),
    ],
)
def test_mistakes_are_named(tmp_path, text, expected):
    path = manifest_file(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_manifest(path)
    for part in [str(path), *expected]:
        assert part in str(error.value)


def test_missing_manifest_and_folder_as_manifest(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(UserError, match="not a file"):
        read_manifest(tmp_path)


def test_label_outside_class_list(tmp_path):
    path = manifest_file(tmp_path, HEADER + "a.mp4,0,1,dog,\nb.mp4,0,1,dgo,\n")
    with pytest.raises(UserError, match="line 3: label 'dgo' is not in .*did you mean 'dog'"):
        read_manifest(path, {"label": ("cat", "dog")})
    with pytest.raises(UserError, match="label set 'lable' .*did you mean 'label'"):
        read_manifest(path, {"lable": ("cat", "dog")})


def test_class_list(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("# source: nobody\n#\n\n dog \ncat\n#tag\n\\# sharp\ncafe\u0301\n")
    assert read_classes(path) == ("dog", "cat", "#tag", "# sharp", "caf\u00e9")
    path.write_text("dog\ncat\ndog\n")
    with pytest.raises(UserError, match="'dog' twice"):
        read_classes(path)
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match="names no class"):
        read_classes(path)


@pytest.fixture
def class_folders(tmp_path):
    folder = tmp_path / "mine"
    for name in ("cat", "dog"):
        (folder / name / "deep").mkdir(parents=True)
        for index in range(9):
            (folder / name / f"{index}.MP4").write_text(f"{name} {index}")
        (folder / name / "deep" / "9.webm").write_text(f"{name} 9")
        (folder / name / "notes.txt").write_text("not a video")
        (folder / name / ".hidden.mp4").write_text("not shown")
    return folder


def test_folder_becomes_a_manifest_that_reads_back(class_folders, tmp_path):
    out = tmp_path / "clips.csv"
    counts = manifest_from_folder(class_folders, out, seed=3).counts
    assert counts == {name: {"train": 8, "val": 1, "test": 1} for name in ("cat", "dog")}
    manifest = read_manifest(out)
    assert len(manifest.clips) == 20 and manifest.label_sets == {"label": ("cat", "dog")}
    assert all(clip.path.is_file() for clip in manifest.clips)
    assert {clip.source for clip in manifest.clips} >= {"mine/cat/0.MP4", "mine/dog/deep/9.webm"}


def test_folder_splits_depend_on_the_seed_only(class_folders, tmp_path):
    texts = []
    for number, seed in enumerate((1, 1, 2)):
        manifest_from_folder(class_folders, tmp_path / f"{number}.csv", seed=seed)
        texts.append((tmp_path / f"{number}.csv").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_copies_of_a_file_share_a_split(class_folders, tmp_path):
    for index in range(9):
        (class_folders / "dog" / f"copy{index}.mp4").write_text(f"cat {index}")
    manifest_from_folder(class_folders, tmp_path / "c.csv", fractions=SplitFractions(0.3, 0.3))
    with open(tmp_path / "c.csv", newline="") as file:
        split = {row["path"]: row["split"] for row in csv.DictReader(file)}
    pairs = [(split[f"mine/cat/{i}.MP4"], split[f"mine/dog/copy{i}.mp4"]) for i in range(9)]
    assert all(first == second for first, second in pairs)
    assert len({first for first, _ in pairs}) == 3


def test_folder_mistakes(class_folders, tmp_path):
    out = tmp_path / "clips.csv"
    with pytest.raises(UserError, match="no folder at"):
        manifest_from_folder(tmp_path / "none", out)
    with pytest.raises(UserError, match="0 sub-folder"):
        manifest_from_folder(class_folders / "cat" / "deep", out)
    with pytest.raises(UserError, match="less than 1"):
        SplitFractions(0.5, 0.5)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(UserError, match="exists"):
        manifest_from_folder(class_folders, out)
    assert out.read_text() == "mine"
