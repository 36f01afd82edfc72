"""Model FLOPs utilization (MFU): the model's floating-point operations over the devices' peak."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flax_resnet import summarize

if TYPE_CHECKING:  # it imports libraries that a benchmark on a bare machine lacks
    from train.engine.experiment import Experiment

# Peak dense FLOP/s of a device by JAX's name for it, at the precision that JAX uses by default for
# matrix products and convolutions: bfloat16; for float32 arrays TF32 on GPUs and bfloat16 on
# TPUs. From the manufacturers' data sheets, without sparsity. A TPU v2 or v3 chip is two devices.
PEAK_FLOPS: dict[str, tuple[float, float]] = {
    # device_kind: bfloat16, float32
    "NVIDIA A100": (312e12, 156e12),
    "NVIDIA H100 80GB HBM3": (989e12, 494e12),
    "NVIDIA H100 NVL": (835e12, 417e12),
    "NVIDIA H100 PCIe": (756e12, 378e12),
    "NVIDIA H200": (989e12, 494e12),
    "NVIDIA L4": (121e12, 60e12),
    "NVIDIA L40S": (362e12, 183e12),
    "TPU v2": (22.5e12, 22.5e12),
    "TPU v3": (61.5e12, 61.5e12),
    "TPU v4": (275e12, 275e12),
    "TPU v5 lite": (197e12, 197e12),
    "TPU v5e": (197e12, 197e12),
    "TPU v5p": (459e12, 459e12),
    "TPU v6 lite": (918e12, 918e12),
    "TPU v6e": (918e12, 918e12),
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Return the peak FLOP/s of one device, or None for CPUs and unknown devices.

    Args:
      device_kind: JAX's name, which may end with memory and form factor, as in
        "NVIDIA A100-SXM4-80GB".
      dtype: compute type, ``"bfloat16"`` or ``"float32"``.
    """
    for kind, (bfloat16, float32) in PEAK_FLOPS.items():
        rest = device_kind.removeprefix(kind)
        if device_kind.startswith(kind) and not rest[:1].isalnum():
            return bfloat16 if dtype == "bfloat16" else float32
    return None


def mfu_per_image(experiment: Experiment) -> float | None:
    """Return the MFU at one image per second, or None if it cannot be computed.

    A multiply-add of convolutions and dense layers counts as two operations, and the backward
    pass as twice the forward pass; padding, augmentation and the optimizer do not count. None for
    devices of unknown peak, frozen modules, and images whose size changes.
    """
    config, devices = experiment.config, experiment.devices
    peak = peak_flops(devices.devices[0].device_kind, config.model.dtype)
    preprocessing = experiment.train_loader.preprocessing
    sizes = experiment.train_loader.sizes.train_sizes or (preprocessing.shorter_side,)
    if peak is None or experiment.step_config.frozen or len(sizes) > 1:
        return None
    augment = experiment.step_config.augment
    *size, channels = augment.output_shape(preprocessing.at(sizes[0]).shape)
    operations = 6 * summarize(experiment.model, tuple(size), channels).multiply_adds
    return operations / (peak * len(devices))
