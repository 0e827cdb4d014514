"""Which bugs the tests would notice: random lines are broken, one at a time, and the tests run.

    python benchmarks/mutation.py --number 30 --seed 0 --out mutation.json

Every mutant is one small change of one expression or statement: a comparison turned around, + for
-, a constant one larger, a keyword left out. The tests of the module that was changed run first,
then those of its package, in a copy of the tree; what no test notices has survived. A survivor is
a hole in the tests or a change without effect; which of the two is for a person to say.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("training", "losses", "data/loading")
_COPIED = ("avt_jax", "benchmarks", "configs", "docs", "tests", "pyproject.toml", "setup.py")

_SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_SWAPPED_NAMES = {
    "min": "max",
    "max": "min",
    "minimum": "maximum",
    "maximum": "minimum",
    "any": "all",
    "all": "any",
    "argmin": "argmax",
    "argmax": "argmin",
    "sum": "mean",
    "mean": "sum",
}


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
      path: relative to the repository.
      line: number of the line.
      what: kind of the change.
      source: the changed file.
    """

    path: str
    line: int
    what: str
    source: str


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: "caught", "survived" or "timed out" (which counts as caught)."""

    path: str
    line: int
    what: str
    result: str
    seconds: float
    noticed_by: str
    diff: str


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(kind, replacement) of every small change of one node."""
    match node:
        case ast.Compare(ops=[operation]):
            yield (
                "comparison",
                ast.Compare(node.left, [_SWAPPED[type(operation)]()], node.comparators),
            )
        case ast.BinOp() if type(node.op) in _SWAPPED:
            yield "operator", ast.BinOp(node.left, _SWAPPED[type(node.op)](), node.right)
        case ast.BoolOp():
            yield "and, or", ast.BoolOp(_SWAPPED[type(node.op)](), node.values)
        case ast.UnaryOp():
            yield "sign or not", node.operand
        case ast.Constant(value=bool()):
            yield "boolean", ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield "constant", ast.Constant(node.value + 1)
        case ast.IfExp():
            yield "branches", ast.IfExp(node.test, node.orelse, node.body)
        case ast.Return(value=ast.Call(args=[first, *_])):
            yield "return of the argument", ast.Return(first)
        case ast.AugAssign() | ast.Expr(value=ast.Call()):
            yield "statement left out", ast.Pass()
    if isinstance(node, ast.Call):
        yield from _changes_of_call(node)


def _changes_of_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    name = getattr(node.func, "id", getattr(node.func, "attr", None))
    if name in _SWAPPED_NAMES:
        other = _SWAPPED_NAMES[name]
        func = (
            ast.Name(other)
            if isinstance(node.func, ast.Name)
            else ast.Attribute(node.func.value, other)
        )
        yield "function", ast.Call(func, node.args, node.keywords)
    for keyword in node.keywords:
        if keyword.arg:
            rest = [other for other in node.keywords if other is not keyword]
            yield f"keyword {keyword.arg}", ast.Call(node.func, node.args, rest)


def _running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that decide what is computed: no annotations, docstrings, messages or decorators."""
    fields_left_out = {
        "annotation",
        "returns",
        "decorator_list",
        "type_params",
        "bases",
        "keywords",
    }
    for name, value in ast.iter_fields(tree):
        is_class = isinstance(tree, ast.ClassDef)
        if name in fields_left_out and (name != "keywords" or is_class):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr | ast.Raise):
                continue
            is_type_checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            is_protocol = isinstance(child, ast.ClassDef) and any(
                "Protocol" in ast.dump(base) for base in child.bases
            )
            if not is_type_checking and not is_protocol:
                yield child
                yield from _running_nodes(child)


def mutants_of(path: str, source: str) -> dict[int, list[Mutant]]:
    """{line: the mutants that begin there} of one file."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found: dict[int, list[Mutant]] = {}
    for node in _running_nodes(ast.parse(source)):
        for what, replacement in _changes(node):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            text = ast.unparse(ast.fix_missing_locations(replacement))
            if isinstance(node, ast.expr):
                text = f"({text})"
            encoded = source.encode()
            changed = (encoded[:begin] + text.encode() + encoded[end:]).decode()
            if ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)):
                mutant = Mutant(path, node.lineno, what, changed)
                found.setdefault(node.lineno, []).append(mutant)
    return found


