"""The installed command: ``flax-resnet COMMAND …`` runs the module of that command.

Modules are imported by name and only when they run, so that ``flax-resnet --help`` is instant.
"""

import difflib
import importlib
import sys

from train.runtime.cli import PROGRAM, run_command
from train.runtime.errors import UsageError

COMMANDS = {
    "train": ("train.main", "train a recipe, or resume a run"),
    "evaluate": ("train.evaluate", "evaluate a run: accuracy, calibration, confusion matrix"),
    "predict": ("train.predict.__main__", "classify images, or their pixels, with a run"),
    "plan": ("train.plan.__main__", "estimate memory and time of a run before it starts"),
    "inspect": ("train.inspect.__main__", "find copies, label errors and outliers in data"),
    "compare": ("train.compare.__main__", "compare runs side by side"),
    "sweep": ("train.sweep.__main__", "train with several values of keys and seeds, or search"),
    "export": ("train.export.__main__", "export a run: StableHLO, torchvision, timm, Hugging Face"),
    "prepare": ("train.prepare.__main__", "download and prepare a TFDS data set"),
    "statistics": ("train.statistics", "compute the mean and deviation of training images"),
    "weights": ("flax_resnet.weights.__main__", "inspect and convert weight files"),
    "summary": ("flax_resnet.summary", "print the stages, parameters and FLOPs of a model"),
}


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit with its status."""
    run_command(_command)


def _command() -> int | None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        from flax_resnet import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(COMMANDS)}"
        raise UsageError(f"{PROGRAM} has no command {name!r}; {hint}")
    sys.argv = [f"{PROGRAM} {name}", *sys.argv[2:]]
    return importlib.import_module(COMMANDS[name][0]).main()


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {meaning}" for name, (_, meaning) in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND …",
            "",
            "ResNets in JAX and Flax: train, evaluate and export from one config file.",
            "",
            "commands:",
            *lines,
            "",
            f"{PROGRAM} COMMAND --help explains a command, {PROGRAM} --version prints the version.",
        ]
    )
