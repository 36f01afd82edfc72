"""ResNet-50 on many accelerators, estimated from counts: what limits it, and what breaks first.

    python benchmarks/studies/scale_model.py [--efficiency 0.5]

Nothing is measured here. Operations come from the network, bytes from memory_traffic.py, the rates
of chips and links from their makers, decoding from input_rate.py; the page scale.md states each
assumption.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax

from flax_resnet import create_model, init_variables, summarize

TRAINING_IMAGES, EPOCHS = 1_281_167, 90
BYTES_PER_IMAGE = 363.4e6  # counted for an H100 in bfloat16; see memory_traffic.md
JPEG_BYTES = 115e3  # of an image of ImageNet on average
IMAGES_PER_CORE = 801  # decoded and cropped per second; see RESULTS.md
DISK_BYTES_PER_SECOND = 1e9  # of the checkpoint folder


@dataclass(frozen=True)
class System:
    """A kind of accelerator with its links.

    Attributes:
      name: the chip.
      flops: peak in bfloat16, per second.
      memory: bytes per second.
      link: bytes per second in one direction of a chip to others of its group.
      network: the same to chips of other groups.
      group: chips that ``link`` connects.
      per_host: chips of a host.
      latency: seconds per step of an all-reduce between groups.
    """

    name: str
    flops: float
    memory: float
    link: float
    network: float
    group: int
    per_host: int
    latency: float


H100 = System("H100", 989e12, 3.35e12, 450e9, 50e9, 8, 8, 10e-6)
V5E = System("TPU v5e", 197e12, 819e9, 100e9, 100e9, 256, 8, 2e-6)
RUNS = (  # chips, and images of a chip
    *((H100, 8, 256), (H100, 64, 256), (H100, 1024, 256), (H100, 1024, 32)),
    *((V5E, 8, 128), (V5E, 64, 128), (V5E, 256, 128)),
)


def operations_per_image() -> float:
    """Return those of a training step: two per multiply-add, and the backward pass costs two."""
    return 6 * summarize(create_model("resnet50"), 224).multiply_adds


def state_sizes() -> tuple[int, int]:
    """Return the bytes of the averaged gradients and statistics, and those of a checkpoint."""
    shapes = jax.eval_shape(lambda: init_variables(create_model("resnet50"), 0, (224, 224, 3)))
    parameters, statistics = (
        4 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes[name]))
        for name in ("params", "batch_stats")
    )
    return parameters + statistics, 2 * parameters + statistics  # momentum, too


def compute_seconds(system: System, batch: int, operations: float, efficiency: float) -> float:
    """Return the time of a step without communication: that of its bytes or its operations."""
    roof = max(batch * BYTES_PER_IMAGE / system.memory, batch * operations / system.flops)
    return roof / efficiency


def all_reduce_seconds(system: System, chips: int, size: float) -> float:
    """Return the time of a ring all-reduce in the group, and of the parts between groups."""
    inside = min(chips, system.group)
    seconds = 2 * (inside - 1) / inside * size / system.link
    groups = chips // inside
    if groups > 1:
        seconds += 2 * (groups - 1) / groups * size / inside / system.network
        seconds += 2 * math.ceil(math.log2(groups)) * system.latency
    return seconds


def row(system: System, chips: int, batch: int, efficiency: float) -> tuple[str, ...]:
    """Return the row of a run: times, rates, and what its hosts must read and decode."""
    gradients, _ = state_sizes()
    compute = compute_seconds(system, batch, operations_per_image(), efficiency)
    reduce = all_reduce_seconds(system, chips, gradients)
    slowest = compute + reduce  # nothing overlaps
    rates = [chips * batch / seconds for seconds in (max(compute, reduce), slowest)]
    host_rate = rates[0] * system.per_host / chips
    minutes = [TRAINING_IMAGES * EPOCHS / rate / 60 for rate in rates]
    return (
        f"{chips} × {system.name}",
        f"{batch} ({chips * batch:,})",
        f"{1e3 * compute:.1f}",
        f"{1e3 * reduce:.2f} ({100 * reduce / slowest:.0f} %)",
        f"{rates[1]:,.0f} to {rates[0]:,.0f}",
        f"{host_rate:,.0f}",
        f"{host_rate / IMAGES_PER_CORE:.0f}",
        f"{rates[0] * JPEG_BYTES / 1e9:.1f}",
        f"{minutes[0]:,.1f} to {minutes[1]:,.1f}",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--efficiency", type=float, default=0.5, help="share of the roof, 0 to 1")
    flags = parser.parse_args()
    gradients, checkpoint = state_sizes()
    print(f"{operations_per_image() / 1e9:.1f} GFLOP and {BYTES_PER_IMAGE / 1e6:.1f} MB per image;")
    print(f"all-reduce {gradients / 1e6:.1f} MB; checkpoint {checkpoint / 1e6:.1f} MB,")
    print(f"{checkpoint / DISK_BYTES_PER_SECOND:.2f} s at {DISK_BYTES_PER_SECOND / 1e9:g} GB/s")
    head = ("chips", "batch of a chip (of all)", "compute, ms", "all-reduce, ms (share)")
    head += ("images/s", "images/s of a host", "its cores", "read, GB/s", "90 epochs, min")
    print(f"\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for system, chips, batch in RUNS:
        print(f"| {' | '.join(row(system, chips, batch, flags.efficiency))} |")


if __name__ == "__main__":
    main()
