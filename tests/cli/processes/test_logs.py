"""Libraries' alarms are hidden, what a user can act upon and what ends the process is not."""

import os
import subprocess
import sys

PROGRAM = """
import logging, sys
from avt_jax.cli.processes.logs import keep_quiet
keep_quiet()
logging.basicConfig()
for name in ("absl", "gcsfs", "avt_jax.data.loading.damaged", "jax._src.xla_bridge", "jaxtyping"):
    log = logging.getLogger(name)
    log.info("%s at info", name)
    log.warning("%s at warning", name)
    log.error("%s at error", name)
logging.getLogger("gcsfs").critical("gcsfs is lost")
logging.getLogger("avt_jax").warning("%d does not fit", "this")
import jax
{end}
"""


def ran(end="", **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("TF_CPP", "TPU_"))}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end)],
        env=env | environment,
        capture_output=True,
        text=True,
    )


def test_what_is_heard_has_a_line_each():
    found = ran("import os; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])")
    assert found.returncode == 0 and found.stdout == "3\n"
    lines = [line for line in found.stderr.splitlines() if line.startswith("avt: ")]
    assert lines == [
        "avt: avt_jax.data.loading.damaged at warning",
        "avt: avt_jax.data.loading.damaged at error",
        "avt: jax._src.xla_bridge at warning",
        "avt: jax._src.xla_bridge at error",
        "avt: gcsfs is lost",
    ]
    assert "absl at" not in found.stderr and "jaxtyping at" not in found.stderr


def test_everything_is_shown_on_demand():
    found = ran("import os; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])", TF_CPP_MIN_LOG_LEVEL="0")
    assert found.stdout == "0\n"
    assert "WARNING:absl:absl at warning" in found.stderr and "ERROR:gcsfs" in found.stderr
    assert "avt: " not in found.stderr


def test_what_ends_the_process_is_shown():
    found = ran("jax.devices()", XLA_FLAGS="--no_such_flag", JAX_PLATFORMS="cpu")
    assert found.returncode != 0 and "Unknown flag in XLA_FLAGS: --no_such_flag" in found.stderr


def test_an_error_of_xla_says_where_more_is():
    raised = "raise jax.errors.JaxRuntimeError('INTERNAL: x')"
    hint = "avt: what XLA has logged is hidden; TF_CPP_MIN_LOG_LEVEL=0 in the environment shows it."
    found = ran(raised)
    assert found.stderr.splitlines()[-2:] == ["jax.errors.JaxRuntimeError: INTERNAL: x", hint]
    assert found.returncode == 1
    assert hint not in ran(raised, TF_CPP_MIN_LOG_LEVEL="1").stderr
    assert hint not in ran("raise ValueError('y')").stderr
