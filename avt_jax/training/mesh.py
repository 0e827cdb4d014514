"""Device mesh, and which array lies where on it.

The mesh has two axes. Every batch is split over both; parameters are copied to all devices
("replicate") or cut along their largest dimension over the axis `fsdp`, as the rules of the config
say. What the optimiser keeps of an array under the rule `fsdp`, and its average, is cut over both
axes: every device updates its part, and the parameters are put together again. Model code knows
nothing of this.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from avt_jax import axes, tree
from avt_jax.errors import UserError
from avt_jax.settings import Block, setting
from avt_jax.tree.stacks import Packing

DATA, FSDP = "data", "fsdp"
# The parts of a `TrainState` that no forward or backward pass reads.
_CUT_OVER_ALL = ("opt_state", "ema")


@dataclass(frozen=True)
class MeshConfig(Block, where="config.mesh"):
    """The config block `mesh`."""

    data: int = setting(
        -1, "devices along the axis data; -1 = all that fsdp leaves", at_least=-1, at_most=1_000_000
    )
    fsdp: int = setting(1, "devices along the axis fsdp", at_least=1, at_most=1_000_000)
    rules: tuple[tuple[str, str], ...] = setting(
        (("kernel", "fsdp"), (".*", "replicate")),
        "ordered (path regex, rule); the first match counts. A rule is replicate (a copy on every "
        "device) or fsdp (cut along the largest dimension: a parameter over the axis fsdp, the "
        "optimiser's moments and the average of parameters over all devices)",
    )
    min_cut_mb: float = setting(
        1.0, "arrays of fewer MiB are copied to every device, whatever their rule", at_least=0
    )

    def check(self) -> None:
        """Refuses unknown rules and expressions that do not compile."""
        for pattern, rule in self.rules:
            if rule not in ("replicate", "fsdp"):
                raise UserError(
                    f"config.mesh.rules: {rule!r} for {pattern!r} is not a rule; "
                    "give 'replicate' or 'fsdp'."
                )
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(
                    f"config.mesh.rules: {pattern!r} is no regular expression ({error}); mend it."
                ) from error


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds the mesh over all devices (one CPU device is a 1x1 mesh).

    Of several slices, TPU pods that a slower network joins, the axis data goes across: what travels
    between them are sums of gradients, once a step.

    Raises:
      UserError: the device count is not data * fsdp, or parameters would be cut across slices.
    """
    devices = jax.devices() if devices is None else devices
    data = len(devices) // config.fsdp if config.data == -1 else config.data
    if data * config.fsdp != len(devices) or data < 1:
        raise UserError(
            f"config.mesh asks for data={config.data} x fsdp={config.fsdp} devices but there are "
            f"{len(devices)}; set data=-1 and an fsdp that divides {len(devices)}."
        )
    # Auto axes: the newer explicit ones refuse slicing and nnx.Linear on sharded arrays.
    kinds = (AxisType.Auto,) * 2
    # GPUs have such an index, too, of hosts; their networks do carry more.
    is_tpu = devices[0].platform == "tpu"
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if is_tpu else 1
    if slices == 1:
        shape = (data, config.fsdp)
        return jax.make_mesh(shape, (DATA, FSDP), axis_types=kinds, devices=devices)
    return Mesh(_across_slices(data, config.fsdp, slices, devices), (DATA, FSDP), axis_types=kinds)


def _across_slices(
    data: int, fsdp: int, slices: int, devices: Sequence[jax.Device]
) -> np.ndarray[Any, Any]:
    """[data, fsdp] devices, slice after slice along the first axis."""
    if data % slices:
        raise UserError(
            f"config.mesh asks for fsdp={fsdp} on {slices} slices of {len(devices) // slices} "
            "devices; give an fsdp that divides the devices of a slice."
        )
    return mesh_utils.create_hybrid_device_mesh((data // slices, fsdp), (slices, 1), devices)


def within(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, told of the mesh it is for when it is traced.

    Kernels that the compiler cannot divide between devices divide their work themselves.
    """

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced


def quick_to_compile(platform: str) -> dict[str, str | bool | int] | None:
    """Options of the compiler for a program that is called once or twice.

    On a CPU compiling costs more than running: without LLVM's optimisations and with the older
    way of emitting loops, where this JAX still has it, it takes a fifth of the time.

    Args:
      platform: "cpu", "gpu", "tpu".
    """
    if platform != "cpu":
        return None
    return {"xla_backend_optimization_level": 0, **older_loops()}


@functools.cache
def older_loops() -> dict[str, str | bool]:
    """The compiler's option for its older way of emitting loops on a CPU; {} from jaxlib 0.11.1."""
    option: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False}
    cpu = jax.local_devices(backend="cpu")[0]
    with jax.default_device(cpu):
        nothing = jax.jit(lambda: 0).lower()
    try:
        nothing.compile(compiler_options=option)
    except jax.errors.JaxRuntimeError:
        return {}
    return option


def run_once(function: Callable[..., Any], mesh: Mesh, out_shardings: Any) -> Callable[..., Any]:
    """Jits a function that is called once or twice, to compile quickly.

    Args:
      function: pure.
      mesh: whose devices it runs on.
      out_shardings: where its results go.
    """
    options = quick_to_compile(mesh.devices.flat[0].platform)
    return jax.jit(function, out_shardings=out_shardings, compiler_options=options)


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))


