"""A config in words: its fields, their values, what they mean and what they may be."""

from __future__ import annotations

import inspect
import shlex
import textwrap
from collections.abc import Iterator, Mapping

from avt_jax.experiment.config import Overrides, load_config, recipes
from avt_jax.experiment.parts import parse
from avt_jax.settings import Block, fields_of

_WIDTH = 100


def list_recipes() -> str:
    """The recipes' names, each with the first line of its file."""
    rows = []
    for name, path in recipes().items():
        source = path.read_text(encoding="utf-8").split('"""')
        first = inspect.cleandoc(source[1]).splitlines()[0] if len(source) > 2 else ""
        rows.append(f"{name:<24}{first}")
    return "\n".join(rows)


def describe_config(name_or_path: str, overrides: Overrides = (), *, doc: bool = False) -> str:
    """Every field of a config.

    Args:
      name_or_path: as for `load_config`.
      overrides: the same.
      doc: add what each field means and which values it takes.

    Returns:
      Lines `--config.block.field=value`, which a command line takes as they are; with `doc` each
      with its meaning below.

    Raises:
      UserError: as `load_config`.
    """
    parts = parse(load_config(name_or_path, overrides).to_dict())
    lines = [f"--config.seed={parts.seed}"]
    if doc:
        lines += _paragraph("of everything random. Allowed: a whole number of 0 or more.")
    for where, block in parts.blocks():
        if doc and fields_of(type(block)):
            lines += ["", f"{where}: {(inspect.getdoc(type(block)) or '').splitlines()[0]}"]
        lines += _block_lines(where, block, doc)
    return "\n".join(lines)


def _block_lines(where: str, block: Block, doc: bool) -> Iterator[str]:
    for field in fields_of(type(block)):
        value = getattr(block, field.name)
        pairs = (
            {f"{field.name}.{key}": one for key, one in value.items()}
            if isinstance(value, Mapping)
            else {field.name: value}
        )
        for name, one in pairs.items():
            yield f"--{where}.{name}={shlex.quote(str(one))}"
        if doc:
            yield from _paragraph(f"{field.doc}. Allowed: {field.allowed}.")


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
    )
