"""Command: ``python -m train.export --workdir DIR --format FORMAT --output FILE``."""

import logging
import os

from train.runtime.cli import (
    Parser,
    add_checkpoint_flags,
    parse_step,
    run_command,
)
from train.runtime.errors import UsageError, print_message
from train.workdir.trained_run import load_trained_run, read_kind

FORMATS = ("stablehlo", "onnx", "torchvision", "timm", "huggingface")


def main() -> int:
    """Run the command and return its exit status."""
    parser = Parser(
        "train.export",
        description="Export the network of a run for other programs. The exported file is loaded in"
        " a separate process and its outputs for real images are compared with the run's. A"
        " model card with loading instructions and a JSON file of the classes are written beside"
        " it.",
        epilog="stablehlo: from uint8 images to probabilities, or for segmentation to the logits of"
        " every pixel, on cpu, cuda and tpu; requires only jax and flatbuffers. onnx: the same for"
        " ONNX Runtime and other programs. The other formats are weights (.safetensors) with the"
        " parameter names of that library; transformers and timm load the folder of a file that is"
        " named model.safetensors, with the preprocessing of the run.",
    )
    add_checkpoint_flags(parser)
    parser.add_argument("--format", required=True, choices=FORMATS, help="file format")
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write")
    raw = "for onnx: logits of normalized images, without pre- and postprocessing"
    parser.add_argument("--raw", action="store_true", help=raw)
    int8 = "for onnx: quantize to int8, calibrated with images of the run's training split, and"
    int8 += " report the accuracy lost and the speed gained"
    parser.add_argument("--int8", action="store_true", help=int8)
    push = "also upload the export to this repository of the Hugging Face hub, created if needed"
    parser.add_argument("--push", metavar="OWNER/NAME", help=push)
    parser.add_argument("--private", action="store_true", help="create a private repository")
    flags = parser.parse_args()
    if flags.private and not flags.push:
        raise UsageError("--private is for the repository of --push")
    step = parse_step(flags.step)
    if flags.format != "onnx" and (flags.raw or flags.int8):
        raise UsageError(f"--raw and --int8 are for --format onnx, not {flags.format}")

    # On the CPU: nothing here needs an accelerator, and some have a lower precision.
    os.environ["JAX_PLATFORMS"] = "cpu"
    # export() reports itself which networks a library lacks.
    logging.getLogger("flax_resnet").setLevel(logging.ERROR)
    logging.getLogger("flax_resnet.calibration").setLevel(logging.WARNING)
    from train.export.exporting import export
    from train.export.hub import check_push, push
    from train.export.output import check_output
    from train.export.outputs import OUTPUTS
    from train.export.support import check_network

    check_output(flags.format, flags.output)
    kind = read_kind(flags.workdir)
    if flags.push:
        check_push(flags.push, flags.format, flags.output)
    run = load_trained_run(
        flags.workdir,
        step,
        flags.weights,
        batch_size=8,
        trust_recipe=flags.trust_recipe,
        kind=kind if kind in OUTPUTS else None,
    )
    check_network(run, flags.format, FORMATS)
    for line in export(run, flags.format, flags.output, flags.raw, flags.int8):
        print_message(line)
    if flags.push:
        for line in push(flags.push, flags.format, flags.output, flags.private):
            print_message(line)
    return 0


if __name__ == "__main__":
    run_command(main)
