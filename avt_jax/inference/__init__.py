"""A trained run at work: raw files in, class probabilities with time stamps out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avt_jax.lazy import names_on_demand

if TYPE_CHECKING:
    from avt_jax.inference.embeddings.vectors import FileEmbedding
    from avt_jax.inference.prediction import FilePrediction
    from avt_jax.inference.predictor import Predictor

# Looked up on first use: drawing or planning windows needs no JAX.
__getattr__, __dir__ = names_on_demand(
    globals(),
    {
        "FileEmbedding": "avt_jax.inference.embeddings.vectors",
        "FilePrediction": "avt_jax.inference.prediction",
        "Predictor": "avt_jax.inference.predictor",
    },
)

__all__ = ["FileEmbedding", "FilePrediction", "Predictor"]
