"""`python -m avt_jax` is `avt`."""

import sys


def main() -> int:
    """Entry point of the console script `avt`; returns the exit code."""
    # One after the other: the rest takes long enough for a Ctrl-C to fall into it.
    from avt_jax.cli import interrupts

    interrupts.end_at_once()
    from avt_jax.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
