"""How a process finds and joins the job that it belongs to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from avt_jax.errors import UserError, first_line

# (option, environment variable) of what is told to each process.
_TOLD = (
    ("--coordinator", "AVT_COORDINATOR"),
    ("--num-processes", "AVT_NUM_PROCESSES"),
    ("--process-id", "AVT_PROCESS_ID"),
)


@dataclass(frozen=True)
class Job:
    """How a process finds the others.

    Attributes:
      coordinator: host:port of the first process; None = as JAX finds out, like the other two.
      num_processes: of the job.
      process_id: of this one, in [0, num_processes).
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def find_job(
    mode: str,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    environment: Mapping[str, str] = os.environ,
) -> Job | None:
    """The job that this process belongs to; None = it is alone.

    Args:
      mode: "auto": as told by the three values, by the variables AVT_COORDINATOR,
        AVT_NUM_PROCESSES and AVT_PROCESS_ID, by SLURM or by a TPU's environment; "on": there is
        one, which JAX finds where nothing tells of it; "off": there is none.
      coordinator, num_processes, process_id: as in `Job`; None = not given.
      environment: variables.

    Raises:
      UserError: one of the three is missing or wrong.
    """
    if mode == "off":
        return None
    names = [option for option, _ in _TOLD]
    values: list[object] = [coordinator, num_processes, process_id]
    if values == [None] * 3:
        names = [variable for _, variable in _TOLD]
        values = [environment.get(name) or None for name in names]
    missing = [name for name, value in zip(names, values, strict=True) if value is None]
    if not missing:
        return _checked(values, names)
    if len(missing) < len(names):
        raise UserError(
            f"a job of several processes needs {' and '.join(missing)}, too; give all three to "
            "every process, or none of them."
        )
    # What starts every process of a job by itself tells so in its environment.
    several = int(environment.get("SLURM_STEP_NUM_TASKS", "1") or 1) > 1
    several |= "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    return Job() if several or mode == "on" else None


def _checked(values: list[object], names: list[str]) -> Job:
    host, _, port = str(values[0]).rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{names[0]} {values[0]!r} is not HOST:PORT, such as 10.0.0.2:8476.")
    for name, value in zip(names[1:], values[1:], strict=True):
        if not str(value).isdigit():
            raise UserError(f"{name} {value!r} is not a number from 0 on.")
    count, index = (int(str(value)) for value in values[1:])
    if index >= count:
        raise UserError(
            f"{names[2]} {index} is not one of {count} processes, which are numbered from 0."
        )
    return Job(str(values[0]), count, index)


def join(job: Job, *, timeout_sec: int, peer_timeout_sec: int) -> None:
    """Joins the job; before anything touches a device.

    Args:
      job: from `find_job`.
      timeout_sec: how long the processes wait for each other at the start.
      peer_timeout_sec: a process that has not been heard of for so long ends the job.

    Raises:
      UserError: not all processes came, or JAX does not find out what the job is.
    """
    # Not above: whether there is a job is asked before anything of JAX is loaded.
    import jax

    from avt_jax.training.processes import peers

    # It takes SIGTERM as a note for a training that asks it; before ours does, it would be lost.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            job.coordinator,
            job.num_processes,
            job.process_id,
            initialization_timeout=timeout_sec,
            # Our watch names who died; JAX, which aborts, comes after it.
            heartbeat_timeout_seconds=2 * peer_timeout_sec + 60,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        where = f"at {job.coordinator}" if job.coordinator else "that JAX looked for"
        raise UserError(
            f"the job of several processes {where} could not be joined ({first_line(error)}); see "
            "that every process was started, with the same --coordinator and --num-processes, and "
            f"can reach it within {timeout_sec} s, or give --distributed off."
        ) from error
    peers.watch(jax.process_index(), jax.process_count(), timeout_sec=peer_timeout_sec)
