"""A trained run at work: raw files in, class probabilities with time stamps out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avt_jax.inference.prediction import FilePrediction
    from avt_jax.inference.predictor import Predictor

__all__ = ["FilePrediction", "Predictor"]


def __getattr__(name: str) -> Any:
    # Looked up on first use: drawing or planning windows needs no JAX.
    if name == "Predictor":
        from avt_jax.inference.predictor import Predictor

        return Predictor
    if name == "FilePrediction":
        from avt_jax.inference.prediction import FilePrediction

        return FilePrediction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
