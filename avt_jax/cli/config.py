"""Configs on the command line: `--config FILE[:ARG]` and `--config.block.field=value`.

The work is done by `ml_collections.config_flags`; here its errors become one sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from avt_jax.errors import UserError, nearest


def _locate(name: str) -> str:
    """A path as given, or the name of a recipe in the installed `configs` package."""
    if Path(name).is_file():
        return name
    import configs

    recipes = {
        path.stem: path
        for path in Path(configs.__file__).parent.glob("*.py")
        if path.stem not in ("__init__", "common")
    }
    stem = Path(name).stem
    if stem in recipes and name in (stem, f"{stem}.py", f"configs/{stem}.py"):
        return str(recipes[stem])
    raise UserError(
        f"--config {name}: no such file{nearest(stem, recipes)}; "
        f"give a config file or one of {', '.join(sorted(recipes))}."
    )


def _fields(config: ConfigDict, prefix: str = "config") -> dict[str, Any]:
    found = {}
    for name, value in config.items():
        path = f"{prefix}.{name}"
        found |= _fields(value, path) if isinstance(value, ConfigDict) else {path: value}
    return found


def load_config(spec: str, overrides: list[str]) -> ConfigDict:
    """Reads a config file and applies the overrides.

    Args:
      spec: "configs/quickstart.py", "quickstart", or with an argument, "quickstart:smoke".
      overrides: "--config.block.field=value", also as two words.

    Returns:
      The locked config.

    Raises:
      UserError: no such file, unknown field (the nearest valid one is named), or bad value.
    """
    name, colon, argument = spec.partition(":")
    path = _locate(name)
    chosen = ["avt", f"--config={path}{colon}{argument}"]
    try:
        valid = _fields(_parse(chosen)[0])
    except Exception as error:  # whatever the user's Python file raises is the user's to read
        raise UserError(f"--config {spec}: {type(error).__name__}: {error}") from error
    for word in overrides:
        if not word.startswith("--"):
            continue
        field = word.removeprefix("--").split("=", 1)[0]
        if field not in valid:
            raise UserError(
                f"--{field}: {spec} has no such field{nearest(field, valid)}; "
                "configs/common.py shows all fields."
            )
    try:
        config, rest = _parse([*chosen, *overrides])
    except (flags.Error, ValueError, TypeError) as error:
        raise UserError(f"{' '.join(overrides)}: {error}") from error
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; overrides look like --config.seed=1.")
    return config


def _parse(words: list[str]) -> tuple[ConfigDict, list[str]]:
    """(config, positional arguments left over) of a command line."""
    values = flags.FlagValues()
    # config_flags looks for overrides in the arguments while the flag is being defined.
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
    rest = values(words)
    return values.config, rest[1:]
