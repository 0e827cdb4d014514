"""What a training is judged by while it goes on: the metrics of its validation split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from avt_jax import axes
from avt_jax.evaluation.classification import evaluate_variants
from avt_jax.evaluation.fusion import WHOLE
from avt_jax.evaluation.report import validation
from avt_jax.training import mesh as meshes
from avt_jax.training.loop import Evaluate
from avt_jax.training.processes.agree import read_notes, total
from avt_jax.training.state import TrainState

RAW = "raw"
"""Before the names of the metrics of the parameters that are trained, where averaged ones judge."""

Asked = Callable[[], int]
Predict = Callable[[TrainState, Mapping[str, Any], Asked], dict[str, np.ndarray]]
PredictAndRead = Callable[..., tuple[dict[str, jax.Array], jax.Array]]


def jit_predict(predict: Callable[..., dict[str, jax.Array]], mesh: Mesh) -> PredictAndRead:
    """Jits (parameters, statistics, batch) -> (probabilities, a signal to stop or 0).

    Args:
      predict: the same without the signal.
      mesh: on which; the signal of any process is told to all.
    """

    def predict_and_read(
        params: Any, stats: Any, batch: Mapping[str, Any]
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        return predict(params, stats, batch), read_notes(batch)[axes.NOTES][0]

    return jax.jit(
        meshes.within(mesh, predict_and_read),
        out_shardings=(meshes.batch_sharding(mesh), meshes.replicated(mesh)),
    )


def make_evaluate(
    predict: Predict,
    batches: Callable[[], Iterable[Any]],
    label_sets: Mapping[str, Sequence[str]],
    *,
    num_views: int,
    multi_label: Sequence[str],
    with_raw: bool,
) -> Evaluate:
    """(state, asked) -> (metrics, score) on a split.

    Several processes go through a part of it each; the data are read once.

    Args:
      predict: (state, batch, asked) -> {label set: probabilities}, the averaged parameters' if the
        state has any.
      batches: gives this process's part of the split, once through.
      label_sets: {label set: class names}.
      num_views: rows that each clip has.
      multi_label: the label sets of which a clip may have any number of classes.
      with_raw: judge the parameters that are trained, too, where averaged ones are judged. Their
        metrics have "raw/" before their names, and no part in the score.
    """

    def evaluate(state: TrainState, asked: Asked) -> tuple[dict[str, float], float | None]:
        states = {WHOLE: state}
        if with_raw and state.ema:
            states[RAW] = replace(state, ema={})
        # A variant of a batch says in an entry of its own whose predictions it is for.
        results = evaluate_variants(
            lambda batch: predict(states[batch[_OF]], _without(batch), asked),
            batches(),
            label_sets,
            {name: _marker(name) for name in states},
            num_views=num_views,
            total=total,
            multi_label=multi_label,
            part=(jax.process_index(), jax.process_count()),
        )
        metrics, score = validation(results[WHOLE], label_sets)
        if RAW in results:
            raw, _ = validation(results[RAW], label_sets)
            metrics |= {f"{RAW}/{name}": value for name, value in raw.items()}
        return metrics, score

    return evaluate


_OF = "parameters of"


def _marker(name: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda batch: {**batch, _OF: name}


def _without(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in batch.items() if key != _OF}
