"""Command line: one thin file per command, `avt <command>` or `python -m avt_jax.cli.<command>`."""
