"""Inspect and convert weight files.

Exit status: 0 on success, 1 on an error (printed as one line), 2 on wrong usage.
"""

import math
import sys
from collections.abc import Sequence

from flax_resnet.program import OneLineParser, prepare_streams, program
from flax_resnet.text import one_line, truncate

# The keys of naming.layouts.SAVED. JAX is imported late, since it takes a second.
LAYOUTS = ("torchvision", "timm", "huggingface", "flax")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = OneLineParser(prog=program("weights"), description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="inspect|convert")
    command = commands.add_parser("inspect", help="print the content and the network of a file")
    command.add_argument("source", metavar="FILE", help="a weight file or checkpoint directory")
    command.add_argument("--tensors", action="store_true", help="list all tensors")
    command = commands.add_parser("convert", help="write weights under another library's names")
    command.add_argument("source", metavar="IN", help="a weight file or checkpoint directory")
    command.add_argument("target", metavar="OUT", help="the .safetensors file to write")
    command.add_argument(
        "--layout", choices=LAYOUTS, required=True, help="the library of the names"
    )
    command.add_argument("--model", metavar="NAME", help="the network; required if several fit")
    args = parser.parse_args(argv)
    try:
        if args.command == "inspect":
            inspect(args.source, args.tensors)
        else:
            convert(args.source, args.target, args.layout, args.model)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


def inspect(path: str, list_tensors: bool = False) -> None:
    """Print a file's format, layout, network, classes and size, and optionally its tensors."""
    from flax_resnet.variants import create_model
    from flax_resnet.weights import loading
    from flax_resnet.weights.formats.files import read_file
    from flax_resnet.weights.published.source_preprocessing import find_preprocessing, format_value

    file = read_file(path)
    network, detected = loading.read_network(path)
    values = sum(math.prod(tensor.shape) for tensor in file.tensors.values())
    types = sorted({str(tensor.dtype) for tensor in file.tensors.values()})
    rows = {
        "file": path,
        "format": file.format,
        "tensors": f"{len(file.tensors):,} with {values:,} values of {', '.join(types)}",
        "layout": "not recognized",
    }
    notes = list(network.notes)
    if detected:
        fitting = loading.guess_models(network, detected)
        rows["layout"] = detected.name
        rows["blocks"] = "-".join(map(str, detected.stage_sizes))
        rows["network"] = " or ".join(fitting) or "not a named model"
        if fitting:
            notes += filter(None, [loading.twins_note(network, name) for name in fitting])
            classes = loading.count_classes(create_model(fitting[0]), network, detected)
            rows["classes"] = "no head" if classes is None else f"{classes:,}"
    if (found := find_preprocessing(path)) is not None:
        values = [f"{name} {format_value(value)}" for name, value in found.values().items()]
        rows["images"] = f"{', '.join(values) or 'unknown'} ({found.source})"
    rows |= {f"({key})": value for key, value in file.metadata.items()}
    for key, value in rows.items():
        print(f"{truncate(key, 40):<9} {truncate(value, 400)}")
    for note in (*notes, *(found.notes if found else ())):
        print(f"{'note':<9} {truncate(note, 400)}")
    for name, tensor in file.tensors.items() if list_tensors else ():
        print(f"  {one_line(name)}  {'×'.join(map(str, tensor.shape)) or 'scalar'}  {tensor.dtype}")


def convert(source: str, target: str, layout: str, model: str | None = None) -> None:
    """Read ``source``, write it to ``target`` in ``layout`` and print the report."""
    from flax_resnet.weights import loading
    from flax_resnet.weights.leaves import flatten, network_of_leaves
    from flax_resnet.weights.saving import save_weights

    model = model or loading.only_model(source)
    variables, report = loading.read_weights(model, source)
    network = network_of_leaves(model, flatten(variables))
    if "head" not in variables["params"]:
        network = network.clone(num_classes=0)
    classes = network.num_classes
    save_weights(network, variables, target, layout=layout)
    print(report)
    print(f"wrote {one_line(target)}: {model}, {classes:,} classes, {layout} names")


if __name__ == "__main__":
    prepare_streams()
    sys.exit(main())
