"""What libraries log: alarms that a user can do nothing about are not shown, unless asked for.

XLA calls a compilation of two minutes, an instruction that is folded for a second or an autotuning
that was not quite exact an error, and orbax, gcsfs and others log what they raise as well. What
goes wrong in any of them raises an exception; what ends the process (FATAL) is always shown.
"""

from __future__ import annotations

import logging
import os
import sys
from types import TracebackType

from avt_jax.host.output.terminal import show

VARIABLE = "TF_CPP_MIN_LOG_LEVEL"
# 3 leaves what is FATAL. libtpu has a variable of its own.
_LEVELS = {VARIABLE: "3", "TPU_STDERR_LOG_LEVEL": "3"}
# Whose warnings a user can act upon. JAX says, for one, that a GPU is there and cannot be used.
_HEARD = ("avt_jax", "jax")


def keep_quiet() -> None:
    """Hides the libraries' alarms in this process, unless `TF_CPP_MIN_LOG_LEVEL` is set.

    Before JAX is imported. What is heard, on stderr, is a line each, above the progress.
    """
    if os.environ.get(VARIABLE, "3") != "3":
        return
    for name, level in _LEVELS.items():
        os.environ.setdefault(name, level)
    # A root logger that has a handler is left alone by logging.basicConfig, which absl calls.
    handler = _Lines()
    handler.addFilter(_is_heard)
    logging.getLogger().addHandler(handler)
    sys.excepthook = _explain


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Prints the message without the library's decorations."""
        try:
            text = record.getMessage()
        except Exception:  # of a message that does not fit its arguments
            self.handleError(record)
            return
        import tqdm  # --help needs none

        with tqdm.tqdm.external_write_mode(file=sys.stderr):
            show(f"avt: {text}", file=sys.stderr, flush=True)


def _is_heard(record: logging.LogRecord) -> bool:
    ours = record.name.split(".")[0] in _HEARD
    return record.levelno >= (logging.WARNING if ours else logging.CRITICAL)


def _explain(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """A traceback, and where XLA's own words about it are to be had."""
    sys.__excepthook__(kind, error, traceback)
    if kind.__module__.split(".")[0] in ("jax", "jaxlib"):
        show(
            f"avt: what XLA has logged is hidden; {VARIABLE}=0 in the environment shows it.",
            file=sys.stderr,
        )
