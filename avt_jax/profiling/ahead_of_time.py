"""Compiling for TPUs that are not here: nothing is run, no device is touched.

The compiler is in the package libtpu (extra `aot`), which works without a TPU. JAX itself stays on
the backend that it has.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from avt_jax.errors import UserError, first_line
from avt_jax.profiling.chips import EXAMPLES, GIB, Topology

Say = Callable[[str], None]

_TICK_SEC = 15.0
# Without these libtpu asks a metadata server which TPU it is on, or takes another process's lock.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}
# "Used 18.10G of 15.75G hbm" and "(400.00G) exceeds available HBM (15.75G)".
_TWO_FIGURES = (
    re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"),
    re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"),
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


class DoesNotFit(Exception):
    """The compiler found no way to keep a program within a chip's memory.

    Attributes:
      needed_bytes: what it would take; None where the compiler does not say.
      available_bytes: what there is; None where the compiler does not say.
    """

    def __init__(self, message: str):
        super().__init__(message)
        found = next((m for m in (p.search(message) for p in _TWO_FIGURES) if m), None)
        self.needed_bytes = self.available_bytes = None
        if found:
            self.needed_bytes = round(float(found[1]) * _UNITS[found[2]])
            self.available_bytes = round(float(found[3]) * _UNITS[found[4]])


@dataclass(frozen=True)
class Memory:
    """What the compiler plans for one chip, in bytes.

    Attributes:
      arguments: parameters, optimiser's state and batch.
      outputs: results, with what reuses the memory of arguments.
      aliased: of these, what does so.
      temporaries: activations and scratch space.
      code: the program.
      peak: most that is alive at once, arguments and results included.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    peak: int


@dataclass(frozen=True)
class Compilation:
    """A program compiled for a topology.

    Attributes:
      jaxpr: the traced program.
      text: of the optimised program.
      memory: of one chip.
      seconds: {"trace", "lower", "compile"}: what each took here.
    """

    jaxpr: Any
    text: str
    memory: Memory
    seconds: dict[str, float]


def require_libtpu() -> None:
    """Raises a UserError where the compiler is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "compiling for TPUs needs the package libtpu (about 640 MB); "
            "install it with 'pip install avt_jax[aot]'."
        )


def devices(topology: Topology) -> Sequence[jax.Device]:
    """The chips of a topology, to build a mesh of; they can be compiled for, and nothing else.

    Raises:
      UserError: libtpu is missing, or knows no such topology.
    """
    require_libtpu()
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if topology.chip.variant:
        options["chip_config_name"] = topology.chip.variant
    if topology.num_chips == 1:  # hosts have four chips if nothing is said
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        with _environment():
            found = topologies.get_topology_desc(
                platform="tpu", topology_name=topology.name, **options
            )
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"--topology {topology.name}: libtpu refuses it ({first_line(error)}); "
            f"give such as {EXAMPLES}."
        ) from error
    return found.devices


def compile_for_tpu(
    jitted: Any, arguments: Sequence[Any], *, name: str, say: Say, effort: float | None = None
) -> Compilation:
    """Compiles a jitted function whose shardings or arguments lie on a topology's devices.

    Args:
      jitted: from `jax.jit`.
      arguments: pytrees of `jax.ShapeDtypeStruct`.
      name: of the topology, for the messages.
      say: is told what is being done, and every 15 s that it still is.
      effort: -1 (quick, poorer code) to 1; None = as for users.

    Raises:
      DoesNotFit: a chip's memory does not suffice.
    """
    seconds = {}
    start_sec = time.monotonic()
    with ticking(say, "tracing"):
        traced = jitted.trace(*arguments)
    seconds["trace"] = time.monotonic() - start_sec
    start_sec = time.monotonic()
    with ticking(say, "lowering"):
        lowered = traced.lower(lowering_platforms=("tpu",))
    seconds["lower"] = time.monotonic() - start_sec
    options = {} if effort is None else {"exec_time_optimization_effort": effort}
    start_sec = time.monotonic()
    with ticking(say, f"compiling for {name}, this can take minutes"), _without_cache():
        try:
            compiled = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise DoesNotFit(str(error)) from error
            raise
    seconds["compile"] = time.monotonic() - start_sec
    return Compilation(traced.jaxpr, compiled.as_text(), _memory(compiled), seconds)


@contextlib.contextmanager
def ticking(say: Say, what: str, every_sec: float = _TICK_SEC) -> Iterator[None]:
    """Says what begins, and every few seconds that it is not yet done."""
    done, start_sec = threading.Event(), time.monotonic()

    def tick() -> None:
        while not done.wait(every_sec):
            say(f"  still {what.split(',')[0]} after {time.monotonic() - start_sec:.0f} s")

    say(what)
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _memory(compiled: Any) -> Memory:
    found = compiled.memory_analysis()
    sizes = {
        name: int(getattr(found, f"{field}_size_in_bytes"))
        for name, field in (
            ("arguments", "argument"),
            ("outputs", "output"),
            ("aliased", "alias"),
            ("temporaries", "temp"),
            ("code", "generated_code"),
        )
    }
    together = sizes["arguments"] + sizes["outputs"] - sizes["aliased"] + sizes["temporaries"]
    return Memory(**sizes, peak=int(getattr(found, "peak_memory_in_bytes", 0)) or together)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Sets what libtpu reads when it is loaded, where the user has not, and takes it away again."""
    mine = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            del os.environ[name]


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Keeps programs for absent devices out of the compilation cache: they cannot be read back."""
    field = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, field)
    jax.config.update(field, 1e9)
    try:
        yield
    finally:
        jax.config.update(field, before)
