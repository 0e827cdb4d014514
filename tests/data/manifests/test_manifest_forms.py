"""A manifest is read as spreadsheets, scripts and people write it."""

import json
from pathlib import Path

import pytest

from avt_jax.data.manifests.manifest import read_manifest
from avt_jax.data.manifests.resplit import split_manifest
from avt_jax.host.output.cells import cell_text, plain_cell


def read(folder, text, encoding="utf-8", **options):
    path = folder / "clips.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_manifest(path, **options)


def fields(manifest):
    (names,) = manifest.label_sets.values()
    return [
        (clip.source, clip.start_sec, clip.end_sec, names[clip.labels["label"]], clip.split)
        for clip in manifest.clips
    ]


WANTED = [("a, b.mp4", 1.5, 62.25, "café", "val"), ("c;\td.mp4", 0.0, None, "dog", "train")]
ROWS = [
    ["path", "start_sec", "end_sec", "label", "split"],
    ["a, b.mp4", "1.5", "0:01:02.25", "café", "val"],
    ["c;\td.mp4", "", "", "dog", ""],
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_encodings_and_line_ends(tmp_path, delimiter, encoding, end):
    text = end.join(delimiter.join(f'"{cell}"' for cell in row) for row in ROWS) + end
    assert fields(read(tmp_path, text, encoding)) == WANTED


@pytest.mark.parametrize("first", ["\n", "\r\n\r\n", ",,,,\n", " \n;;\n", "sep=;\n", '"sep=;"\n'])
def test_what_stands_before_the_header(tmp_path, first):
    manifest = read(tmp_path, first + "path;label\na.mp4;x\n\n;\nb.mp4;y\n")
    assert [clip.source for clip in manifest.clips] == ["a.mp4", "b.mp4"]
    before = len(first.splitlines())
    assert [clip.line for clip in manifest.clips] == [before + 2, before + 5]


def test_decimal_commas_where_fields_end_otherwise(tmp_path):
    text = "path;start_sec;end_sec;label\na.mp4;1,5;0:00:02,75;x\n"
    (clip,) = read(tmp_path, text).clips
    assert (clip.start_sec, clip.end_sec) == (1.5, 2.75)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1:02:03.5", 3723.5), ("0:0:7", 7), ("62.5", 62.5), (".5", 0.5), ("1e1", 10), ("+3", 3)],
)
def test_times(tmp_path, text, seconds):
    (clip,) = read(tmp_path, f"path,start_sec,label\na.mp4,{text},x\n").clips
    assert clip.start_sec == seconds


def test_names_of_splits(tmp_path):
    names = ["Train", "training", "VAL", "valid", "Validation", "dev", "testing", ""]
    text = "path,label,split\n" + "".join(f"a.mp4,x,{name}\n" for name in names)
    splits = [clip.split for clip in read(tmp_path, text).clips]
    assert splits == ["train", "train", "val", "val", "val", "val", "test", "train"]


ODD = [
    "no\u00a0break.mp4", "narrow\u202fspace.mp4", "\U0001f468\u200d\U0001f469.mp4", "\u00ad.mp4",
    "tab\there.mp4", "line\nbreak.mp4", "line\r\nbreak.mp4", "return\rhere.mp4", "\x1b[31mred.mp4",
    " space before.mp4", "\u2028.mp4", "=1+1.mp4", "-1+1.mp4", "@x.mp4", "'=y.mp4", "'plain.mp4",
    'quo"te.mp4', "a,b;c.mp4", "percent%20.mp4", "back\\slash.mp4", "#tag.mp4",
]  # fmt: skip


def test_every_file_name_that_is_text_comes_back(tmp_path):
    from avt_jax.data.manifests.from_folder import manifest_from_folder

    for name in ODD:
        for label in ("x", "y"):
            path = tmp_path / "mine" / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(label + name)
    manifest_from_folder(tmp_path / "mine", tmp_path / "clips.csv")
    manifest = read_manifest(tmp_path / "clips.csv")
    assert {clip.source for clip in manifest.clips} == {f"mine/{x}/{n}" for x in "xy" for n in ODD}
    assert all(clip.path.is_file() for clip in manifest.clips)
    assert all(clip.id.isascii() and clip.id.isprintable() for clip in manifest.clips)
    split_manifest(tmp_path / "clips.csv", tmp_path / "again.csv", replace=True, seed=4)
    again = read_manifest(tmp_path / "again.csv")
    assert [clip.source for clip in again.clips] == [clip.source for clip in manifest.clips]


def test_labels_are_one_line_in_one_form(tmp_path):
    text = 'path,label\na,cafe\u0301\nb,caf\u00e9\nc,"two\nlines"\nd,\u00a0no\u00a0break \n'
    manifest = read(tmp_path, text)
    assert manifest.label_sets["label"] == ("caf\u00e9", "no\u00a0break", "two\\nlines")
    assert [clip.labels["label"] for clip in manifest.clips] == [0, 0, 2, 1]
    (warning,) = manifest.warnings
    assert r"'cafe\u0301'" in warning and r"'caf\xe9'" in warning
    listed = read(tmp_path, text, classes={"label": ("two\nlines", "cafe\u0301", "no\u00a0break")})
    assert listed.label_sets["label"] == ("two\\nlines", "caf\u00e9", "no\u00a0break")
    assert [clip.labels["label"] for clip in listed.clips] == [1, 1, 0, 2]


def test_one_file_named_in_full_and_below_the_folder_is_one_source(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    text = f"path,label\n{tmp_path}/v/a.mp4,x\n./v//a.mp4,x\n{tmp_path}/b.mp4,x\n"
    assert [clip.source for clip in read(tmp_path, text).clips] == [
        "v/a.mp4", "v/a.mp4", f"{tmp_path}/b.mp4"
    ]  # fmt: skip
    through = read_manifest(tmp_path / "link" / "clips.csv")
    assert [clip.source for clip in through.clips][:2] == ["v/a.mp4", "v/a.mp4"]


def test_clips_are_those_that_their_fields_say(tmp_path):
    text = 'path,start_sec,end_sec,label_a,label_b,split\n"ü\n.mp4",1,2.5,x,y,val\n/b.mp4,,,z,y,\n'
    manifest = read(tmp_path, text)
    clips = list(manifest.clips)
    assert [clip.path for clip in clips] == [tmp_path / "ü\n.mp4", Path("/b.mp4")]
    assert manifest.clips[0] == clips[0] and manifest.clips[1:] == clips[1:]
    written = [json.loads(line) for line in manifest.clips.json_lines()]
    assert written == [vars(clip) | {"path": str(clip.path)} for clip in clips]
    assert list(manifest.clips.json_lines()) == [json.dumps(one) for one in written]
    assert list(manifest.clips.of_split("val")) == clips[:1]
    assert (list(manifest.clips.sources), list(manifest.clips.labels)) == (
        [clip.source for clip in clips], [clip.labels for clip in clips]
    )  # fmt: skip


@pytest.mark.parametrize("text", ["=1", "+a", "-a", "@a", "\ta", "\ra", "\na", "'=a", "''@", "'-1"])
def test_cells_that_a_spreadsheet_would_compute(text):
    assert plain_cell(text) == f"'{text}"
    assert cell_text(plain_cell(text)) == text


@pytest.mark.parametrize("text", ["", "a=1", "-1", "+2.5e3", "'", "'a", "''", "1-1", " =a"])
def test_cells_that_stay(text):
    assert plain_cell(text) == text == cell_text(text)