def choose(packages: list[str], number: int, seed: int) -> list[Mutant]:
    """Random lines of the packages, and of each line one mutant; no line is drawn twice."""
    lines: list[list[Mutant]] = []
    for package in packages:
        for path in sorted((ROOT / "avt_jax" / package).glob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            lines += mutants_of(name, path.read_text(encoding="utf-8")).values()
    rng = random.Random(seed)
    return [rng.choice(line) for line in rng.sample(lines, min(number, len(lines)))]


def tests_of(path: str) -> list[str]:
    """The test files of a module: its own, those that import it, then those of its package."""
    module = Path(path).relative_to("avt_jax").with_suffix("")
    folder = Path("tests") / module.parent
    named = [folder / f"test_{module.name}.py"]
    package = ".".join(("avt_jax", *module.parent.parts))
    wanted = (f"{package}.{module.name} import", f"from {package} import {module.name}")
    beside = sorted((ROOT / folder).glob("test_*.py"))
    importing = [
        file.relative_to(ROOT)
        for file in beside
        if any(words in file.read_text(encoding="utf-8") for words in wanted)
    ]
    rest = [file.relative_to(ROOT) for file in beside]
    ordered = dict.fromkeys([*named, *importing, *rest])
    return [str(file) for file in ordered if (ROOT / file).is_file()]


def _run_tests(tree: Path, files: list[str], timeout_sec: float) -> tuple[int | None, str]:
    """(exit status, the first test that failed); None when it took too long."""
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    # What the tests compile is mostly what they compiled for the mutant before.
    cache = str(ROOT / ".pytest_cache" / "jax")
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no"]
    try:
        done = subprocess.run(
            [*command, "--durations=0", "--durations-min=1e9", *files],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_sec,
        )
    except subprocess.TimeoutExpired:
        return None, ""
    bad = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, bad[0].split(" - ")[0] if bad else done.stdout[-300:]


def judge(mutant: Mutant, tree: Path, timeout_sec: float) -> Outcome:
    """Runs the tests on a mutant in a copy of the tree, which is as before afterwards."""
    file = tree / mutant.path
    before = file.read_text(encoding="utf-8")
    began = time.monotonic()
    file.write_text(mutant.source, encoding="utf-8")
    try:
        status, noticed_by = _run_tests(tree, tests_of(mutant.path), timeout_sec)
    finally:
        file.write_text(before, encoding="utf-8")
    result = "timed out" if status is None else "survived" if status == 0 else "caught"
    diff = difflib.unified_diff(
        before.splitlines(), mutant.source.splitlines(), mutant.path, "", lineterm="", n=1
    )
    return Outcome(
        mutant.path,
        mutant.line,
        mutant.what,
        result,
        round(time.monotonic() - began, 1),
        noticed_by if status else "",
        "\n".join(diff),
    )


def _copies(folder: Path, number: int) -> SimpleQueue[Path]:
    trees: SimpleQueue[Path] = SimpleQueue()
    for index in range(number):
        tree = folder / str(index)
        for name in _COPIED:
            source, target = ROOT / name, tree / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.is_file():
                shutil.copy(source, target)
        trees.put(tree)
    return trees


def run(mutants: list[Mutant], *, workers: int, timeout_sec: float) -> list[Outcome]:
    """Judges mutants, `workers` at a time; says each outcome as it comes.

    Raises:
      SystemExit: the tests fail already without a mutant.
    """
    with tempfile.TemporaryDirectory() as folder:
        trees = _copies(Path(folder), workers)

        def with_tree(work: Callable[[Path], Outcome | tuple]):
            tree = trees.get()
            try:
                return work(tree)
            finally:
                trees.put(tree)

        files = list(dict.fromkeys(file for m in mutants for file in tests_of(m.path)))
        status, failed = with_tree(lambda tree: _run_tests(tree, files, 10 * timeout_sec))
        if status != 0:
            raise SystemExit(f"the tests fail without any mutant: {failed or 'too slow'}")

        def one(mutant: Mutant) -> Outcome:
            outcome = with_tree(lambda tree: judge(mutant, tree, timeout_sec))
            place = f"{outcome.path}:{outcome.line}"
            print(f"{outcome.result:10}{place:45}{outcome.what}  {outcome.noticed_by}", flush=True)
            return outcome

        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(one, mutants))


def main(argv: list[str] | None = None) -> None:
    """Draws mutants, runs the tests on each, and says how many were noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", nargs="+", default=PACKAGES, help="folders of avt_jax/")
    parser.add_argument("--number", type=int, default=30, help="of mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="mutants at a time")
    parser.add_argument("--timeout-sec", type=float, default=600.0, help="for each mutant's tests")
    parser.add_argument("--out", type=Path, help="JSON to write")
    args = parser.parse_args(argv)
    mutants = choose(args.packages, args.number, args.seed)
    outcomes = run(mutants, workers=args.workers, timeout_sec=args.timeout_sec)
    if args.out:
        args.out.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    survived = [outcome for outcome in outcomes if outcome.result == "survived"]
    for outcome in survived:
        print(f"\nsurvived ({outcome.what}):\n{outcome.diff}")
    print(f"\n{len(outcomes) - len(survived)} of {len(outcomes)} mutants were caught")


if __name__ == "__main__":
    main()
