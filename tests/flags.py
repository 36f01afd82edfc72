"""XLA's flags of the tests. Imports nothing, since they have to be set before JAX is imported."""

# XLA's passes over a program take longer than the few steps of it that a test does. Which numbers
# come out is the same to rounding, and runs that are compared bit for bit all have these flags.
# The newer way to compile fused operations, in JAX 0.10's XLA, takes as long as all the rest of a
# step together; the XLA of JAX 0.12 does not know this option, and passes it over.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
)


def xla_flags(devices):
    """``XLA_FLAGS`` of a process that is to have so many virtual devices."""
    return f"--xla_force_host_platform_device_count={devices} {QUICK}"


# For ``jax.jit(…, compiler_options=)``: what a test asks is computed as users' programs do it.
AS_SHIPPED = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_backend_extra_options": "",
}
