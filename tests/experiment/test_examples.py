"""The notebook and the code of docs/python.md run as they stand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from quick_flags import QUICK_FLAGS

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def run(code, folder):
    """Runs code as a program of its own, in a folder of its own."""
    script = folder / "program.py"
    script.write_text(code, encoding="utf-8")
    env = os.environ | {"XLA_FLAGS": QUICK_FLAGS, "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_notebook(tmp_path):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 6 and not any(
        cell["outputs"] for cell in cells if cell["cell_type"] == "code"
    )
    # What a notebook shows of a cell's last line, a program prints.
    shown = run(SHOW + "\n".join(f"exec_and_show({text!r})" for text in code), tmp_path)
    assert "training for 20 steps" in shown
    assert re.search(r"\{'label': 0\.\d+\}", shown), shown
    assert "'video': (" in shown and "results.json" in shown


SHOW = """
import ast

def exec_and_show(text, scope={}):
    *body, last = ast.parse(text).body
    exec(compile(ast.Module(body, []), "cell", "exec"), scope)
    if isinstance(last, ast.Expr):
        print(repr(eval(compile(ast.Expression(last.value), "cell", "eval"), scope)))
    else:
        exec(compile(ast.Module([last], []), "cell", "exec"), scope)

"""


@pytest.mark.parametrize("index", [1])
def test_the_code_of_the_page(index, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    assert "OwnData" in blocks[index]
    shown = run(blocks[index], tmp_path)
    assert "{'label': " in shown
