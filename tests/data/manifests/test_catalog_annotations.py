"""Official annotation files are read as published; what does not fit is named or counted."""

import pytest
from published import (
    EPIC_HEADER,
    epic_row,
    write_csv,
    write_epic,
    write_kinetics,
    write_vggsound,
)

from avt_jax.data.manifests.catalog import annotations as a
from avt_jax.data.manifests.catalog.class_names import order_classes
from avt_jax.data.manifests.catalog.entries import DATA_SETS, find_data_set, get_data_set
from avt_jax.errors import UserError

VGGSOUND, EPIC = DATA_SETS["vggsound"], DATA_SETS["epic-kitchens-100"]
KINETICS, KINETICS_SOUNDS = DATA_SETS["kinetics"], DATA_SETS["kinetics-sounds"]


def read(entry, *files):
    return a.read_annotations(entry, [("", path) for path in files])


def test_names_and_aliases():
    assert find_data_set("epic") is get_data_set("epic-kitchens-100") is EPIC
    assert find_data_set("my_videos") is None
    with pytest.raises(UserError, match="'vgsound' .did you mean 'vggsound'"):
        get_data_set("vgsound")


def test_vggsound(tmp_path):
    rows = read(VGGSOUND, write_vggsound(tmp_path / "vggsound.csv", [
        ("---g-f_I2yQ", 1, "people marching", "test"),
        ("-0a_b-c_d_9", 185, "bee, wasp, etc. buzzing", "train"),
    ]))  # fmt: skip
    assert [row.video_id for row in rows] == ["---g-f_I2yQ", "-0a_b-c_d_9"]
    assert [(row.start_sec, row.end_sec) for row in rows] == [(1, 11), (185, 195)]
    assert [row.split for row in rows] == ["test", "train"]
    assert rows[1].labels == ("bee, wasp, etc. buzzing",) and rows[1].indices == (-1,)
    assert [row.line for row in rows] == [1, 2] and not any(row.problem for row in rows)


@pytest.mark.parametrize(
    "line",
    [
        "# YouTube ID, start seconds, label, split",
        "youtube_id,start_second,label,split",
        "YTID,start,Label,Split",
        "# one field",
    ],
)
def test_a_heading_in_front_of_vggsound_is_no_row(tmp_path, line):
    path = tmp_path / "vggsound.csv"
    path.write_text(f'{line}\nabcdefghijk,7,"hail",train\n')
    assert [row.line for row in read(VGGSOUND, path)] == [2]
    path.write_text(f'abcdefghijk,7,"hail",train\n{line}\n')
    with pytest.raises(UserError, match="line 2"):
        read(VGGSOUND, path)


def test_marks_and_line_ends_of_other_programs(tmp_path):
    path = tmp_path / "vggsound.csv"
    text = 'abcdefghijk,7,"say ""hi"", twice",train\r\n\r\n --_-abcdefg , 30 ,hail, test \r\n,,,'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    rows = read(VGGSOUND, path)
    assert [(row.video_id, row.start_sec, row.split, row.line) for row in rows] == [
        ("abcdefghijk", 7.0, "train", 1), ("--_-abcdefg", 30.0, "test", 3)
    ]  # fmt: skip
    assert rows[0].labels == ('say "hi", twice',)


def test_epic_takes_the_split_from_the_file_and_the_official_indices(tmp_path):
    train = [
        epic_row("P01_01", 0, 0.14, 3.37, ("open", 3), ("door", 3)),
        epic_row("P01_01", 1, 3723.5, 3724.25, ("turn-on", 6), ("light", 114)),
    ]
    val = [epic_row("P01_11", 0, 0.0, 1.89, ("take", 0), ("plate", 2))]
    rows = read(
        EPIC,
        write_epic(tmp_path / "EPIC_100_train.csv", train),
        write_epic(tmp_path / "epic_100_validation.csv", val),
    )
    assert [row.split for row in rows] == ["train", "train", "val"]
    assert [(row.start_sec, row.end_sec) for row in rows[:2]] == [(0.14, 3.37), (3723.5, 3724.25)]
    assert [row.indices for row in rows] == [(3, 3), (6, 114), (0, 2)]
    assert [row.clip_name for row in rows] == ["P01_01_0", "P01_01_1", "P01_11_0"]
    assert a.read_annotations(EPIC, [("test", tmp_path / "EPIC_100_train.csv")])[0].split == "test"
    other = write_epic(tmp_path / "mine.csv", train)
    with pytest.raises(UserError, match="mine.csv does not say .*--csv train="):
        read(EPIC, other)


