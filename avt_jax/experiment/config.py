"""From a recipe and what the user changes of it to a config with every field."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from avt_jax.errors import UserError, nearest
from avt_jax.experiment.parts import Parts, parse
from avt_jax.models import build
from avt_jax.settings import fields_of
from avt_jax.training.durations import UNITS, field_name

# The fields of config.init that name weights.
_WEIGHTS = ("video", "audio", "model")

Overrides = Mapping[str, Any] | Sequence[str]


def recipes() -> dict[str, Path]:
    """{name: file} of the recipes in the installed package `configs`."""
    import configs

    folder = Path(configs.__file__).parent
    names = sorted(path for path in folder.glob("*.py") if path.stem not in ("__init__", "common"))
    return {path.stem: path for path in names}


def load_config(name_or_path: str, overrides: Overrides = ()) -> ConfigDict:
    """Reads a recipe and changes it.

    Args:
      name_or_path: "quickstart", "configs/quickstart.py", or with an argument, "quickstart:smoke".
      overrides: {"optimizer.lr": 3e-4, "train": {"steps": 20}}, or words of a command line,
        ["--config.optimizer.lr=3e-4"]. Naming another model or encoder brings the fields of that
        one; giving a length in one unit (steps, examples, epochs) takes away the others.

    Returns:
      The locked config with every field of every block.

    Raises:
      UserError: no such recipe, an unknown field (the nearest one is named), or a bad value.
    """
    changes = flat(overrides)
    recipe = _read_recipe(name_or_path, changes)
    given = _with_choices(recipe, changes)
    full = parse(given)
    known = dict(_fields(full.to_dict()))
    kinds = _kinds(full)
    config = full.to_dict()
    for path, value in changes.items():
        if path not in known:
            raise UserError(
                f"--config.{path}: {name_or_path} has no such field"
                f"{nearest(path, known)}; 'avt config {name_or_path} --doc' shows all fields."
            )
        if isinstance(value, _Text):
            value = _from_text(value, kinds.get(path, type(known[path])))
        _set(config, path, value)
        _take_other_units_away(config, path, value, changes)
        if path == "optimizer.held" and not value:
            _take_length_away(config["optimizer"], changes)
    return ConfigDict(parse(config).to_dict(), convert_dict=True).lock()


class _Text(str):
    """A value as typed on a command line, whose type is that of its field."""


def _read_recipe(spec: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What `get_config` makes of its argument, and of what else it asks for: see `_looks`."""
    name, _, argument = spec.partition(":")
    path = _locate(name)
    try:
        get_config = _import(path).get_config
        parameters = inspect.signature(get_config).parameters
        if argument and not parameters:
            raise ValueError(f"it takes no argument, so not {argument!r}")
        looks = _looks(changes)
        told = {name: value for name, value in looks.items() if name in parameters}
        made = get_config(argument, **told) if parameters else get_config()
        return made.to_dict() if isinstance(made, ConfigDict) else dict(made)
    except UserError:
        raise
    except Exception as error:  # whatever the user's Python file raises is the user's to read
        raise UserError(f"--config {spec}: {type(error).__name__}: {error}") from error


def _looks(changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe is told of the user's changes, if its `get_config` has a parameter of the name.

    Returns:
      "path": config.data.path, where it is given; "init": {"video", "audio" or "model": what
      config.init names}, of what is given.
    """
    given = {name: changes.get(f"init.{name}") for name in _WEIGHTS}
    init = {name: str(value) for name, value in given.items() if value}
    path = {"path": str(changes["data.path"])} if "data.path" in changes else {}
    return {**path, "init": init}


def _locate(name: str) -> Path:
    """A path as given, or the name of a recipe."""
    if Path(name).is_file():
        return Path(name)
    known = recipes()
    stem = Path(name).stem
    if stem in known and name in (stem, f"{stem}.py", f"configs/{stem}.py"):
        return known[stem]
    raise UserError(
        f"--config {name}: no such file{nearest(stem, known)}; "
        f"give a config file or one of {', '.join(known)}."
    )


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"avt_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError("it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flat(overrides: Overrides) -> dict[str, Any]:
    """Overrides as {"block.field": value}; what a command line gives is a text of its own class.

    Raises:
      UserError: a word that is no override.
    """
    return _flat(overrides) if isinstance(overrides, Mapping) else dict(_words(overrides))


def _flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in block.items():
        path = f"{prefix}{str(name).removeprefix('config.')}"
        found |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found


def _words(words: Sequence[str]) -> Iterator[tuple[str, _Text]]:
    """(field, text) of --config.field=value, also as two words."""
    remaining = iter(words)
    for word in remaining:
        if not word.startswith("--config."):
            raise UserError(f"unexpected argument {word!r}; overrides look like --config.seed=1.")
        field, equals, value = word.removeprefix("--config.").partition("=")
        if not equals:
            value = next(remaining, "")
            if not value or value.startswith("--config."):
                raise UserError(f"{word} has no value; overrides look like --config.seed=1.")
        yield field, _Text(value)


def _fields(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in block.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _with_choices(recipe: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with the models and encoders that the user names, before their fields are known.

    The fields of these blocks depend on what their `name` and `variant` say.
    """
    model = dict(recipe.get("model", {}))
    name = changes.get("model.name")
    if name is not None and name != model.get("name"):
        model = build.recipe_block(str(name))
    for modality in ("video", "audio"):
        place = f"{modality}_encoder"
        chosen = {
            choice: str(changes[f"model.{place}.{choice}"])
            for choice in ("name", "variant")
            if f"model.{place}.{choice}" in changes
        }
        if chosen and place in model:
            model[place] = build.switch_encoder(model[place], modality, **chosen)
    return {**recipe, "model": model}


def _kinds(parts: Parts) -> dict[str, Any]:
    """{field: annotation} of the fields of all blocks."""
    found: dict[str, Any] = {"seed": int}
    for where, block in parts.blocks():
        place = where.removeprefix("config.")
        for field in fields_of(type(block)):
            found[f"{place}.{field.name}"] = field.type
            if isinstance(field.default, Mapping):
                value_kind = typing.get_args(field.type)[1]
                found |= {f"{place}.{field.name}.{key}": value_kind for key in field.default}
    return found


def _from_text(text: str, kind: Any) -> Any:
    """A value in the type of its field, or the text where it is none: the block refuses it."""
    if kind is str:
        return str(text)
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), str(text))
    try:
        if kind is float:
            return float(text)
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return str(text)


def _set(config: dict[str, Any], path: str, value: Any) -> None:
    *blocks, name = path.split(".")
    for block in blocks:
        config = config[block]
    config[name] = value


def _take_other_units_away(
    config: dict[str, Any], path: str, value: Any, changes: Mapping[str, Any]
) -> None:
    """Who gives a length in steps means steps, whatever the recipe said in epochs."""
    block, _, name = path.rpartition(".")
    prefix, _, unit = name.rpartition("_")
    if unit not in UNITS or not value:
        return
    for other in UNITS:
        field = f"{block}.{field_name(prefix, other)}"
        siblings = config.get(block, {})
        if other != unit and field_name(prefix, other) in siblings and field not in changes:
            siblings[field_name(prefix, other)] = 0


def _take_length_away(optimizer: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Who holds nothing means for no time, whatever the recipe said."""
    for name in (field_name("held", unit) for unit in UNITS):
        if f"optimizer.{name}" not in changes:
            optimizer[name] = 0
