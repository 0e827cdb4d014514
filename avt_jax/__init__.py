"""AVT in JAX: audio-video classification, from videos to predictions.

What a program needs stands here; a name is imported when it is first used, so `import avt_jax` is
quick and starts no JAX backend. docs/python.md walks through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avt_jax.lazy import names_on_demand

if TYPE_CHECKING:
    from avt_jax.audio.melspec import fbank
    from avt_jax.conversion import from_state_dict
    from avt_jax.data.records import open_split, read_info
    from avt_jax.data.records.from_arrays import record_from_arrays
    from avt_jax.errors import UserError
    from avt_jax.experiment.ablations.grid import plan_study
    from avt_jax.experiment.ablations.study import run_study
    from avt_jax.experiment.assemble import Experiment
    from avt_jax.experiment.config import load_config
    from avt_jax.experiment.cost import compile_step, profile_config
    from avt_jax.experiment.evaluate import EvaluationResult
    from avt_jax.experiment.evaluate import evaluate_run as evaluate
    from avt_jax.experiment.run_training import TrainingResult, train
    from avt_jax.experiment.splits import OwnData
    from avt_jax.inference.predictor import Predictor

__version__ = "0.1.0"

__getattr__, __dir__ = names_on_demand(
    globals(),
    {
        "EvaluationResult": "avt_jax.experiment.evaluate",
        "Experiment": "avt_jax.experiment.assemble",
        "OwnData": "avt_jax.experiment.splits",
        "Predictor": "avt_jax.inference.predictor",
        "TrainingResult": "avt_jax.experiment.run_training",
        "UserError": "avt_jax.errors",
        "compile_step": "avt_jax.experiment.cost",
        "evaluate": "avt_jax.experiment.evaluate:evaluate_run",
        "fbank": "avt_jax.audio.melspec",
        "from_state_dict": "avt_jax.conversion",
        "load_config": "avt_jax.experiment.config",
        "open_split": "avt_jax.data.records",
        "plan_study": "avt_jax.experiment.ablations.grid",
        "profile_config": "avt_jax.experiment.cost",
        "read_info": "avt_jax.data.records",
        "record_from_arrays": "avt_jax.data.records.from_arrays",
        "run_study": "avt_jax.experiment.ablations.study",
        "train": "avt_jax.experiment.run_training",
    },
)

__all__ = [
    "EvaluationResult",
    "Experiment",
    "OwnData",
    "Predictor",
    "TrainingResult",
    "UserError",
    "compile_step",
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
