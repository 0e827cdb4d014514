"""Small shard folders to damage, check and write anew."""

import numpy as np
from clip_records import noise_record

from avt_jax.data import records
from avt_jax.data.records.writer import RecordWriter
from avt_jax.data.shard_tools.verify import verify_folder

CLASSES = ("a", "b", "c")
SHARD_BYTES = 56_000  # three of the records below
# Byte positions in such a shard.
IN_RECORD_0, IN_RECORD_2, RECORDS_END = 3000, 45_000, 60_000


def clip(index, **changes):
    """Half a second of noise."""
    record = noise_record(index, num_frames=4, duration_sec=0.5, has_audio=index % 5 != 4)
    return record | {"flags": ["short"] if index % 3 == 0 else []} | changes


def write(folder, made, *, split="train", classes=CLASSES, **options):
    """Writes {split: records} or a list of records of one split."""
    folder.mkdir()
    made = made if isinstance(made, dict) else {split: made}
    options = {"frame_rate_hz": 8.0, "short_side_px": 24, **options}
    writer = RecordWriter(
        folder, label_sets={"label": classes}, max_shard_bytes=SHARD_BYTES, **options
    )
    for name, clips in made.items():
        for record in clips:
            writer.add(name, record)
    writer.close()
    return folder


def train_shards(folder):
    found = sorted(folder.glob("*-train.array_record-*"))
    assert len(found) > 2
    return found


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 255
    path.write_bytes(bytes(content))


def found_in(folder, **options):
    report = verify_folder(folder, **{"num_workers": 0, **options})
    return [(p.file, p.index, p.message) for p in report.problems]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def clips_of(folder, split="train"):
    return list(records.open_split(folder, split))


def assert_same_clips(one, two):
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
