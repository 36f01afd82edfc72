"""Time to initialize, compile and run a step of the deepest CIFAR networks.

    python benchmarks/studies/deep_nets.py [resnet1001v2 resnet1202 ...] [--batch-size 8]

Prints one line per network: seconds to initialize the variables, to trace and to compile one SGD
step at 32×32, and to run one step after that.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp

from flax_resnet import create_model, init_variables


def make_step(model, labels):
    """Return a jitted SGD step ``(variables, images) -> (variables, loss)``."""

    def step(variables, images):
        def loss(params):
            logits, updates = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            log_probabilities = jax.nn.log_softmax(logits)
            return -jnp.mean(log_probabilities[jnp.arange(len(labels)), labels]), updates

        (value, updates), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], gradient)
        return {"params": params} | updates, value

    return jax.jit(step, donate_argnums=0)


def measure(model_name, batch_size):
    """Print the times of one network."""
    seconds = {}

    def timed(name, function, *arguments):
        start = time.perf_counter()
        result = jax.block_until_ready(function(*arguments))
        seconds[name] = time.perf_counter() - start
        return result

    model = create_model(model_name)
    images = jax.random.normal(jax.random.key(0), (batch_size, 32, 32, 3))
    variables = timed("init", init_variables, model, 0, (32, 32, 3))
    step = make_step(model, jnp.arange(batch_size) % model.num_classes)
    lowered = timed("trace", lambda: step.lower(variables, images))
    compiled = timed("compile", lowered.compile)
    variables, loss = compiled(variables, images)
    variables, _ = timed("step", compiled, variables, images)
    figures = "  ".join(f"{part} {value:.1f} s" for part, value in seconds.items())
    print(
        f"{model_name}  batch {batch_size}  {jax.devices()[0].platform}  {figures}  loss {loss:.3f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["resnet1001v2", "resnet1202"])
    parser.add_argument("--batch-size", type=int, default=8)
    flags = parser.parse_args()
    for name in flags.names:
        measure(name, flags.batch_size)


if __name__ == "__main__":
    main()
