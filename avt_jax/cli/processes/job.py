"""What the commands that can run as several processes share."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable

from avt_jax.cli import common, interrupts
from avt_jax.cli.processes.supervise import supervise
from avt_jax.errors import UserError, first_line
from avt_jax.host.output.terminal import show

_LINGER_SEC = 3

EPILOG = """\
Several processes run the same command, one for each host or GPU; the first one writes and speaks:

  avt {command} ... --coordinator HOST:PORT --num-processes 2 --process-id 0     (and 1)

The same can be said by AVT_COORDINATOR, AVT_NUM_PROCESSES and AVT_PROCESS_ID; SLURM and TPU pods
are known. Exit codes: 0 done, 2 a mistake to mend, 75 another process died (start all again), 130
and 143 stopped by Ctrl-C or SIGTERM.
"""


def add_options(cli: argparse.ArgumentParser) -> None:
    """Adds the options of a command that can run as several processes."""
    group = cli.add_argument_group("several processes")
    group.add_argument(
        "--distributed",
        choices=("auto", "on", "off"),
        default="auto",
        help="join the job that the options below or the environment tell of; on: JAX finds it "
        "(default %(default)s)",
    )
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", help="where the first process is, and a free port"
    )
    group.add_argument("--num-processes", type=int, metavar="N", help="processes of the job")
    group.add_argument("--process-id", type=int, metavar="I", help="of this one, from 0 on")
    group.add_argument(
        "--join-timeout",
        type=int,
        default=300,
        metavar="SEC",
        help="the processes wait so long for each other at the start (default %(default)s)",
    )
    group.add_argument(
        "--peer-timeout",
        type=int,
        default=60,
        metavar="SEC",
        help="a process that has not been heard of for so long ends the job (default %(default)s)",
    )


def run(args: argparse.Namespace, command: Callable[[], None]) -> int:
    """Joins the job, if there is one, and runs a command in it; returns the exit code.

    Where the command fails in one process alone, the others are told and end, too.

    Raises:
      UserError: the job cannot be joined; or, without a job, that of the command.
    """
    for name in ("join_timeout", "peer_timeout"):
        if getattr(args, name) < 5:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give 5 or more.")
    from avt_jax.training.processes import job, stop

    stop.this_process_is_ours()
    found = job.find_job(args.distributed, args.coordinator, args.num_processes, args.process_id)
    if found is None:
        interrupts.listen()
        command()
        return 0
    if (code := supervise()) is not None:
        return code
    interrupts.listen()
    job.join(found, timeout_sec=args.join_timeout, peer_timeout_sec=args.peer_timeout)
    code = common.run(lambda argv: _run_watched(command), [])
    if code not in (0, 130, 143):
        # The others, which ask the first process, have this long to say the same.
        time.sleep(_LINGER_SEC)
        # Not the ordinary way, on which JAX waits for processes that have ended.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run_watched(command: Callable[[], None]) -> int:
    from avt_jax.training.processes import peers
    from avt_jax.training.processes.agree import SharedError

    try:
        command()
    except (SharedError, KeyboardInterrupt):
        peers.stop_watching()
        raise
    except UserError as error:
        peers.failed(str(error))
        raise
    except Exception as error:
        if peers.lost(error):
            show(f"avt: error: a connection broke ({first_line(error)})", file=sys.stderr)
            return peers.EXIT_CODE
        peers.failed(first_line(error))
        traceback.print_exc()
        return 1
    peers.stop_watching()
    return 0
