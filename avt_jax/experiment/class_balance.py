"""Classes of unequal size: what the config asks for, looked up in the training clips' labels."""

from __future__ import annotations

from avt_jax.data.loading.balance import ClipLabels, read_labels
from avt_jax.data.loading.config import DataConfig
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