def test_columns_that_a_release_adds_are_passed_over(tmp_path):
    path = write_csv(
        tmp_path / "train.csv",
        [["singing", "abcdefghijk", 3, 13, "validate", 0]],
        ["label", "youtube_id", "time_start", "time_end", "split", "is_cc"],
    )
    (row,) = read(KINETICS, path)
    assert (row.split, row.start_sec, row.end_sec) == ("val", 3, 13)
    row = ["0", *epic_row("P01_01", 0, 0, 1, ("open", 3), ("door", 3))]
    path = write_csv(tmp_path / "EPIC_100_train.csv", [row], ["uid", *EPIC_HEADER])
    assert read(EPIC, path)[0].indices == (3, 3)


def test_rows_that_cannot_be_clips_are_counted_with_a_reason(tmp_path):
    labelled = write_kinetics(tmp_path / "train.csv", [
        ("singing", "abcdefghijk", 3, 13, "train"),
        ("singing", "abcdefghijk", 3, 13, "train"),
        ("singing", "abcdefghijk", 9, 9, "train"),
        ("", "abcdefghijk", 20, 30, "train"),
        ("laughing", "abcdefghijk", 3, 13, "train"),
    ])  # fmt: skip
    unlabelled = write_csv(
        tmp_path / "test.csv",
        [["bbcdefghijk", 1, 11, "test"]],
        ["youtube_id", "time_start", "time_end", "split"],
    )
    rows = read(KINETICS, labelled, unlabelled)
    assert [row.problem for row in rows] == ["", a.REPEATED, a.BAD_SPAN, a.NO_LABEL, "", a.NO_LABEL]
    with pytest.raises(UserError, match=r"no row of .*test\.csv has a label \(column label\)"):
        read(KINETICS, unlabelled)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("vggsound", "id1,7,hail\n", ["line 1", "3 fields, expected 4", "youtube_id"]),
        ("vggsound", "id1,7,hail,train\nid2,x,hail,train\n", ["line 2", "start_second 'x'"]),
        ("vggsound", "id1,-7,hail,train\n", ["line 1", "start_second '-7'"]),
        ("vggsound", "id1,nan,hail,train\n", ["line 1", "start_second 'nan'"]),
        ("vggsound", "id1,1e9,hail,train\n", ["line 1", "start_second '1e9'"]),
        ("vggsound", "id1,7,hail,trian\n", ["line 1", "split 'trian'", "train"]),
        ("vggsound", ",7,hail,train\n", ["line 1", "youtube_id ''"]),
        ("vggsound", "../x,7,hail,train\n", ["line 1", "'../x' is no name of a video"]),
        ("vggsound", 'id1,7,"hail,train\n', ["line 1"]),
        ("vggsound", "", ["no row of", "VGGSound"]),
        ("kinetics", "label,id\nx,y\n", ["line 2", "no column 'youtube_id'"]),
        ("epic", "P1", ["no row of"]),
    ],
)
def test_malformed_files_are_named_with_the_line(tmp_path, name, text, expected):
    path = tmp_path / "EPIC_100_train.csv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read(get_data_set(name), path)
    for part in [str(path), *expected]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("index", "start", "expected"),
    [
        (97, "00:00:01.0", "verb_class '97' is not a class index from 0 to 96"),
        (-1, "00:00:01.0", "verb_class '-1'"),
        (3, "00:61:01.0", "start_timestamp '00:61:01.0'"),
        (3, "later", "start_timestamp 'later' is neither a number of seconds"),
    ],
)
def test_malformed_epic_rows(tmp_path, index, start, expected):
    row = epic_row("P01_01", 0, 0, 1, ("open", index), ("door", 3))
    row[4] = start
    path = write_epic(tmp_path / "EPIC_100_train.csv", [row])
    with pytest.raises(UserError, match=expected):
        read(EPIC, path)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(UserError, match="none.csv does not exist"):
        read(VGGSOUND, tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-16"):
        read(VGGSOUND, tmp_path / "bytes.csv")


def test_labels_of_any_text_become_one_line(tmp_path):
    path = tmp_path / "vggsound.csv"
    path.write_text('abcdefghijk,7,"a\nb",train\nbbcdefghijk,7,#tag,train\n')
    assert [row.labels for row in read(VGGSOUND, path)] == [("a\\nb",), ("#tag",)]


# Classes.


def epic_rows(tmp_path):
    words = [("take", 0), ("grab", 0), ("take", 0), ("put", 1), ("put", 5), ("cut", 7)]
    rows = [epic_row("P01_01", n, n, n + 1, word, ("pan", 4)) for n, word in enumerate(words)]
    return read(EPIC, write_epic(tmp_path / "EPIC_100_train.csv", rows))


def test_epic_classes_without_a_list_are_called_by_their_usual_word_or_number(tmp_path):
    classes = order_classes(EPIC, epic_rows(tmp_path), {})
    verbs = classes.names["verb"]
    assert len(verbs) == 97 and len(classes.names["noun"]) == 300
    assert verbs[:8] == ("take", "put (1)", "2", "3", "4", "put (5)", "6", "cut")
    assert [classes.of(row)[0] for row in classes.rows][:2] == ["take", "take"]
    assert len(set(verbs)) == 97


def test_epic_classes_from_the_official_list(tmp_path):
    rows = [[n, f"verb{n}", f"['verb{n}', 'other']", "all"] for n in reversed(range(97))]
    header = ["id", "key", "instances", "category"]
    path = write_csv(tmp_path / "EPIC_100_verb_classes.csv", rows, header)
    classes = order_classes(EPIC, epic_rows(tmp_path), {"verb": path})
    assert classes.names["verb"] == tuple(f"verb{n}" for n in range(97))
    assert [classes.of(row)[0] for row in classes.rows][-1] == "verb7"
    short = write_csv(tmp_path / "short.csv", rows[1:], header)
    with pytest.raises(UserError, match="has 96 classes, EPIC-Kitchens-100 has 97"):
        order_classes(EPIC, epic_rows(tmp_path), {"verb": short})
    for bad in ([["x", "take"]], [[0, "take"], [0, "put"]], [[1, "take"]], []):
        path = write_csv(tmp_path / "bad.csv", bad, header[:2])
        with pytest.raises(UserError, match=r"bad\.csv"):
            order_classes(EPIC, epic_rows(tmp_path), {"verb": path})


def test_kinetics_sounds_is_kinetics_with_fewer_classes(tmp_path):
    labels = ["zumba", "playing guitar", "abseiling", "tickling", "blowing nose"]
    rows = [(label, f"{n}bcdefghijk", n, n + 10, "train") for n, label in enumerate(labels)]
    rows = read(KINETICS_SOUNDS, write_kinetics(tmp_path / "train.csv", rows))
    classes = order_classes(KINETICS_SOUNDS, rows, {})
    names = classes.names["label"]
    assert len(names) == 32 and names[0] == "blowing nose" and names[-1] == "tickling"
    assert list(names) == sorted(names), "the recipes' weights know the alphabetical order"
    assert [row.problem for row in classes.rows] == [a.OTHER_CLASS, "", a.OTHER_CLASS, "", ""]
    assert "and 26 more, which the class list names" in classes.warnings[0]

    (tmp_path / "mine.txt").write_text("zumba\nabseiling\n")
    classes = order_classes(KINETICS_SOUNDS, rows, {"label": tmp_path / "mine.txt"})
    assert classes.names == {"label": ("zumba", "abseiling")} and not classes.warnings
    assert [not row.problem for row in classes.rows] == [True, False, True, False, False]


def test_names_without_a_list_are_sorted_and_a_short_vggsound_is_noticed(tmp_path):
    rows = [("id1", 7, "hail", "train"), ("id2", 7, "air horn", "test")]
    rows = read(VGGSOUND, write_vggsound(tmp_path / "vggsound.csv", rows))
    classes = order_classes(VGGSOUND, rows, {})
    assert classes.names == {"label": ("air horn", "hail")}
    assert "names 2 classes, VGGSound has 309" in classes.warnings[0]
    with pytest.raises(UserError, match="label sets label .did you mean 'label'"):
        order_classes(VGGSOUND, rows, {"lable": tmp_path / "x.txt"})
