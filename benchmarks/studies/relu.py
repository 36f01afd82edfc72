"""Training step with this library's ReLU compared with ``jax.nn.relu``.

    python benchmarks/studies/relu.py [--model resnet20] [--image-size 32] [--batch-size 128]

Prints compile times, median step times and their ratio; the steps are interleaved.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp

from benchmarks.studies.deep_nets import make_step
from flax_resnet import create_model, init_variables, ops

RELUS = {"jax.nn.relu": jax.nn.relu, "ours": ops.relu}


def compiled_step(model, relu, variables, images):
    """Return a compiled step that uses ``relu``, and the seconds to compile it."""
    with mock.patch.object(ops, "relu", relu):
        step = make_step(model, jnp.arange(len(images)) % model.num_classes)
        lowered = step.lower(variables, images)
    start = time.perf_counter()
    return lowered.compile(), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    flags = parser.parse_args()
    if jax.default_backend() != "cpu":
        parser.error("only on CPU does this library have its own ReLU; set JAX_PLATFORMS=cpu")
    shape = (flags.image_size, flags.image_size, 3)
    model = create_model(flags.model)
    images = jax.random.normal(jax.random.key(0), (flags.batch_size, *shape))

    steps, states, times = {}, {}, {name: [] for name in RELUS}
    for name, relu in RELUS.items():
        states[name] = init_variables(model, 0, shape)
        steps[name], seconds = compiled_step(model, relu, states[name], images)
        print(f"{name}: compiled in {seconds:.1f} s")
        states[name], _ = steps[name](states[name], images)
    for _ in range(flags.repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            states[name], _ = jax.block_until_ready(step(states[name], images))
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in medians.items():
        print(f"{name}: {1000 * seconds:.1f} ms per step")
    print(
        f"{flags.model}: {medians['jax.nn.relu'] / medians['ours']:.2f} times the speed of"
        " jax.nn.relu"
    )


if __name__ == "__main__":
    main()
