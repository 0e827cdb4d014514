"""What every command shares: exit codes and error messages."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from avt_jax.errors import UserError
from avt_jax.host.output.terminal import printable, printable_lines, show


def run(command: Callable[[list[str] | None], int], argv: list[str] | None = None) -> int:
    """Runs a command and turns a user's mistake into one line on stderr.

    Args:
      command: the command's `main`.
      argv: arguments after the command's name; None reads `sys.argv[1:]`.

    Returns:
      The exit code: the command's own, 2 for a `UserError`, 130 after Ctrl-C, 143 after SIGTERM.
    """
    try:
        return command(argv)
    except UserError as error:
        show(printable(f"avt: error: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        show("avt: interrupted", file=sys.stderr)
        # `Stopped` knows by which signal.
        return 128 + int(getattr(stopped, "signal", signal.SIGINT))
    except BrokenPipeError:
        # The reader of a pipe (`avt inspect ... | head`) went away: nothing left to say, and the
        # interpreter must not complain while it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line without repeating control characters of it."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(status, message and printable_lines(message))


def parser(command: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Builds the argument parser of `avt <command>` with the house's help format."""
    return _Parser(
        prog=f"avt {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_run(cli: argparse.ArgumentParser) -> None:
    """Adds --checkpoint and --step: a trained run."""
    cli.add_argument(
        "--checkpoint", required=True, type=Path, metavar="RUN_DIR", help="folder of a trained run"
    )
    add_step(cli)


def add_step(cli: argparse.ArgumentParser) -> None:
    """Adds --step: which checkpoint of a run."""
    cli.add_argument(
        "--step",
        type=_step,
        default="best",
        metavar="{best,last,N}",
        help="checkpoint with the best validation score, the last one, or that of step N (default "
        "%(default)s)",
    )


def _step(text: str) -> str:
    if text not in ("best", "last") and not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither best nor last nor a step")
    return text


def progress() -> Callable[[str], None]:
    """A function that writes what is being done to stderr, with the seconds since the start."""
    start_sec = time.monotonic()

    def say(line: str) -> None:
        show(f"[{time.monotonic() - start_sec:5.0f} s] {line}", file=sys.stderr, flush=True)

    return say
