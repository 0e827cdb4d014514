"""What an index of vectors holds, and what it says of itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from avt_jax.errors import UserError
from avt_jax.training.checkpoint import Run

NAMES = ("video", "audio", "fused")
"""The vectors of a row."""
TEXT, NUMBERS, FLAGS = (
    ("id", "source", "split"),
    ("start_sec", "end_sec"),
    ("has_video", "has_audio"),
)
"""The other columns; those of label sets come behind them."""
PROJECTED, POOLED = "projected", "pooled"
"""What video and audio are: in one space, that of the contrastive term, or each in its own."""
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class FileEmbedding:
    """The vectors of a file, one row for each of its windows.

    Attributes:
      path: as given.
      start_sec_w: [w] float64 where each window begins, in seconds from the start of the file.
      end_sec_w: [w] float64 where it ends.
      has_video: False when there was no picture; the video vector is that of a blank one.
      has_audio_w: [w] bool, False when there was no sound; the audio vector is that of silence.
      vectors: {"video", "audio", "fused": [w, d] float32 of length 1}, see `Predictor.embed`.
    """

    path: str
    start_sec_w: np.ndarray
    end_sec_w: np.ndarray
    has_video: bool
    has_audio_w: np.ndarray
    vectors: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class About:
    """What made the vectors of an index.

    Attributes:
      run: folder of the run.
      step: of its checkpoint.
      weights: SHA-256 of the parameters and statistics.
      kind: `PROJECTED` or `POOLED`.
      compared: whether the training compared sound with picture; else the projections are random.
      label_sets: those that have a column.
    """

    run: str
    step: int
    weights: str
    kind: str
    compared: bool
    label_sets: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The text that an index carries."""
        return json.dumps({"format": FORMAT} | dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> About:
        """Reads `to_json` back. ValueError, TypeError, KeyError: it is not of such text."""
        found = json.loads(text)
        if found.pop("format") != FORMAT:
            raise ValueError("another version of avt_jax wrote it")
        found["label_sets"] = tuple(found["label_sets"])
        about = cls(**found)
        kinds = {"run": str, "step": int, "weights": str, "kind": str, "compared": bool}
        for name, kind in kinds.items():
            if not isinstance(getattr(about, name), kind):
                raise TypeError(f"{name} is no {kind.__name__}")
        if not all(isinstance(name, str) for name in about.label_sets):
            raise TypeError("a label set has no name")
        return about


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of an index, column by column; all columns have as many entries.

    Attributes:
      text: {"id", "source", "split": one str a row}. The id is that of a clip, or a file's path.
      start_sec: [n] float64.
      end_sec: [n] float64.
      has_video: [n] bool.
      has_audio: [n] bool.
      labels: {label set: one class name a row, of a multi-label set names with "|" between}.
      vectors: {name: [n, d] float32 of length 1}; zeros of a modality that a row does not have.
    """

    text: Mapping[str, Sequence[str]]
    start_sec: np.ndarray
    end_sec: np.ndarray
    has_video: np.ndarray
    has_audio: np.ndarray
    labels: Mapping[str, Sequence[str]]
    vectors: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.start_sec)

    def has(self, name: str) -> np.ndarray:
        """[n] bool: which rows have a vector of this name."""
        flags = {"video": self.has_video, "audio": self.has_audio}
        return flags.get(name, np.ones(len(self), bool))


def rows_of(found: FileEmbedding) -> Rows:
    """The rows of a file.

    Raises:
      UserError: its name cannot be stored.
    """
    try:
        found.path.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the file name {found.path!r} is not valid Unicode; rename the file."
        ) from error
    count = len(found.start_sec_w)
    same = [found.path] * count
    return without_missing(
        Rows(
            {"id": same, "source": same, "split": [""] * count},
            found.start_sec_w,
            found.end_sec_w,
            np.full(count, found.has_video),
            found.has_audio_w,
            {},
            found.vectors,
        )
    )


def without_missing(rows: Rows) -> Rows:
    """The rows with zeros for the vectors of a modality that a row does not have."""
    vectors = {
        name: np.where(rows.has(name)[:, None], rows.vectors[name], np.float32(0))
        for name in NAMES
        if name in rows.vectors
    }
    return dataclasses.replace(rows, vectors=vectors)


def label_column(name: str) -> str:
    """The column of a label set: its name, unless that is one of ours."""
    taken = (*TEXT, *NUMBERS, *FLAGS, *NAMES, "about")
    return f"label_{name}" if name in taken else name


def weights_checksum(run: Run) -> str:
    """SHA-256 of a model's parameters and statistics, their names and shapes."""
    digest = hashlib.sha256()
    for path, array in sorted({**run.params, **run.stats}.items()):
        digest.update(f"{path} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def about_run(run: Run, folder: str | Path, *, projects: bool, label_sets: Sequence[str]) -> About:
    """What an index says of the run that made it."""
    losses = run.config.get("losses", {})
    weight = losses.get("weights", {}).get("contrastive", 0)
    return About(
        str(folder),
        run.step,
        weights_checksum(run),
        PROJECTED if projects else POOLED,
        projects and weight > 0,
        tuple(label_sets),
    )
