"""`avt <command> ...`: finds the command's module and hands over."""

from __future__ import annotations

import importlib
import sys

from avt_jax import __version__
from avt_jax.cli import interrupts
from avt_jax.cli.common import run
from avt_jax.cli.processes.logs import keep_quiet
from avt_jax.cli.processes.start import keep_compiled_programs, restart_with_kept_memory
from avt_jax.errors import UserError, nearest
from avt_jax.host import collecting
from avt_jax.host.output.terminal import show

# command -> (module below `avt_jax.cli`, what it does)
COMMANDS = {
    "synthesize": ("data.synthesize", "render AV-Events, a small labelled data set of .mp4 files"),
    "manifest": ("data.manifest", "turn a folder of class folders into a manifest (clips.csv)"),
    "extract": ("data.extract", "decode the clips of a manifest into shards"),
    "inspect": ("data.inspect", "counts, durations and a contact sheet of a shard folder"),
    "doctor": ("data.doctor", "mistakes in a shard folder, found before a training"),
    "baseline": ("data.baseline", "what a cheap classifier reaches on shards, in seconds"),
    "shards": ("data.shards", "verify, merge, reshard or measure shard folders"),
    "convert": (
        "weights.convert",
        "turn released weights into a folder that a training can start from",
    ),
    "weights": ("weights.catalog", "list and fetch published weights; merge a run's adapters"),
    "tokens": ("data.tokens", "run frozen encoders once over all clips, to train on their tokens"),
    "config": ("config", "print the fields of a recipe, with meaning and allowed range"),
    "lr-find": ("lr_find", "find a learning rate: a plot of loss against rate"),
    "train": ("train", "train a model from a config"),
    "evaluate": ("evaluate", "accuracy, confusion matrix and curves of a trained model"),
    "predict": ("predict", "classify video and sound files with a trained model"),
    "embed": ("embeddings.embed", "vectors of clips and files: an index for search, clustering"),
    "search": ("embeddings.search", "the clips of an index that are most like a file"),
    "segments": ("segments", "find the audio activities of media files"),
    "ablate": ("ablate", "train a grid of settings over several seeds: a table and a plot"),
    "profile": ("profile", "parameters, FLOPs and memory of a config's model, part by part"),
    "compile": ("compile", "the training step of a config on TPUs that are not here: memory, time"),
    "tune": ("tune", "find the fastest forms of convolution and attention on this machine"),
}

# Those that compute for long enough to be worth a second start of the interpreter.
_COMPUTING = ("lr-find", "train", "tokens", "evaluate", "predict", "embed", "search", "ablate")
# Those that leave nothing to tidy up when they end at once.
_END_AT_ONCE = (*_COMPUTING, "profile", "compile", "tune")


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: avt <command> [options]\n\n"
        f"avt_jax {__version__}: audio-video classification, from videos to predictions.\n\n"
        f"commands, in the order you will need them:\n{rows}\n\n"
        "'avt <command> --help' explains a command."
    )


def _dispatch(argv: list[str] | None) -> int:
    own_process = argv is None
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        show(_usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        show(f"avt_jax {__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        raise UserError(
            f"unknown command {name!r}{nearest(name, COMMANDS)}; 'avt --help' lists them."
        )
    if own_process and name in _COMPUTING:
        keep_compiled_programs()
        restart_with_kept_memory()
        collecting.hold()
    if own_process:
        keep_quiet()
    # Imported here so that `avt inspect` does not pay for importing JAX.
    command = importlib.import_module(f"avt_jax.cli.{COMMANDS[name][0]}")
    if own_process and name not in _END_AT_ONCE:
        interrupts.raise_again()
    return command.main(rest)


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit code.

    Args:
      argv: command and arguments; None = those of this process, which does nothing else then.
    """
    if argv is None:
        interrupts.end_at_once()
    return run(_dispatch, argv)


if __name__ == "__main__":
    sys.exit(main())
