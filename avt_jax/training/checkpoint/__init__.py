"""Checkpoints: state and data position, written whole or not at all, verified when read.

Orbax writes a step's folder under a temporary name and renames it when complete, so a killed run
leaves no half checkpoint. A finished one can still be damaged later (a truncated copy, a flipped
bit): each carries checksums of what is in it, and reading falls back to the newest intact step.
"""

from avt_jax.training.checkpoint.checkpointer import Checkpointer
from avt_jax.training.checkpoint.folder import CHECKPOINTS, has_checkpoint
from avt_jax.training.checkpoint.run import Run, load_run
from avt_jax.training.checkpoint.run_files import CONFIG_FILE, RUN_FILE

__all__ = [
    "CHECKPOINTS",
    "CONFIG_FILE",
    "RUN_FILE",
    "Checkpointer",
    "Run",
    "has_checkpoint",
    "load_run",
]
