"""The export as StableHLO, a program that JAX runs."""

import dataclasses
import os
import re
from typing import Any

import jax
from jax import export
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo

from flax_resnet import ops
from flax_resnet.runs import Run
from train.export.outputs import exported_output, folded

PLATFORMS = ("cpu", "cuda", "tpu")
# That of jaxlib 0.10.0, the oldest supported one. JAX itself writes the version of four weeks
# before its release, which older ones do not read.
VERSION, READ_SINCE = "1.16.0", "0.10.0"
# "Compatibility guarantees" in JAX's documentation of export.
NEWER_MONTHS, OLDER_WEEKS = 6, 3


def write_stablehlo(run: Run, path: str) -> None:
    """Write the network as StableHLO for cpu, cuda and tpu and any batch size.

    The program takes images ``(N, H, W, C)``, uint8 or uint16, and returns probabilities, or for
    segmentation the logits of every pixel; it includes the normalization, and batch norm is folded
    into the convolutions.
    """
    model, variables = folded(run)
    output = exported_output(run)

    def predict(images: jax.Array) -> jax.Array:
        return output.compute(run, model.apply(variables, run.preprocessing.normalize(images)))

    shape = (*export.symbolic_shape("N"), *run.preprocessing.shape)
    images = jax.ShapeDtypeStruct(shape, run.preprocessing.pixels.dtype)
    with ops.use_xla_ops():  # the forms for this CPU may not suit the target
        exported = export.export(jax.jit(predict), platforms=PLATFORMS)(images)
    with open(path, "wb") as file:
        file.write(in_oldest_version(exported).serialize())
        file.flush()
        os.fsync(file.fileno())


def in_oldest_version(exported: export.Exported) -> export.Exported:
    """Return a program in ``VERSION``, or unchanged if that lacks one of its operations."""
    with ir.Context() as context:
        stablehlo.register_dialect(context)
        module = stablehlo.deserialize_portable_artifact(context, exported.mlir_module_serialized)
        try:
            serialized = stablehlo.serialize_portable_artifact(module, VERSION)
        except ValueError:  # an own layer may use an operation that was added later
            return exported
    return dataclasses.replace(exported, mlir_module_serialized=serialized)


def lifetime(path: str) -> dict[str, Any]:
    """Return the versions of an exported file and JAX's guarantee, ready for JSON."""
    with open(path, "rb") as file:
        version = re.search(rb"StableHLO_v([0-9.]+)", file.read())
    return {
        "jax": jax.__version__,
        "stablehlo": version[1].decode() if version else None,
        "guaranteed_in_newer_jax_months": NEWER_MONTHS,
        "guaranteed_in_older_jax_weeks": OLDER_WEEKS,
    }


def describe_lifetime(info: dict[str, Any]) -> str:
    """Return a text about the versions of JAX that load a file, from its :func:`lifetime`."""
    oldest = f", which JAX reads since {READ_SINCE}" if info["stablehlo"] == VERSION else ""
    return (
        f"Written by JAX {info['jax']} in StableHLO {info['stablehlo']}{oldest}. JAX guarantees"
        f" that versions load it that are up to {NEWER_MONTHS} months newer or {OLDER_WEEKS} weeks"
        " older than the writing one; export the run again before that ends."
    )
