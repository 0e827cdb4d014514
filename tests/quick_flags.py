"""XLA's flags of the tests: compiling is most of what they do.

Without LLVM's optimisations and XLA's newer way of emitting loops it takes a fifth of the time.
launch/test_torch.sh repeats the comparisons with the originals as users compile.
"""

QUICK_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
