"""XLA's flags of the tests: compiling is most of what they do.

Without LLVM's optimisations and XLA's newer way of emitting loops it takes a fifth of the time.
launch/test_torch.sh repeats the comparisons with the originals as users compile: it gives a level
of its own.
"""

from jaxlib.version import __version_info__ as JAXLIB

QUICK_FLAGS = "--xla_backend_optimization_level=0"
# A flag that XLA does not know ends the process.
if JAXLIB < (0, 11, 1):
    QUICK_FLAGS += " --xla_cpu_use_fusion_emitters=false"
EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
