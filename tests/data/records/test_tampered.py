"""Shards of strangers: a record that no extraction wrote is damaged wherever it is read."""

import contextlib
import json
import re

import numpy as np
import pytest
import simplejpeg
from small_batches import config
from small_shards import clip

from avt_jax.data import records
from avt_jax.data.doctor.facts import read_facts
from avt_jax.data.loading import pipeline
from avt_jax.data.records.shards import list_shards
from avt_jax.data.records.writer import RecordWriter
from avt_jax.data.shard_tools import contact_sheet, stats, summary
from avt_jax.data.shard_tools.rewrite import reshard
from avt_jax.data.shard_tools.verify import verify_folder
from avt_jax.errors import UserError

BAD = 1  # of the three records


def float_bytes(value, kind):
    return np.array(value, kind).tobytes()


def absurd_header(jpeg):
    """The same JPEG, of 65500 x 65500 pixels by its header."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + (65500).to_bytes(2, "big") * 2 + jpeg[place + 4 :]


def set_fbank(fields, value):
    stored = np.frombuffer(fields["fbank"].bytes_list.value[0], np.float16).copy()
    stored[333] = value
    fields["fbank"].bytes_list.value[0] = stored.tobytes()


def enlarge(fields):
    frames = fields["frames"].bytes_list.value
    for index, jpeg in enumerate(frames):
        frames[index] = absurd_header(jpeg)


# What is done to a record -> what is said of it.
TAMPERED = {
    "label too large": (
        lambda f: f["labels/label"].int64_list.value.__setitem__(0, 7), "class 7 of 3"
    ),
    "label below 0": (
        lambda f: f["labels/label"].int64_list.value.__setitem__(0, -1), "class -1 of 3"
    ),
    "NaN": (lambda f: set_fbank(f, np.nan), "fbank is not finite"),
    "infinite": (lambda f: set_fbank(f, -np.inf), "fbank is not finite"),
    "no end": (
        lambda f: f["end_sec"].bytes_list.value.__setitem__(0, float_bytes(np.nan, np.float64)),
        "its span is",
    ),
    "no rate": (
        lambda f: f["frame_rate_hz"].float_list.value.__setitem__(0, np.inf), "frames per second"
    ),
    "no sound": (
        lambda f: f["fbank"].bytes_list.value.__setitem__(0, b""), "has_audio is True with 0"
    ),
    "absurd frames": (enlarge, "65500 x 65500"),
}  # fmt: skip


@pytest.fixture(params=TAMPERED)
def tampered(request, tmp_path):
    """(a folder of three clips of which one is tampered with, what is to be said of it)."""
    from tensorflow_datasets.proto import tf_example_pb2

    change, said = TAMPERED[request.param]
    folder = tmp_path / "shards"
    folder.mkdir()
    writer = RecordWriter(
        folder, label_sets={"label": ("a", "b", "c")}, frame_rate_hz=8.0, short_side_px=24
    )
    serialize = writer._serialize

    def with_damage(record):
        example = tf_example_pb2.Example.FromString(serialize(record))
        if record["id"] == f"clip-{BAD}":
            change(example.features.feature)
        return example.SerializeToString()

    writer._serialize = with_damage
    for index in range(3):
        writer.add("train", clip(index))
    writer.close()
    return folder, said


@pytest.fixture(autouse=True)
def no_absurd_decoding(monkeypatch):
    """Decoding a header of 65500 x 65500 would take 12 GB: it must not be begun."""
    decode = simplejpeg.decode_jpeg

    def checked(jpeg, *arguments, **options):
        assert max(simplejpeg.decode_jpeg_header(jpeg)[:2]) < 10_000
        return decode(jpeg, *arguments, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", checked)


def test_training_passes_over_it_and_evaluation_refuses_it(tampered):
    folder, said = tampered
    source = records.open_split(folder, "train")
    options = {"path": str(folder), "train_split": "train"}
    settings = config(**options, max_damaged=1)
    batches = pipeline.make_train_iterator(source, settings, batch_size=6, seed=0)
    with contextlib.closing(batches):
        batch = next(batches)
        assert batches.num_damaged == 1 and f"clip-{BAD}" not in batch["id"].tolist()
    batches = pipeline.make_train_iterator(
        source, config(**options, max_damaged=0), batch_size=6, seed=0
    )
    with contextlib.closing(batches), pytest.raises(UserError, match=re.escape(said)):
        next(batches)
    found = pipeline.eval_batches(source, config(**options), batch_size=3)
    with contextlib.closing(found), pytest.raises(UserError, match=re.escape(said)):
        next(found)


def test_every_tool_names_it(tampered, tmp_path):
    folder, said = tampered
    source = records.open_split(folder, "train")
    with pytest.raises(UserError, match=re.escape(said)):
        summary.summarize(folder)
    with pytest.raises(UserError, match=f"damaged .*{re.escape(said)}"):
        contact_sheet.save_contact_sheet(source, [BAD], tmp_path / "sheet.png", title="t")
    assert not (tmp_path / "sheet.png").exists()
    with pytest.raises(UserError, match=re.escape(said)):
        stats.measure_split(folder, num_workers=0)
    assert read_facts(folder).num_damaged == {"train": 1}
    (problem,) = verify_folder(folder, num_workers=0).problems
    assert problem.index == BAD
    reshard(folder, tmp_path / "new", drop_damaged=True, num_workers=0)
    assert [one["id"] for one in records.open_split(tmp_path / "new", "train")] == [
        "clip-0", "clip-2"
    ]  # fmt: skip


def deep(depth):
    return "[" * depth + "]" * depth


def with_lengths(lengths):
    return lambda text: json.dumps(
        {**json.loads(text), "splits": [{**json.loads(text)["splits"][0], "shardLengths": lengths}]}
    )


def changed(**fields):
    return lambda text: json.dumps({**json.loads(text), **fields})


# What is done to the files beside the shards -> what is said of it.
DESCRIPTIONS = [
    ("dataset_info.json", changed(splits=[]), "no split"),
    ("dataset_info.json", lambda text: text.replace('"splits"', '"other"'), "'splits'"),
    ("dataset_info.json", lambda text: "3", "not one that"),
    ("dataset_info.json", lambda text: deep(100_000), "is damaged"),
    ("dataset_info.json", lambda text: text[:-3] + ',"x":' + deep(500) + "}", "is damaged"),
    ("dataset_info.json", with_lengths(["1"] * 1_000_000), "1000000 shards"),
    ("dataset_info.json", with_lengths(["9" * 30]), "impossible numbers"),
    ("dataset_info.json", with_lengths([-1]), "impossible numbers"),
    ("dataset_info.json", with_lengths([]), "impossible numbers"),
    ("dataset_info.json", with_lengths("12"), "split 'train'"),
    ("dataset_info.json", with_lengths([float("inf")]), "not one that"),
    ("metadata.json", changed(label_sets={}), "no label set"),
    ("metadata.json", changed(label_sets={"label": "abc"}), "no list of class names"),
    ("metadata.json", changed(label_sets={"label": []}), "no list of class names"),
    ("metadata.json", changed(label_sets={"label": [1, 2]}), "no list of class names"),
    ("metadata.json", changed(label_sets=[1]), "not one that"),
    ("metadata.json", changed(jpeg_quality=float("inf")), "not one that"),
    ("metadata.json", changed(frame_rate_hz=float("nan")), "frame_rate_hz nan"),
    ("metadata.json", changed(schema_version="9" * 10_000), "record schema 9999"),
    ("metadata.json", lambda text: deep(100_000), "is damaged"),
    ("metadata.json", lambda text: "\ud83d".encode("utf-8", "surrogatepass"), "cannot read"),
]


@pytest.mark.parametrize(("name", "change", "said"), DESCRIPTIONS)
def test_tampered_descriptions_are_refused_in_one_sentence(folder, name, change, said):
    new = change((folder / name).read_text())
    (folder / name).write_bytes(new if isinstance(new, bytes) else new.encode())
    with pytest.raises(UserError, match=re.escape(said)) as error:
        list_shards(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    with pytest.raises(UserError):
        records.open_split(folder, "train")


@pytest.mark.parametrize("more", [{"unknownField": 1}, {"moduleName": {"a": 1}}])
def test_what_is_not_read_may_be_anything(folder, more):
    path = folder / "dataset_info.json"
    path.write_text(changed(**more)(path.read_text()))
    assert len(records.open_split(folder, "train")) == sum(
        shard.num_records for shard in list_shards(folder) if shard.split == "train"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", deep(100_000), '{"featuresDict": 3}'])
def test_tampered_features_are_named_by_verify(folder, text):
    (folder / "features.json").write_text(text)
    (problem,) = verify_folder(folder, num_workers=0).problems
    assert problem.file == "features.json" and len(str(problem)) < 300
