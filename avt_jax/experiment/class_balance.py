"""Classes of unequal size: what the config asks for, looked up in the training clips' labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from avt_jax.data.loading.balance import ClipLabels, read_labels
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.manifests.fields import clean_label
from avt_jax.data.manifests.table import Rows, open_text
from avt_jax.data.records import RecordsInfo
from avt_jax.data.records.labels import class_indices
from avt_jax.errors import UserError, nearest
from avt_jax.experiment.splits import Splits, is_source
from avt_jax.training.processes import agree


def check_balance(data: DataConfig, splits: Splits) -> None:
    """Makes sure that the classes can be drawn as the config says.

    Raises:
      UserError: no such label set, or batches in place of clips.
    """
    if not data.balance:
        return
    known = splits.info.label_sets
    if data.balance not in known:
        raise UserError(
            f"config.data.balance is {data.balance!r}, no label set"
            f"{nearest(data.balance, known)}; give one of {', '.join(known)}, or '' to take the "
            "clips as they come."
        )
    if not is_source(splits.train):
        raise UserError(
            f"config.data.balance is {data.balance!r}, but OwnData.train gives batches, of which "
            "no clip can be chosen; balance them where they are made, or give records by index."
        )


def training_labels(data: DataConfig, splits: Splits) -> ClipLabels:
    """The labels of all training clips; going through them may take long.

    Args:
      data: the config's block.
      splits: the opened data.

    Raises:
      UserError: there are batches in place of clips, or too many records are damaged.
    """
    if not is_source(splits.train):
        raise UserError(
            "the sizes of the classes are only known of records by index, but OwnData.train gives "
            "batches; give config.losses.class_weights a file."
        )
    return read_labels(splits.train, data, quiet=not agree.is_first())


BALANCED = "balanced"
_COLUMNS = ("class", "weight")
_MOST = 1e6


def weights_of_classes(
    given: str, info: RecordsInfo, labels: Callable[[], ClipLabels]
) -> dict[str, np.ndarray]:
    """What each class weighs in the loss: {label set: float32 [y]}.

    Args:
      given: `config.losses.class_weights`, "balanced" or a file.
      info: of the clips.
      labels: gives those of the training clips, which may take long.

    Raises:
      UserError: the file cannot be used, or the labels cannot be read.
    """
    if given == BALANCED:
        known = labels()
        return {
            name: balanced_weights(known, name, len(classes))
            for name, classes in info.label_sets.items()
        }
    weights = _read_weights(Path(given))
    found = {
        name: np.array([weights[one] for one in classes], np.float32)
        for name, classes in info.label_sets.items()
        if weights.keys() == set(classes)
    }
    if not found:
        raise UserError(f"config.losses.class_weights: {_difference(given, weights, info)}.")
    return found


def balanced_weights(labels: ClipLabels, label_set: str, num_classes: int) -> np.ndarray:
    """Clips / (classes that have any x clips of the class), float32 [y]; 1 where there are none.

    Args:
      labels: of the training clips; damaged ones are left out.
      label_set: one of the label sets.
      num_classes: of it.
    """
    count_y = np.zeros(num_classes, np.int64)
    clips = [one for one in labels if one is not None]
    for one in clips:
        count_y[list(class_indices(one[label_set]))] += 1
    is_there_y = count_y > 0
    weight_y = len(clips) / (max(is_there_y.sum(), 1) * np.maximum(count_y, 1))
    return np.where(is_there_y, weight_y, 1.0).astype(np.float32)


def weighing(weights: Mapping[str, np.ndarray], info: RecordsInfo) -> Iterator[str]:
    """What is said of the classes' weights, for each label set."""
    for name, weight_y in weights.items():
        low, high = int(weight_y.argmin()), int(weight_y.argmax())
        classes = info.label_sets[name]
        yield (
            f"the classes of {name} weigh {weight_y[low]:.3g} ({classes[low]}) to "
            f"{weight_y[high]:.3g} ({classes[high]})"
        )


def _read_weights(path: Path) -> dict[str, float]:
    """{class: weight} of a CSV file."""
    what = "config.losses.class_weights:"
    weights: dict[str, float] = {}
    with open_text(path, what) as file:
        rows = Rows(file, path, what, _COLUMNS)
        if not set(_COLUMNS) <= set(rows.header):
            raise UserError(
                f"{what} {path} has the columns {', '.join(rows.header)}; give class and weight."
            )
        for line, fields in rows:
            row = dict(zip(rows.header, fields, strict=True))
            name, weight = clean_label(row["class"]), _number(row["weight"])
            if weight is None:
                raise UserError(
                    f"{what} {path}, line {line}: the weight is {row['weight']!r:.80}; give a "
                    f"number from 0 to {_MOST:g}."
                )
            if name in weights:
                raise UserError(f"{what} {path}, line {line}: {name!r:.80} is there twice.")
            weights[name] = weight
    if not any(weights.values()):
        raise UserError(f"{what} {path} gives no class a weight above 0.")
    return weights


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    # Python reads 1_0 as ten.
    return value if math.isfinite(value) and 0 <= value <= _MOST and "_" not in text else None


def _difference(path: str, weights: dict[str, float], info: RecordsInfo) -> str:
    """In what a file differs from the label set that it is most like."""
    name, classes = max(
        info.label_sets.items(), key=lambda item: len(weights.keys() & set(item[1]))
    )
    if missing := [one for one in classes if one not in weights]:
        return f"{path} has no weight for the class {missing[0]!r} of {name!r}; give one for each"
    extra = next(one for one in weights if one not in classes)
    return (
        f"{path} names {extra!r:.80}, no class of {name!r}{nearest(extra, classes)}; leave it out"
    )
