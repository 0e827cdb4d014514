"""What JAX compiles is kept where nothing speaks against it."""

import os
import subprocess
import sys

from avt_jax.cli.processes.start import keep_compiled_programs
from avt_jax.host.cache import compiled_folder

VARIABLES = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_ENABLE_COMPILATION_CACHE",
    "JAX_COMPILATION_CACHE_MAX_SIZE",
)


def chosen(monkeypatch, **environment):
    """The folder that a command would use, of an environment with only these variables."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    keep_compiled_programs()
    return os.environ.get("JAX_COMPILATION_CACHE_DIR")


def test_a_folder_of_this_kind_of_processor_is_made(monkeypatch, tmp_path):
    folder = chosen(monkeypatch, AVT_CACHE=str(tmp_path))
    assert folder == str(compiled_folder()) and os.path.isdir(folder)
    assert folder.startswith(str(tmp_path / "compiled"))
    assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) > 0, "it would grow for ever"


def test_a_choice_of_the_user_stays(monkeypatch, tmp_path):
    given = dict(AVT_CACHE=str(tmp_path))
    assert chosen(monkeypatch, **given, JAX_COMPILATION_CACHE_DIR="/mine") == "/mine"
    assert chosen(monkeypatch, **given, JAX_COMPILATION_CACHE_DIR="") == ""
    assert chosen(monkeypatch, **given, JAX_ENABLE_COMPILATION_CACHE="false") is None
    assert not list(tmp_path.iterdir())


def test_no_folder_is_no_error(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert chosen(monkeypatch, AVT_CACHE=str(file)) is None


def test_the_second_process_compiles_nothing(tmp_path):
    program = (
        "from avt_jax.cli.processes.start import keep_compiled_programs as keep; keep();"
        "import jax, jax.numpy as jnp;"
        "from jax._src import monitoring;"
        "seen = []; monitoring.register_event_listener(lambda name, **_: seen.append(name));"
        "jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8)));"
        "print(seen.count('/jax/compilation_cache/cache_hits'),"
        "      seen.count('/jax/compilation_cache/cache_misses'))"
    )
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=env | {"AVT_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    (hits, misses), (hits_again, misses_again) = runs
    assert hits == "0" and misses != "0"
    assert (hits_again, misses_again) == (misses, "0")