def _cut(mesh: Mesh, shape: tuple[int, ...], names: tuple[str, ...]) -> NamedSharding | None:
    """The largest dimension that divides, cut over some axes of the mesh; None without one."""
    size = math.prod(mesh.shape[name] for name in names)
    divisible = [i for i, n in enumerate(shape) if n % size == 0 and n > 0]
    if size == 1 or not divisible:
        return None
    largest = max(divisible, key=lambda axis: shape[axis])
    over = names if len(names) > 1 else names[0]
    return NamedSharding(mesh, PartitionSpec(*(None,) * largest, over))


def variable_shardings(
    mesh: Mesh, abstract: Any, config: MeshConfig, packing: Packing | None = None
) -> Any:
    """Shardings for a pytree whose leaves sit in flat {path: array} dictionaries.

    Optimiser moments live under the same paths as their parameters, so the same rules find them;
    scalars and counters match no rule worth splitting and are replicated.

    Args:
      mesh: from `make_mesh`.
      abstract: pytree of arrays or shapes, such as a `TrainState`.
      config: has the rules.
      packing: of the dictionaries, where they are packed. A stack of layers is treated as its first
        layer is, and never cut between layers; small arrays that share an entry are replicated.

    Returns:
      A pytree of NamedSharding with the structure of `abstract`.
    """

    def choose(key_path: Any, leaf: Any) -> NamedSharding:
        keys = [k.key for k in key_path if isinstance(k, jax.tree_util.DictKey)]
        if not keys or not leaf.shape:
            return replicated(mesh)
        path, shape = keys[-1], leaf.shape
        layers = None if packing is None else packing.layers(path)
        if packing is not None and packing.is_shared(path):
            return replicated(mesh)
        if layers is not None:
            path, shape = layers[0], shape[1:]
        found = replicated(mesh)
        bytes_ = math.prod(shape) * leaf.dtype.itemsize
        if tree.first_match(config.rules, path) == "fsdp" and bytes_ >= config.min_cut_mb * 2**20:
            found = _cut(mesh, shape, (FSDP,)) or found
            if getattr(key_path[0], "name", None) in _CUT_OVER_ALL:
                found = _cut(mesh, shape, (DATA, FSDP)) or found
        return found if layers is None else _below(found)

    return jax.tree_util.tree_map_with_path(choose, abstract)


def _below(one: NamedSharding) -> NamedSharding:
    """A layer's sharding for a stack of such layers."""
    return NamedSharding(one.mesh, PartitionSpec(None, *one.spec) if one.spec else one.spec)


def check_batch_size(batch_size: int, mesh: Mesh) -> int:
    """The number of clips each process loads.

    Raises:
      UserError: the global batch does not divide evenly over the devices.
    """
    if batch_size < 1 or batch_size % mesh.size:
        raise UserError(
            f"the batch size {batch_size} does not divide over {mesh.size} devices; use a multiple "
            f"of {mesh.size} (config.train.batch_size, eval_batch_size; docs/scaling.md says which "
            "learning rate a larger batch wants)."
        )
    return batch_size // jax.process_count()


def to_host(x: jax.Array) -> np.ndarray:
    """This process's part of an array whose first axis is split over all devices, in order."""
    if x.is_fully_addressable:
        return np.asarray(x)
    parts = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in parts])


def to_device(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Moves this process's part of a batch to the mesh, as global arrays.

    Args:
      batch: see `avt_jax.axes`; keys that only the host can hold (ids) are left out.
      mesh: from `make_mesh`.

    Returns:
      The same dictionary with global `jax.Array`s, the first axis split over all devices.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
        {key: batch[key] for key in axes.DEVICE_KEYS if key in batch},
    )
