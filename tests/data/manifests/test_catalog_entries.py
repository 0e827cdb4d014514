"""Every entry of the catalog can be built; one entry is all that a data set takes."""

import dataclasses
import importlib.resources

import pytest

from avt_jax.cli.data import manifest as manifest_cli
from avt_jax.data.manifests import catalog
from avt_jax.data.manifests.catalog import entries
from avt_jax.data.manifests.catalog.build import Options, manifest_from_annotations
from avt_jax.data.manifests.catalog.entries import DATA_SETS, DataSet, LabelSet
from avt_jax.data.manifests.manifest import read_classes, read_manifest
from avt_jax.data.records import SPLITS

BIRDS = DataSet(
    name="birds",
    title="Birds of the made-up park",
    columns=("who", "recording", "from", "to", "part"),
    delimiter=";",
    video="recording",
    start="from",
    end="to",
    label_sets={"label": LabelSet("who", num_classes=2)},
    split="part",
    splits={"a": "train", "b": "test"},
)
FROGS = DataSet(
    name="frogs",
    title="Frogs of the made-up pond",
    aliases=("toads",),
    delimiter="\t",
    quote="",
    video="clip",
    start="second",
    clip_sec=3.0,
    label_sets={
        "frog": LabelSet("frog"),
        "call": LabelSet("call", index_column="call_number", num_classes=5),
    },
    file_splits={"frogs_1": "train", "frogs_2": "val"},
)


def class_names(entry):
    """Names that the entry's first label set may have."""
    if not entry.class_list:
        return ("one class", "the other, with a comma")
    listed = importlib.resources.files(catalog) / entry.class_list
    with importlib.resources.as_file(listed) as path:
        return read_classes(path)[:2]


def said_of(entry, label_set, name):
    """What a row says of a class."""
    return f"/m/{class_names(entry).index(name)}" if label_set.codes else name


def made_up_rows(entry):
    """{our split: [{column: text}]}, two rows for every split the entry can have.

    Their "name" is the class of all label sets, "span" the start of the clip and "id" its video.
    """
    names = class_names(entry)
    said = entry.splits if entry.split else {split: split for split in entry.file_splits.values()}
    official = {ours: theirs for theirs, ours in said.items()}
    rows = {split: [] for split in SPLITS if split in official}
    for number, split in enumerate(split for split in rows for _ in names):
        row = {"id": f"video_{number:05d}", "span": 2 * number, "name": names[number % 2]}
        start = f"_{2 * number:06d}" if entry.name_has_start else ""
        row |= {entry.video: row["id"] + start}
        row |= {entry.start: str(2 * number)} if entry.start else {}
        row |= {column: taken[0] for column, taken in entry.only.items()}
        row |= {entry.end: str(2 * number + 1)} if entry.end else {}
        row |= {entry.clip: f"narration_{number}"} if entry.clip else {}
        row |= {entry.split: official[split]} if entry.split else {}
        for label_set in entry.label_sets.values():
            row[label_set.column] = said_of(entry, label_set, names[number % 2])
            if label_set.index_column:
                row[label_set.index_column] = str(number % 2)
        rows[split].append(row)
    return rows


def quoted(entry, field):
    needs = entry.delimiter in field
    assert entry.quote or not needs, "a file without quotes cannot hold this"
    return f"{entry.quote}{field}{entry.quote}" if needs else field


def write_published(entry, rows, folder):
    """The files that the data set's authors would publish."""
    folder.mkdir()
    first = next(iter(rows.values()))[0]
    columns = entry.columns or tuple(name for name in first if name not in ("id", "span", "name"))
    between = entry.delimiter + " " * entry.spaced
    lines = {
        split: [between.join(quoted(entry, row[name]) for name in columns) for row in part]
        for split, part in rows.items()
    }
    if entry.split:
        files = {"all.csv": [line for part in lines.values() for line in part]}
    else:
        # Where several files are of one split, the first has all of it.
        stems = {split: stem for stem, split in reversed(entry.file_splits.items())}
        files = {f"{stems[split]}.csv": lines[split] for split in lines}
    for name, content in files.items():
        head = [f"{entry.comment} made up, for tests"] if entry.comment else []
        head += [] if entry.columns else [entry.delimiter.join(columns)]
        (folder / name).write_text("\n".join([*head, *content]) + "\n", encoding="utf-8")
    return [folder / name for name in files]


def touch_videos(entry, rows, folder):
    folder.mkdir()
    for part in rows.values():
        for row in part:
            (folder / f"{row['id']}.mp4").touch()
    return folder


