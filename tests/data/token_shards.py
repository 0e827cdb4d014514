"""Small folders of cached tokens."""

import numpy as np

from avt_jax.data.records import TokensInfo
from avt_jax.data.records.writer import RecordWriter

SHAPES = {"video": (3, 4), "audio": (5, 2)}


def tokens_info(**changes):
    given = dict(shapes=SHAPES, dtype="float32", encoders={}, views=0)
    return TokensInfo(**{**given, "config": {"model": {}, "data": {}}, **changes})


def token_record(index, *, views=1, shapes=SHAPES, dtype="float32", **changes):
    """Tokens of view v of clip i are i + v / 8 and noise that is the same for all views."""
    rng = np.random.default_rng(index)
    arrays = {
        f"{name}_tokens": np.stack(
            [index + view / 8 + rng.normal(size=shape) for view in range(views)]
        ).astype(dtype)
        for name, shape in shapes.items()
    }
    return {
        "id": f"clip-{index}",
        "source": f"video-{index}",
        "has_audio": index % 5 != 4,
        "flags": ["no_video"] if index % 5 == 3 else [],
        "start_sec": 1.0,
        "end_sec": 3.5,
        "labels": {"label": index % 3},
        **arrays,
        **changes,
    }


def write_tokens(folder, made, *, multi_label=(), **changes):
    """Writes {split: records}."""
    folder.mkdir()
    writer = RecordWriter(
        folder,
        label_sets={"label": ("a", "b", "c")},
        frame_rate_hz=8.0,
        short_side_px=24,
        multi_label=multi_label,
        tokens=tokens_info(**changes),
    )
    for split, found in made.items():
        for record in found:
            writer.add(split, record)
    writer.close()
    return folder
