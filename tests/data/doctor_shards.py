"""Small shard folders in which nothing is wrong, to put something wrong into."""

import hashlib

import numpy as np

from avt_jax.data.records.from_arrays import record_from_arrays
from avt_jax.data.records.writer import RecordWriter

CLASSES = ("cat", "dog")


def name(number):
    """Unlike any other."""
    return f"{hashlib.md5(str(number).encode()).hexdigest()[:10]}.mp4"


def clip(number, label=0, *, source=None, seed=None, sound=None, still=False, id=None):
    """Half a second of noise, 16 px; `sound` None is noise, "" is none, a number a level."""
    rng = np.random.default_rng(number if seed is None else seed)
    frames_thwc = rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
    frames_thwc[1:] = frames_thwc[0] if still else frames_thwc[1:]
    fbank_sf = rng.normal(-5, 3, (50, 128)) if sound is None else np.full((50, 128), sound or 0.0)
    return record_from_arrays(
        frames_thwc,
        frame_rate_hz=8,
        fbank_sf=None if sound == "" else fbank_sf,
        labels={"label": label},
        id=id or f"{number}",
        source=source or name(number),
    )


def write(folder, made, classes=CLASSES):
    folder.mkdir()
    writer = RecordWriter(
        folder,
        label_sets={"label": classes},
        frame_rate_hz=8,
        short_side_px=16,
        max_shard_bytes=50_000,
    )
    for split, clips in made.items():
        for record in clips:
            writer.add(split, record)
    writer.close()
    return folder


def good():
    """Twelve training clips of each class, two for each of the other splits."""
    numbers = {"train": range(24), "val": range(24, 28), "test": range(28, 32)}
    return {split: [clip(n, n % 2) for n in some] for split, some in numbers.items()}
