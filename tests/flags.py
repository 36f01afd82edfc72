"""XLA flags for the tests. Imports nothing: they must be set before JAX is imported."""

# XLA's optimization takes longer than the few steps that a test computes. Results are the same
# within rounding, and runs that are compared bit by bit all use these flags. The new fusion
# emitters in JAX 0.10's XLA take as long to compile as the rest of a step; the XLA of JAX 0.12
# ignores this option.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
)


def xla_flags(devices):
    """Return ``XLA_FLAGS`` for a process with ``devices`` virtual devices."""
    return f"--xla_force_host_platform_device_count={devices} {QUICK}"


# For ``jax.jit(…, compiler_options=)``: restore XLA's defaults, as in users' programs.
AS_SHIPPED = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_backend_extra_options": "",
}
