"""Whatever is written is read back equal: manifests, class lists, cells, and labels everywhere."""

import csv
import dataclasses
import io
import json

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_shards import clip, write

from avt_jax.data import records
from avt_jax.data.manifests.catalog.report import format_sec
from avt_jax.data.manifests.fields import clean_label, parse_seconds
from avt_jax.data.manifests.manifest import read_classes, read_manifest, write_classes
from avt_jax.data.manifests.resplit import split_manifest
from avt_jax.data.manifests.table import write_rows
from avt_jax.data.shard_tools.verify import verify_folder
from avt_jax.evaluation.report import Evaluation, write_results
from avt_jax.host.output.cells import CellWriter, cell_text
from avt_jax.training.checkpoint.run_files import RUN_FILE, read_facts

quick = settings(max_examples=100, deadline=None, derandomize=True, database=None)
few = settings(max_examples=15, deadline=None, derandomize=True, database=None)

# All that UTF-8 can hold, and often what matters to a CSV, a spreadsheet or a terminal.
ODD = st.sampled_from(list("',;\"\t\r\n =+-@#\\/\x1b\u00a0\u2028\u202e\u0301é[]"))
TEXT = st.one_of(
    st.text(ODD, min_size=1, max_size=4),
    st.text(st.one_of(ODD, st.characters(codec="utf-8")), min_size=1, max_size=12),
)
LABELS = TEXT.map(clean_label).filter(bool)
# A file name has no slash and no NUL; "." and ".." are folders.
NAMES = TEXT.map(lambda text: text.replace("/", "").replace("\0", "")).filter(
    lambda name: name not in ("", ".", "..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
MILLISECONDS = st.integers(0, 10**7)
SPANS = st.one_of(
    st.just(("", "")),
    st.tuples(MILLISECONDS, st.integers(1, 10**6)).map(
        lambda found: (format_sec(found[0] / 1000), format_sec((found[0] + found[1]) / 1000))
    ),
)
ROWS = st.lists(
    st.tuples(PATHS, SPANS, LABELS, LABELS, st.sampled_from(records.SPLITS)), min_size=1, max_size=6
)
COLUMNS = ["path", "start_sec", "end_sec", "label", "label_other", "split"]


def flat(row):
    path, (start, end), label, other, split = row
    return [path, start, end, label, other, split]


def as_read(path):
    manifest = read_manifest(path)
    names = manifest.label_sets
    return [
        (
            one.source,
            one.start_sec,
            one.end_sec,
            *(names[name][index] for name, index in one.labels.items()),
            one.split,
        )
        for one in manifest.clips
    ]


def as_meant(rows):
    return [
        (path, float(start or 0), float(end) if end else None, label, other, split)
        for path, (start, end), label, other, split in rows
    ]


@quick
@example(
    rows=[(" a\r\n /b ", ("", ""), "x", "'=y", "val"), ("\ta.mp4", ("", ""), "-", "1", "test")]
)
@given(rows=ROWS)
def test_manifests(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    with open(folder / "clips.csv", "w", encoding="utf-8", newline="") as file:
        write_rows(file, COLUMNS, map(flat, rows))
    assert as_read(folder / "clips.csv") == as_meant(rows)
    split_manifest(folder / "clips.csv", folder / "again.csv", replace=True)
    again = [row[:-1] for row in as_read(folder / "again.csv")]
    assert again == [row[:-1] for row in as_meant(rows)]


@quick
@given(
    rows=ROWS,
    delimiter=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    before=st.sampled_from(["", "\r\n", "\n \n"]),
)
def test_manifests_as_spreadsheets_write_them(
    tmp_path_factory, rows, delimiter, encoding, line_end, before
):
    # Spreadsheets keep what is in a cell; spaces around it they may not.
    rows = [row for row in rows if row[0] == row[0].strip()]
    path = tmp_path_factory.mktemp("forms") / "clips.csv"
    with open(path, "w", encoding=encoding, newline="") as file:
        file.write(before)
        writer = csv.writer(
            file, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL
        )
        writer.writerow(COLUMNS)
        buffer = io.StringIO()
        CellWriter(buffer).rows([flat(row) for row in rows])
        writer.writerows(csv.reader(io.StringIO(buffer.getvalue(), newline="")))
    if rows:
        assert as_read(path) == as_meant(rows)


@quick
@given(cells=st.lists(TEXT, min_size=1, max_size=5))
def test_cells(cells):
    file = io.StringIO()
    CellWriter(file).row(cells)
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""), strict=True)
    assert [cell_text(cell) for cell in row] == cells
    assert not any(cell.startswith(("=", "@", "\t", "\r", "\n")) for cell in row)


@quick
@given(thousandths=MILLISECONDS)
def test_times(thousandths):
    hours, rest = divmod(thousandths, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    clock = f"{hours}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"
    assert parse_seconds(format_sec(thousandths / 1000), "x") == thousandths / 1000
    np.testing.assert_allclose(parse_seconds(clock, "x"), thousandths / 1000, rtol=1e-12)


@quick
@given(text=TEXT)
def test_a_cleaned_label_is_clean(text):
    label = clean_label(text)
    assert clean_label(label) == label == label.strip()
    assert len(label.splitlines()) <= 1


@quick
@example(names=["# comment?", "#", "#tag", "\\# x", "\\", "a\\nb"])
@given(names=st.lists(LABELS, min_size=1, max_size=6, unique=True))
def test_class_lists(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("classes") / "classes.txt"
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write("# a comment\n")
        write_classes(file, names)
    assert read_classes(path) == tuple(names)


@few
@given(names=st.lists(LABELS, min_size=2, max_size=4, unique=True))
def test_labels_in_shards_checkpoints_and_reports(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("labels")
    made = [clip(index, labels={"label": index % len(names)}) for index in range(2)]
    shards = write(folder / "shards", made, classes=tuple(names))
    info = records.read_info(shards)
    assert info.label_sets == {"label": tuple(names)}
    assert verify_folder(shards, num_workers=0).problems == ()
    run = {"label_sets": info.label_sets, "records": dataclasses.asdict(info)}
    (folder / RUN_FILE).write_text(json.dumps(run))
    assert read_facts(folder)["label_sets"] == {"label": names}
    classes = [{"name": name, "accuracy": 1.0, "count": 1} for name in names]
    report = {
        "top1": 1.0,
        "top5": 1.0,
        "count": 2,
        "classes": classes,
        "confusion": np.eye(len(names), dtype=int).tolist(),
    }
    results, confusion = write_results(Evaluation({}, {"label": report}, {}), folder)
    stored = json.loads(results.read_text(encoding="utf-8"))
    assert [entry["name"] for entry in stored["label"]["classes"]] == names
    with open(confusion, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert [cell_text(cell) for cell in header[1:]] == names
    assert [cell_text(row[0]) for row in rows] == names
