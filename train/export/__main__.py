"""python -m train.export --workdir DIR --format FORMAT --output FILE [--step] [--weights]"""

from __future__ import annotations

import logging
import os

from train.runtime.cli import (
    Parser,
    add_checkpoint_flags,
    load_trained_run,
    parse_step,
    run_command,
)

FORMATS = ("stablehlo", "torchvision", "timm", "huggingface")


def main() -> int:
    parser = Parser(
        "train.export",
        description="Writes a run's network as a file that other programs load, loads it again in"
        " a process of its own, and compares the answers to real images. A model card that says"
        " how to load it, and a JSON file with the classes, go beside it.",
        epilog="stablehlo runs with jax alone, on cpu, cuda and tpu, from uint8 images to"
        " probabilities; the others are weights (.safetensors) under the names of that library.",
    )
    add_checkpoint_flags(parser)
    parser.add_argument("--format", required=True, choices=FORMATS, help="what to write")
    parser.add_argument("--output", required=True, metavar="FILE", help="where to write it")
    flags = parser.parse_args()
    step = parse_step(flags.step)

    # Nothing here is worth an accelerator, and some of these round to fewer digits.
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Which networks a library has is told by export itself.
    logging.getLogger("flax_resnet").setLevel(logging.ERROR)
    from train.export.exporting import check_output, export

    check_output(flags.format, flags.output)
    run = load_trained_run(flags.workdir, step, flags.weights, batch_size=8)
    for line in export(run, flags.format, flags.output):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
