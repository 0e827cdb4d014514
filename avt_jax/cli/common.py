"""What every command shares: exit codes and error messages."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable

from avt_jax.errors import UserError


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
        print(f"avt: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print("avt: interrupted", file=sys.stderr)
        # `Stopped` knows by which signal.
        return 128 + int(getattr(stopped, "signal", signal.SIGINT))
    except BrokenPipeError:
        # The reader of a pipe (`avt inspect ... | head`) went away: nothing left to say, and the
        # interpreter must not complain while it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def parser(command: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Builds the argument parser of `avt <command>` with the house's help format."""
    return argparse.ArgumentParser(
        prog=f"avt {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def printable(text: str) -> str:
    """A line whose text comes from outside: what it holds must not control the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def progress() -> Callable[[str], None]:
    """A function that writes what is being done to stderr, with the seconds since the start."""
    start_sec = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - start_sec:5.0f} s] {line}", file=sys.stderr, flush=True)

    return say
