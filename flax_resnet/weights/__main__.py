"""Looks into weight files and converts them: ``python -m flax_resnet.weights --help``.

Exit status: 0 done; 1 an error, told in one line; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from flax_resnet.program import program
from flax_resnet.variants import create_model
from flax_resnet.weights.files import read_file
from flax_resnet.weights.loading import count_classes, guess_models, read_weights
from flax_resnet.weights.names import SAVED, recognise
from flax_resnet.weights.saving import save_variables
from flax_resnet.weights.tensors import WeightsError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit status."""
    parser = argparse.ArgumentParser(prog=program("weights"), description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="inspect|convert")
    look = commands.add_parser("inspect", help="what a weight file holds, and for which network")
    look.add_argument("file", metavar="FILE", help="a weight file or checkpoint directory")
    look.add_argument("--tensors", action="store_true", help="list every tensor")
    turn = commands.add_parser("convert", help="write weights under another library's names")
    turn.add_argument("source", metavar="IN", help="a weight file or checkpoint directory")
    turn.add_argument("target", metavar="OUT", help="the .safetensors file to write")
    turn.add_argument("--layout", choices=SAVED, required=True, help="whose names to write")
    turn.add_argument("--model", metavar="NAME", help="the network, where it cannot be told")
    args = parser.parse_args(argv)
    try:
        if args.command == "inspect":
            inspect(args.file, args.tensors)
        else:
            convert(args.source, args.target, args.layout, args.model)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def inspect(path: str, list_tensors: bool = False) -> None:
    """Prints a file's format, layout, network, classes, size, and on request its tensors."""
    file = read_file(path)
    found = recognise(file.tensors)
    values = sum(math.prod(tensor.shape) for tensor in file.tensors.values())
    types = sorted({str(tensor.dtype) for tensor in file.tensors.values()})
    rows = {
        "file": path,
        "format": file.format,
        "tensors": f"{len(file.tensors):,} with {values:,} values of {', '.join(types)}",
        "layout": "not recognised",
    }
    if found:
        fitting = guess_models(file, found)
        rows["layout"] = found.name
        rows["blocks"] = "-".join(map(str, found.stage_sizes))
        rows["network"] = " or ".join(fitting) or "none that has a name here"
        if fitting:
            classes = count_classes(create_model(fitting[0]), file, found)
            rows["classes"] = "no head" if classes is None else f"{classes:,}"
    rows |= {f"({key})": value for key, value in file.metadata.items()}
    for key, value in rows.items():
        print(f"{key:<9} {value}")
    for note in file.notes:
        print(f"{'note':<9} {note}")
    for name, tensor in file.tensors.items() if list_tensors else ():
        print(f"  {name}  {'×'.join(map(str, tensor.shape)) or 'scalar'}  {tensor.dtype}")


def convert(source: str, target: str, layout: str, model: str | None = None) -> None:
    """Reads ``source`` and writes it to ``target`` in ``layout``; prints what became of it."""
    model = model or _only_model(source)
    variables, report = read_weights(model, source)
    head = variables["params"].get("head")
    classes = 0 if head is None else head["bias"].shape[0]
    save_variables(variables, target, create_model(model, num_classes=classes), layout)
    print(report)
    print(f"wrote {target}: {model}, {classes:,} classes, {layout} names")


def _only_model(source: str) -> str:
    file = read_file(source)
    found = recognise(file.tensors)
    fitting = guess_models(file, found) if found else []
    if file.metadata.get("model") in fitting:
        return file.metadata["model"]
    if len(fitting) != 1:
        names = " or ".join(fitting) or "no named network"
        raise WeightsError(f"{source} fits {names}; tell which with --model NAME")
    return fitting[0]


if __name__ == "__main__":
    sys.exit(main())