def check_manifest(entry, rows, path, class_lists):
    read = read_manifest(path, {name: read_classes(file) for name, file in class_lists.items()})
    wanted = [(split, row) for split, part in rows.items() for row in part]
    assert len(read.clips) == len(wanted) > 0
    for clip, (split, row) in zip(read.clips, wanted, strict=True):
        start_sec = float(row["span"])
        end_sec = float(row[entry.end]) if entry.end else start_sec + entry.clip_sec
        assert (clip.split, clip.start_sec, clip.end_sec) == (split, start_sec, end_sec)
        assert clip.path.name == f"{row['id']}.mp4"
        for name, label_set in entry.label_sets.items():
            indices = clip.labels[name] if label_set.is_several else (clip.labels[name],)
            assert [read.label_sets[name][index] for index in indices] == [row["name"]]
            if label_set.index_column:
                assert clip.labels[name] == int(row[label_set.index_column])


@pytest.mark.parametrize("entry", [*DATA_SETS.values(), BIRDS, FROGS], ids=lambda entry: entry.name)
def test_every_entry_can_be_built(entry, tmp_path):
    rows = made_up_rows(entry)
    files = write_published(entry, rows, tmp_path / "annotations")
    videos = touch_videos(entry, rows, tmp_path / "videos")
    out = tmp_path / "clips.csv"
    lists = {}
    for name, label_set in entry.label_sets.items():
        if label_set.codes:
            lists[name] = tmp_path / f"{name}.csv"
            codes = [f'{i},/m/{i},"{one}"\n' for i, one in enumerate(class_names(entry))]
            lists[name].write_text("index,mid,display_name\n" + "".join(codes))
    annotations = [("", path) for path in files]
    written = manifest_from_annotations(entry, annotations, videos, out, Options(lists))
    assert written.num_unmatched == 0
    check_manifest(entry, rows, out, written.class_lists)


def test_every_name_and_alias_is_of_one_entry():
    names = [name for entry in DATA_SETS.values() for name in (entry.name, *entry.aliases)]
    assert len(set(names)) == len(names)
    assert [entry.name for entry in DATA_SETS.values()] == list(DATA_SETS)


@pytest.mark.parametrize("entry", [BIRDS, FROGS], ids=lambda entry: entry.name)
def test_one_entry_is_all_that_the_command_needs(entry, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(entries, "DATA_SETS", {**DATA_SETS, entry.name: entry})
    rows = made_up_rows(entry)
    files = write_published(entry, rows, tmp_path / "annotations")
    videos = touch_videos(entry, rows, tmp_path / "videos")
    out = tmp_path / "clips.csv"
    words = [word for path in files for word in ("--csv", str(path))]
    name = (*entry.aliases, entry.name)[0]
    assert manifest_cli.main([name, *words, "--videos", str(videos), "--out", str(out)]) == 0
    lists = {label: tmp_path / f"clips.classes-{label}.txt" for label in entry.label_sets}
    check_manifest(entry, rows, out, lists)
    assert entry.title in capsys.readouterr().out


def test_a_field_that_holds_the_delimiter_is_quoted_where_there_are_quotes(tmp_path):
    (tmp_path / "birds.csv").write_text('"jay; blue";r1;0;1;a\n')
    (tmp_path / "frogs_1.csv").write_text(
        'clip\tsecond\tfrog\tcall\tcall_number\nr1\t0\t"tree" frog, green\tcroak\t3\n'
    )
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "r1.mp4").touch()
    for entry, file, name in (
        (BIRDS, "birds.csv", "jay; blue"),
        (FROGS, "frogs_1.csv", '"tree" frog, green'),
    ):
        out = tmp_path / f"{entry.name}_clips.csv"
        written = manifest_from_annotations(entry, [("", tmp_path / file)], videos, out)
        first = next(iter(written.class_lists.values()))
        assert read_classes(first) == (name,)


@pytest.mark.parametrize(
    "change,message",
    [
        (dict(delimiter=""), "one character as delimiter"),
        (dict(delimiter="||"), "one character as delimiter"),
        (dict(quote="''"), "at most one as quote"),
        (dict(video="record"), "names columns that are not in who, recording"),
        (dict(label_sets={"label": LabelSet("bird")}), "names columns that are not in"),
        (dict(label_sets={"label": LabelSet("who", "part")}), "no number of classes for 'part'"),
        (dict(label_sets={}), "needs a label set"),
        (dict(label_sets={"label": LabelSet("who", between=",")}), "whose rows have one class"),
        (dict(name_has_start=True), "and columns for the video and the start"),
        (dict(end=""), "either a column with the end or the length"),
        (dict(clip_sec=1.0), "either a column with the end or the length"),
        (dict(splits={"a": "training"}), "has no splits, or others than train, val, test"),
        (dict(split=""), "has no splits"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(ValueError, match=f"the entry of 'birds' .*{message}"):
        dataclasses.replace(BIRDS, **change)
