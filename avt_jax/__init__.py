"""AVT in JAX: audio-video classification, from videos to predictions.

What a program needs stands here; a name is imported when it is first used, so `import avt_jax` is
quick and starts no JAX backend. docs/python.md walks through it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avt_jax.audio.melspec import fbank
    from avt_jax.conversion import from_state_dict
    from avt_jax.data.records import open_split, read_info
    from avt_jax.data.records.from_arrays import record_from_arrays
    from avt_jax.errors import UserError
    from avt_jax.experiment.assemble import Experiment
    from avt_jax.experiment.config import load_config
    from avt_jax.experiment.cost import profile_config
    from avt_jax.experiment.evaluate import EvaluationResult
    from avt_jax.experiment.evaluate import evaluate_run as evaluate
    from avt_jax.experiment.grid import plan_study
    from avt_jax.experiment.splits import OwnData
    from avt_jax.experiment.study import run_study
    from avt_jax.experiment.train import TrainingResult, train
    from avt_jax.inference.predictor import Predictor

__version__ = "0.1.0"

# name -> (module, name there)
_PUBLIC = {
    "EvaluationResult": ("avt_jax.experiment.evaluate", "EvaluationResult"),
    "Experiment": ("avt_jax.experiment.assemble", "Experiment"),
    "OwnData": ("avt_jax.experiment.splits", "OwnData"),
    "Predictor": ("avt_jax.inference.predictor", "Predictor"),
    "TrainingResult": ("avt_jax.experiment.train", "TrainingResult"),
    "UserError": ("avt_jax.errors", "UserError"),
    "evaluate": ("avt_jax.experiment.evaluate", "evaluate_run"),
    "fbank": ("avt_jax.audio.melspec", "fbank"),
    "from_state_dict": ("avt_jax.conversion", "from_state_dict"),
    "load_config": ("avt_jax.experiment.config", "load_config"),
    "open_split": ("avt_jax.data.records", "open_split"),
    "plan_study": ("avt_jax.experiment.grid", "plan_study"),
    "profile_config": ("avt_jax.experiment.cost", "profile_config"),
    "read_info": ("avt_jax.data.records", "read_info"),
    "record_from_arrays": ("avt_jax.data.records.from_arrays", "record_from_arrays"),
    "run_study": ("avt_jax.experiment.study", "run_study"),
    "train": ("avt_jax.experiment.train", "train"),
}

__all__ = [
    "EvaluationResult",
    "Experiment",
    "OwnData",
    "Predictor",
    "TrainingResult",
    "UserError",
    "evaluate",
    "fbank",
    "from_state_dict",
    "load_config",
    "open_split",
    "plan_study",
    "profile_config",
    "read_info",
    "record_from_arrays",
    "run_study",
    "train",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
