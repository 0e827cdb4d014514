"""A job of several real processes on this machine, each with one CPU device."""

import os
import socket
import subprocess
import sys
import time

from quick_flags import QUICK_FLAGS


def free_port():
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


class Job:
    """Processes of one `avt` command.

    Args:
      folder: where what they print goes.
      count: processes; 1 = without a job.
      *words: the command.
    """

    def __init__(self, folder, count, *words):
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = [folder / f"stderr-{i}.txt" for i in range(count)]
        told = ["--coordinator", f"localhost:{free_port()}", "--num-processes", str(count)]
        env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK_FLAGS}
        self.processes = []
        for i, path in enumerate(self._paths):
            more = [*told, "--process-id", str(i), "--peer-timeout", "5"] if count > 1 else []
            with path.open("w") as err, (folder / f"stdout-{i}.txt").open("w") as out:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "avt_jax", *map(str, words), *more],
                        stdout=out,
                        stderr=err,
                        env=env,
                    )
                )

    def stderr(self, index=0):
        """What a process has said so far."""
        return self._paths[index].read_text(errors="replace")

    def wait_for(self, text, index=0, seconds=240):
        """Returns when a process has said something."""
        end = time.monotonic() + seconds
        while text not in self.stderr(index):
            running = self.processes[index].poll() is None
            assert running and time.monotonic() < end, self.stderr(index)
            time.sleep(0.05)

    def wait(self, seconds=240):
        """The exit codes."""
        try:
            return [process.wait(seconds) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
