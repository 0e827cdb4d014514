"""A cheap classifier to compare with: colours, edges and loudness by pitch, logistic regression.

What a model learns from clips is worth its training only where it beats what a few seconds of
textbook features reach on the same clips.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from avt_jax.data.loading.sampling import source_group
from avt_jax.data.media.jpeg import decode_frame
from avt_jax.data.records import evenly_spread, lazy_reader
from avt_jax.data.records.labels import is_several
from avt_jax.errors import UserError
from avt_jax.evaluation.multi_label import one_vs_rest

VIDEO, AUDIO = "video", "audio"
MAX_TRAIN_CLIPS = 5000
"""Of a larger training split so many are used, spread evenly."""

_SIDE_PX = 64
_CELL_PX = 8
_DIRECTIONS = 9
_MEL_BANDS = 32
_COMPONENTS = 200
# Root mean square of the length of a modality's inputs, for which these are weak to strong.
_NORM = 3.0
_REGULARISATIONS = (0.003, 0.03, 0.3, 3.0)
_FOLDS = 3


@dataclass(frozen=True)
class Features:
    """Clips as numbers.

    Attributes:
      blocks: {"video": [n, 1892] float32, "audio": [n, 128] float32}.
      labels: {label set: [n] int64, or [n, y] bool of a multi-label set}.
      group_n: [n] int64, equal = cut from the same source.
      index_n: [n] int64 where each clip lies in its split; damaged ones are left out.
    """

    blocks: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    group_n: np.ndarray
    index_n: np.ndarray


def video_features(jpeg: bytes | None) -> np.ndarray:
    """Edges and colours of a frame.

    Args:
      jpeg: the frame; None gives zeros.

    Returns:
      [1892] float32: histograms of oriented gradients (9 directions, cells of 8 x 8 pixels, of the
      frame at 64 x 64) and the square roots of an 8 x 4 x 4 histogram of hue, saturation and value.

    Raises:
      ValueError: the frame is damaged.

    Source: Dalal and Triggs, "Histograms of oriented gradients for human detection", CVPR 2005.
    """
    if jpeg is None:
        return np.zeros(1764 + 128, np.float32)
    size = (_SIDE_PX, _SIDE_PX)
    rgb_hwc = cv2.resize(decode_frame(jpeg), size, interpolation=cv2.INTER_AREA)
    hsv_hwc = cv2.cvtColor(rgb_hwc, cv2.COLOR_RGB2HSV)
    bounds = [0, 180, 0, 256, 0, 256]
    counts = cv2.calcHist([hsv_hwc], [0, 1, 2], None, [8, 4, 4], bounds)
    colours = np.sqrt(counts.ravel() / _SIDE_PX**2)
    return np.concatenate([oriented_gradients(rgb_hwc).ravel(), colours]).astype(np.float32)


def oriented_gradients(image_hwc: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients.

    Args:
      image_hwc: [h, w, c], sides that are multiples of 8; of each pixel the channel with the
        steepest gradient counts.

    Returns:
      [h / 8 - 1, w / 8 - 1, 36] float64: for each block of 2 x 2 cells of 8 x 8 pixels the four
      histograms of 9 directions in [0, 180) degrees, weighted by the gradients, of norm 1 together,
      cut at 0.2 and made of norm 1 again.

    Source: Dalal and Triggs, CVPR 2005, sec. 6, without the interpolation between cells.
    """
    pixels_hwc = np.pad(image_hwc.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    down_hwc = pixels_hwc[2:, 1:-1] - pixels_hwc[:-2, 1:-1]
    right_hwc = pixels_hwc[1:-1, 2:] - pixels_hwc[1:-1, :-2]
    steepest_hw1 = np.argmax(down_hwc**2 + right_hwc**2, axis=-1)[..., None]
    down_hw = np.take_along_axis(down_hwc, steepest_hw1, axis=-1)[..., 0]
    right_hw = np.take_along_axis(right_hwc, steepest_hw1, axis=-1)[..., 0]
    steepness_hw = np.hypot(down_hw, right_hw)
    place_hw = np.degrees(np.arctan2(down_hw, right_hw)) % 180 / 180 * _DIRECTIONS - 0.5
    below_hw = np.floor(place_hw).astype(int)
    share_hw = place_hw - below_hw
    rows, columns = image_hwc.shape[0] // _CELL_PX, image_hwc.shape[1] // _CELL_PX
    row_hw, column_hw = (index // _CELL_PX for index in np.indices(steepness_hw.shape))
    cells = np.zeros((rows, columns, _DIRECTIONS))
    # Each gradient is divided between the two directions next to its own.
    for direction_hw, weight_hw in ((below_hw, 1 - share_hw), (below_hw + 1, share_hw)):
        where = (row_hw, column_hw, direction_hw % _DIRECTIONS)
        np.add.at(cells, where, weight_hw * steepness_hw)
    corners = [cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1], cells[1:, 1:]]
    blocks = _of_norm_1(np.concatenate(corners, axis=-1))
    return _of_norm_1(np.minimum(blocks, 0.2))


def _of_norm_1(values: np.ndarray) -> np.ndarray:
    return values / np.sqrt(np.sum(values**2, axis=-1, keepdims=True) + 1e-6)


def audio_features(fbank_sf: np.ndarray) -> np.ndarray:
    """How loud each pitch is and how much it changes.

    Args:
      fbank_sf: [s, f] log-mel; no rows give zeros.

    Returns:
      [128] float32: mean, standard deviation, 90th percentile and mean change from row to row of
      32 bands.
    """
    if not len(fbank_sf):
        return np.zeros(4 * _MEL_BANDS, np.float32)
    fbank_sf = np.asarray(fbank_sf, np.float32)
    bands_sk = fbank_sf.reshape(len(fbank_sf), _MEL_BANDS, -1).mean(axis=2)
    change_k = np.abs(np.diff(bands_sk, axis=0)).mean(axis=0) if len(bands_sk) > 1 else 0
    return np.concatenate(
        [
            bands_sk.mean(axis=0),
            bands_sk.std(axis=0),
            np.percentile(bands_sk, 90, axis=0),
            np.broadcast_to(change_k, (_MEL_BANDS,)),
        ]
    ).astype(np.float32)


def read_features(
    source: Any, *, max_clips: int | None = None, on_clip: Callable[[], Any] = lambda: None
) -> Features:
    """The features of a split's clips: of the frame in the middle, and of the whole sound.

    Args:
      source: records by index.
      max_clips: read at most so many, spread evenly; None is all.
      on_clip: called after each, for a progress bar.

    Raises:
      UserError: no clip can be read.
    """
    video, audio, groups, kept = [], [], [], []
    labels: dict[str, list[Any]] = {}
    read = lazy_reader(source)
    for index in evenly_spread(len(source), max_clips):
        on_clip()
        try:
            record = read(index)
            frames = record["frames"]
            seen = video_features(frames[len(frames) // 2] if len(frames) else None)
            heard = audio_features(np.asarray(record["fbank"]))
        except (UserError, ValueError):  # a damaged clip is told of by whoever needs it
            continue
        if not np.isfinite(heard).all():
            continue
        video.append(seen)
        audio.append(heard)
        groups.append(source_group(record["source"]))
        kept.append(index)
        for name, label in record["labels"].items():
            one = np.asarray(label) > 0 if is_several(label) else int(label)
            labels.setdefault(name, []).append(one)
    if not kept:
        raise UserError("no clip of the split can be read; run 'avt shards verify' on its folder.")
    return Features(
        {VIDEO: np.stack(video), AUDIO: np.stack(audio)},
        {n: np.array(c, bool if is_several(c[0]) else np.int64) for n, c in labels.items()},
        np.array(groups, np.int64),
        np.array(kept, np.int64),
    )


class Baseline:
    """Logistic regressions on the features of a training split, one for each label set.

    Of each modality the 200 strongest principal components are taken, scaled so that all
    modalities weigh the same; how strongly the regression is regularised is found by
    cross-validation over sources.
    """

    def __init__(self, train: Features, modalities: Sequence[str]):
        """Fits.

        Args:
          train: of the training split.
          modalities: "video", "audio" or both.
        """
        self._modalities = tuple(modalities)
        self._project = {name: _projection(train.blocks[name]) for name in self._modalities}
        inputs_nd = self._inputs(train)
        self._models = {
            name: _fit(inputs_nd, label, train.group_n) for name, label in train.labels.items()
        }

    def predict(self, features: Features) -> dict[str, np.ndarray]:
        """{label set: [n] int64 most probable class, [n, y] float32 scores of multi-label sets}."""
        inputs_nd = self._inputs(features)
        return {name: predict(inputs_nd) for name, predict in self._models.items()}

    def _inputs(self, features: Features) -> np.ndarray:
        blocks = [self._project[name](features.blocks[name]) for name in self._modalities]
        return np.concatenate(blocks, axis=1)


def _projection(values_nd: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """To principal components of standardised features, all of them divided by one number."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    number = min(_COMPONENTS, *values_nd.shape)
    steps = make_pipeline(StandardScaler(), PCA(number, random_state=0))
    with np.errstate(invalid="ignore"):  # where no feature varies there is no variance to share
        projected_nd = steps.fit_transform(values_nd)
    norm = float(np.sqrt(np.mean(np.sum(projected_nd**2, axis=1)))) or 1.0
    return lambda new_nd: _NORM * steps.transform(new_nd) / norm


def _fit(
    inputs_nd: np.ndarray, label_n: np.ndarray, group_n: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """A fitted classifier: [n, d] -> [n] classes, or [n, y] scores for labels [n, y]."""
    from sklearn.linear_model import LogisticRegression

    if label_n.ndim > 1:
        given = (inputs_nd, label_n, group_n)
        return one_vs_rest.fit_best(*given, strengths=_REGULARISATIONS, folds=_FOLDS)
    present = np.unique(label_n)
    if len(present) == 1:
        return lambda new_nd: np.full(len(new_nd), present[0], np.int64)
    # Loosely fitted, the accuracies are the same to a clip or two, in a fraction of the time.
    trial = functools.partial(LogisticRegression, max_iter=100, tol=1e-2)
    best = max(
        _REGULARISATIONS, key=lambda c: _cross_validated(trial(C=c), inputs_nd, label_n, group_n)
    )
    fitted = LogisticRegression(C=best, max_iter=300, tol=1e-3).fit(inputs_nd, label_n)
    return lambda new_nd: np.asarray(fitted.predict(new_nd), np.int64)


def _cross_validated(
    model: Any, inputs_nd: np.ndarray, label_n: np.ndarray, group_n: np.ndarray
) -> float:
    """Accuracy on sources that were left out; 0 where there are too few."""
    from sklearn.model_selection import GroupKFold

    if len(np.unique(group_n)) < _FOLDS:
        return 0.0
    right = 0
    for fit_n, left_out_n in GroupKFold(_FOLDS).split(inputs_nd, label_n, group_n):
        if len(np.unique(label_n[fit_n])) > 1:
            model.fit(inputs_nd[fit_n], label_n[fit_n])
            right += int(np.sum(model.predict(inputs_nd[left_out_n]) == label_n[left_out_n]))
    return right / len(label_n)
