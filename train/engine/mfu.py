"""How much of the devices' arithmetic a run uses: its floating-point operations over their peak."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flax_resnet import summarize

if TYPE_CHECKING:  # which would import what a benchmark on a bare machine lacks
    from train.engine.experiment import Experiment

# Dense FLOP/s of a device as JAX names it, at the precision that JAX gives matrix products and
# convolutions by default: bfloat16, and of float32 arrays TF32 on GPUs and bfloat16 on TPUs. From
# the makers' data sheets, without sparsity. TPU v2 and v3 have two devices a chip.
PEAKS: dict[str, tuple[float, float]] = {
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


def peak(device_kind: str, dtype: str) -> float | None:
    """FLOP/s of one device; None for a kind that is not known, and for CPUs.

    A name may go on with memory and form, as "NVIDIA A100-SXM4-80GB".
    """
    for kind, (bfloat16, float32) in PEAKS.items():
        rest = device_kind.removeprefix(kind)
        if device_kind.startswith(kind) and not rest[:1].isalnum():
            return bfloat16 if dtype == "bfloat16" else float32
    return None


def share_of_an_image(run: Experiment) -> float | None:
    """Which share of a second of all devices' peak the training step of one image takes.

    Two operations for each multiply-add of convolutions and dense layers, and for the gradients
    twice as many as for the forward pass (no padding, augmentation or optimiser counted). None
    where a device's peak is not known, modules are frozen, or images change their size.
    """
    most = peak(run.devices.devices[0].device_kind, run.config.model.dtype)
    sizes = run.train_loader.sizes.train_sizes or (run.config.dataset.image_size,)
    if most is None or run.step_config.frozen or len(sizes) > 1:
        return None
    operations = 6 * summarize(run.model, sizes[0]).multiply_adds
    return operations / (most * len(run.devices))
