"""The rules of docs/architecture.md, read from the source: imports, and sizes of files."""

import ast
import functools
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
BASE = {"axes", "errors", "lazy", "settings"}
ALLOWED = {
    "axes": set(),
    "errors": set(),
    "settings": {"errors"},
    "lazy": set(),
    "tree": set(),
    "host": {"errors"},
    "audio": BASE,
    "data": {"audio.melspec", "host"} | BASE,
    "models": {"tree", "host.cache", "host.new_files"} | BASE,
    "losses": BASE,
    "evaluation": {"data", "host", "tree"} | BASE,
    "training": {"models", "losses", "audio", "data", "host", "tree"} | BASE,
    "inference": {
        "models", "audio", "data", "host", "training.checkpoint", "training.inputs", "tree"
    } | BASE,
    "conversion": {"models", "host", "tree"} | BASE,
    "profiling": {"models", "tree"} | BASE,
    "experiment": {
        "inference", "conversion", "profiling", "training", "evaluation", "models", "losses",
        "data", "audio", "host", "tree",
    } | BASE,
    "cli": {
        "experiment", "inference", "conversion", "evaluation", "data", "audio", "host", "tree",
        "training.processes",
    } | BASE,
}  # fmt: skip
# The rooms of data, the lower ones first: each may import those before it, and itself.
ROOMS = (
    "media", "records", "manifests", "av_events", "av_sync", "extraction", "loading",
    "shard_tools", "doctor",
)  # fmt: skip
ROOM_ALLOWED = {
    "media": set(),
    "records": set(),
    "manifests": {"records"},
    "av_events": set(),
    "av_sync": {"av_events"},
    "extraction": {"media", "records", "manifests"},
    "loading": {"media", "records"},
    "shard_tools": {"media", "records"},
    "doctor": {"media", "records", "manifests", "shard_tools"},
}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
MOST_FILES, MOST_LINES, MOST_FUNCTION_LINES = 14, 400, 60


def dotted(module):
    return ".".join(["avt_jax", *module.removesuffix(".py").removesuffix("/__init__").split("/")])


def is_for_types(node):
    """True for `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@functools.cache
def imported(path):
    """Dotted names that a file imports anywhere but for types alone."""
    found, waiting = [], [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        children = ast.iter_child_nodes(node)
        waiting += node.orelse if is_for_types(node) else children
    return tuple(found)


NAMES = {dotted(module): module for module in MODULES}


def modules_of(name):
    """The modules of ours that importing a dotted name runs: it or what holds it."""
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return {NAMES[name]} if name and name != "avt_jax" else set()


@functools.cache
def graph():
    """{module: modules of ours that it imports}."""
    return {
        module: {one for name in imported(ROOT / module) for one in modules_of(name)} - {module}
        for module in MODULES
    }


def allowed(name, rules):
    return any(name == rule or name.startswith(rule + ".") for rule in rules)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downward(module):
    package, *inner = module.removesuffix(".py").split("/")
    if package in ("__init__", "__main__"):
        return
    rules = ALLOWED[package] | {package, "__version__"}
    for name in imported(ROOT / module):
        if name.split(".")[0] != "avt_jax":
            continue
        inside = name.removeprefix("avt_jax.")
        assert allowed(inside, rules), f"{module} must not import {name}"
        if package == "data" and inside.startswith("data.") and len(inner) > 1:
            rooms = ROOM_ALLOWED[inner[0]] | {inner[0]}
            assert inside.split(".")[1] in rooms, f"{module} must not import {name}"


def test_the_rooms_have_an_order():
    assert (
        set(ROOMS)
        == set(ROOM_ALLOWED)
        == {path.name for path in (ROOT / "data").iterdir() if (path / "__init__.py").is_file()}
    )
    for room, below in ROOM_ALLOWED.items():
        assert below <= set(ROOMS[: ROOMS.index(room)])


def test_no_module_imports_itself_by_way_of_others():
    done, trail = set(), []

    def visit(module):
        if module in trail:
            pytest.fail(f"a circle: {' -> '.join([*trail[trail.index(module) :], module])}")
        if module in done:
            return
        trail.append(module)
        for other in sorted(graph()[module]):
            visit(other)
        done.add(trail.pop())

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m.split("/")[0] in ("data", "host") or m == "audio/melspec.py"]
)
def test_data_and_host_do_not_import_jax(module):
    reached, waiting = set(), {module}
    while waiting:
        one = waiting.pop()
        reached.add(one)
        used = {name.split(".")[0] for name in imported(ROOT / one)}
        assert not used & JAX, f"{module} imports {used & JAX} by way of {one}"
        waiting |= graph()[one] - reached


@pytest.mark.parametrize("config", sorted((ROOT.parent / "configs").glob("*.py")))
def test_configs_import_little(config):
    allowed_names = ("ml_collections", "configs.common")
    if config.stem == "common":
        allowed_names += (
            "avt_jax.experiment.own_clips",
            "avt_jax.experiment.parts",
            "avt_jax.models.build",
        )
    for name in imported(config):
        assert name.startswith(allowed_names), name


def test_only_the_loader_of_configs_imports_them():
    for module in MODULES:
        if module != "experiment/config.py":
            assert not any(n.split(".")[0] == "configs" for n in imported(ROOT / module)), module


def test_folders_files_and_functions_stay_small():
    folders = {}
    for module in MODULES:
        folders.setdefault(str(Path(module).parent), []).append(module)
        text = (ROOT / module).read_text(encoding="utf-8")
        assert text.count("\n") <= MOST_LINES, f"{module} holds two ideas"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= MOST_FUNCTION_LINES, f"{module}: {node.name} has {lines} lines"
    for folder, modules in folders.items():
        assert len(modules) <= MOST_FILES, f"{folder} has {len(modules)} files: a room is missing"


# What writes for people -> the one file that may call it: there, control characters and formulas
# are made harmless.
WRITERS = {
    "print": "host/output/terminal.py",
    "Console": "host/output/rich_console.py",
    "csv.writer": "host/output/cells.py",
    "csv.DictWriter": "host/output/cells.py",
    "sys.stdout.write": "host/output/terminal.py",
    "sys.stderr.write": "host/output/terminal.py",
}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_printed_or_tabled_raw(module):
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in WRITERS:
            assert module == WRITERS[called], f"{module} calls {called}: use {WRITERS[called]}"


def test_every_module_imports():
    for module in pkgutil.walk_packages(avt_jax.__path__, "avt_jax."):
        if module.name != "avt_jax.__main__":
            importlib.import_module(module.name)


@pytest.mark.parametrize("command", ["avt_jax.cli.main", "avt_jax.cli.data.inspect"])
def test_help_starts_without_jax(command):
    code = (
        f"import sys, importlib; m = importlib.import_module({command!r})\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'jax', 'tensorflow_datasets'} & set(sys.modules), 'slow import for --help'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, capture_output=True)
