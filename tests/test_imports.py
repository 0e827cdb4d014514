"""The import rules of docs/architecture.md, read from the source, and that every module imports."""

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import avt_jax

ROOT = Path(avt_jax.__file__).parent

# Package (or module) -> what of avt_jax it may import besides itself.
BASE = {"axes", "errors", "settings"}
ALLOWED = {
    "axes": set(),
    "errors": set(),
    "settings": {"errors"},
    "tree": set(),
    "host": {"errors"},
    "audio": BASE,
    "data": {"audio.melspec", "audio.activity", "host"} | BASE,
    "models": {"tree"} | BASE,
    "losses": BASE,
    "evaluation": {"host", "data", "tree"} | BASE,
    "training": {"host", "models", "losses", "audio", "data", "tree"} | BASE,
    "inference": {"host", "models", "audio", "data", "training.checkpoint", "tree"} | BASE,
    "conversion": {"host", "models", "tree"} | BASE,
    "profiling": {"models", "tree"} | BASE,
    "cli": {
        "host",
        "conversion",
        "profiling",
        "inference",
        "training",
        "evaluation",
        "models",
        "losses",
        "data",
        "audio",
        "tree",
    }
    | BASE,
}
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def imported(path, *, top_level_only=False):
    """Dotted names that a file imports, with `from package import name` as package.name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(name, rules):
    return any(name == rule or name.startswith(rule + ".") for rule in rules)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downward(module):
    package = module.split("/")[0].removesuffix(".py")
    if package in ("__init__", "__main__"):
        return
    rules = ALLOWED[package] | {package, "__version__"}
    for name in imported(ROOT / module):
        if name.split(".")[0] == "avt_jax":
            inner = name.removeprefix("avt_jax").lstrip(".")
            assert allowed(inner, rules), f"{module} must not import {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(("data/", "audio/mel"))])
def test_data_does_not_import_jax(module):
    for name in imported(ROOT / module):
        assert name.split(".")[0] not in ("jax", "flax", "optax", "orbax"), f"{module}: {name}"


@pytest.mark.parametrize("config", sorted((ROOT.parent / "configs").glob("*.py")))
def test_configs_import_little(config):
    for name in imported(config):
        assert name.split(".")[0] == "ml_collections" or name == "configs.common", name


def test_every_module_imports():
    for module in pkgutil.walk_packages(avt_jax.__path__, "avt_jax."):
        if module.name != "avt_jax.__main__":
            importlib.import_module(module.name)


@pytest.mark.parametrize("command", ["avt_jax.cli.main", "avt_jax.cli.inspect"])
def test_help_starts_without_jax(command):
    code = (
        f"import sys, importlib; m = importlib.import_module({command!r})\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'jax', 'tensorflow_datasets'} & set(sys.modules), 'slow import for --help'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, capture_output=True)
