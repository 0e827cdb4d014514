"""AudioSet and VGGSounder as published: comments, codes, a row for each label, modalities."""

import pytest
from published import (
    AUDIOSET_CLASSES,
    touch,
    write_audioset,
    write_audioset_classes,
    write_vggsounder,
)

from avt_jax.data.manifests.catalog.annotations import read_annotations
from avt_jax.data.manifests.catalog.build import Options, manifest_from_annotations
from avt_jax.data.manifests.catalog.entries import get_data_set
from avt_jax.data.manifests.manifest import read_classes, read_manifest
from avt_jax.errors import UserError

SPEECH, MAN, MUSIC, DOG, _ = (mid for mid, _ in AUDIOSET_CLASSES)


def build(name, files, videos, folder, **options):
    written = manifest_from_annotations(
        get_data_set(name), [("", f) for f in files], videos, folder / "clips.csv",
        Options(**options),
    )  # fmt: skip
    lists = {label: read_classes(path) for label, path in written.class_lists.items()}
    return written, read_manifest(written.manifest, lists)


def names_of(manifest):
    names = manifest.label_sets["label"]
    return {c.source: {names[i] for i in c.labels["label"]} for c in manifest.clips}


@pytest.fixture
def audioset(tmp_path):
    train = [("--4gqARaEJE", 0, 10, [SPEECH, DOG]), ("---1_cCGK4M", 30, 40, [MUSIC])]
    files = [
        write_audioset(tmp_path / "balanced_train_segments.csv", train),
        write_audioset(tmp_path / "eval_segments.csv", [("_eval-_xxxx", 5, 15, [MAN, SPEECH])]),
    ]
    videos = touch(
        tmp_path / "v", "--4gqARaEJE_0_10000.mp4", "---1_cCGK4M.mp4", "_eval-_xxxx_000005.mp4"
    )
    return files, videos, write_audioset_classes(tmp_path / "class_labels_indices.csv")


def test_audioset(audioset, tmp_path):
    files, videos, classes = audioset
    written, manifest = build("audioset", files, videos, tmp_path, class_files={"label": classes})
    assert manifest.multi_label == ("label",)
    # The official order, and names that hold commas.
    assert manifest.label_sets["label"] == tuple(name for _, name in AUDIOSET_CLASSES)
    assert names_of(manifest) == {
        "v/--4gqARaEJE_0_10000.mp4": {"Speech", "Dog"},
        "v/---1_cCGK4M.mp4": {"Music"},
        "v/_eval-_xxxx_000005.mp4": {"Speech", "Male speech, man speaking"},
    }
    assert [(c.split, c.start_sec, c.end_sec) for c in manifest.clips] == [
        ("train", 0, None), ("train", 30, 40), ("test", 0, None)
    ]  # fmt: skip
    counts = written.tally.classes["label"]
    assert counts["Speech"]["train"].found == counts["Speech"]["test"].found == 1
    assert not counts["Speech synthesizer"]["train"].annotated
    assert written.tally.splits["train"].found == 2
    assert "no row is labelled 'Speech synthesizer'" in written.warnings[0]


def test_audioset_needs_the_names_of_its_codes(audioset, tmp_path):
    files, videos, classes = audioset
    with pytest.raises(UserError, match="--classes label=class_labels_indices.csv"):
        build("audioset", files, videos, tmp_path)
    classes.write_text("index,mid,display_name\n0,/m/04rlf,Music\n")
    with pytest.raises(UserError, match="balanced_train_segments.csv, line 4: '/m/09x0r' is not"):
        build("audioset", files, videos, tmp_path, class_files={"label": classes})
    assert not (tmp_path / "clips.csv").exists()


def test_audioset_is_held_out_by_the_first_label(tmp_path):
    rows = [(f"{i:011d}", 0, 10, [MUSIC, DOG][: 1 + i % 2]) for i in range(10)]
    file = write_audioset(tmp_path / "balanced_train_segments.csv", rows)
    videos = touch(tmp_path / "v", *(f"{i:011d}.mp4" for i in range(10)))
    options = {"label": write_audioset_classes(tmp_path / "c.csv")}
    _, manifest = build("audioset", [file], videos, tmp_path, class_files=options, val_fraction=0.2)
    assert sorted(c.split for c in manifest.clips).count("val") == 2


VGGSOUNDER = [
    ("---g-f_I2yQ_000001", "male singing", "A"),
    ("---g-f_I2yQ_000001", "people crowd", "AV"),
    ("--i-y1v8Hy8_000030", "child speech, kid speaking", "V"),
    ("--i-y1v8Hy8_000030", "people crowd", "A"),
]
CROWD, KID, MALE = "people crowd", "child speech, kid speaking", "male singing"


@pytest.mark.parametrize(
    "name, labels",
    [
        ("vggsounder", [{MALE, CROWD}, {KID, CROWD}]),
        ("vggsounder-a", [{MALE, CROWD}, {CROWD}]),
        ("vggsounder-v", [{CROWD}, {KID}]),
        ("vggsounder-av", [{CROWD}, None]),
    ],
)
def test_vggsounder_by_modality(name, labels, tmp_path):
    file = write_vggsounder(tmp_path / "vggsounder.csv", VGGSOUNDER)
    paths = ("---g-f_I2yQ_000001.mp4", "--i-y1v8Hy8_000030.mp4")
    written, manifest = build(name, [file], touch(tmp_path / "v", *paths), tmp_path)
    # All classes of the file, whichever modality is asked for: indices do not depend on it.
    assert manifest.label_sets["label"] == (KID, MALE, CROWD)
    wanted = {f"v/{path}": one for path, one in zip(paths, labels, strict=True) if one}
    assert names_of(manifest) == wanted
    assert {clip.split for clip in manifest.clips} == {"test"}
    left_out = {"vggsounder": 0, "vggsounder-a": 1, "vggsounder-v": 2, "vggsounder-av": 3}
    assert written.tally.reasons["not_taken"] == left_out[name]


def test_a_wrong_file_is_named(tmp_path):
    entry = get_data_set("vggsounder")
    file = write_vggsounder(tmp_path / "vggsounder.csv", [("no_start", "hail", "A")])
    with pytest.raises(UserError, match="line 2: video_id 'no_start' does not end in _ and"):
        read_annotations(entry, [("", file)])
    file.write_text("video_id,label\n---g-f_I2yQ_000001,hail\n")
    with pytest.raises(UserError, match="the file has no column 'modality'"):
        read_annotations(entry, [("", file)])
