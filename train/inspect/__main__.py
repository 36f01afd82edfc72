"""Inspect data: python -m train.inspect [--config RECIPE] [--workdir DIR] [--output DIR]."""

import argparse
import json
import os
import sys

from train.runtime.cli import (
    Parser,
    add_trust_flag,
    configure_jax,
    parse_step,
    resolve_workdir,
    run_command,
    split_overrides,
)
from train.runtime.errors import UsageError, note, print_line, warn
from train.runtime.files import check_writable, writing

CSV, PAGE, PROBABILITIES = "findings.csv", "inspection.html", "probabilities.npz"
_MIN_SECONDS = 1.0  # of parts whose duration is printed


def main() -> int:
    """Run the command and return its exit status."""
    parser = Parser(
        "train.inspect",
        description="Inspect the images and labels of a recipe or a run: class counts and sizes,"
        " unreadable and skipped files, copies and near copies, also across splits and with"
        " different labels, likely label errors, and outliers. Nothing is written into the data.",
    )
    parser.add_argument("--config", metavar="RECIPE", help="the name of a recipe, or its path")
    parser.add_argument(
        "--workdir", metavar="DIR", help="a run, whose data and features are used; not changed"
    )
    parser.add_argument(
        "--step", default="last", metavar="last|best|N", help="checkpoint of the run; default: last"
    )
    parser.add_argument("--splits", metavar="A,B", help="splits; default: those of the recipe")
    parser.add_argument(
        "--predictions",
        nargs="+",
        default=[],
        metavar="FILE.npz",
        help="out-of-fold predictions for label errors, of train.evaluate --predictions on the"
        " held-out part of each fold; default: a probe on the features",
    )
    parser.add_argument(
        "--output", metavar="DIR", help=f"folder of {CSV} and {PAGE}; default: runs/NAME_inspection"
    )
    add_trust_flag(parser)
    arguments, overrides = split_overrides(sys.argv[1:])
    return run(parser.parse_args(arguments), overrides)


def run(flags: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    """Inspect, after the command line was parsed."""
    if not (flags.config or flags.workdir):
        raise UsageError("give --config RECIPE, --workdir DIR, or both")
    step = parse_step(flags.step)
    config = _load_config(flags, overrides)
    workdir = flags.workdir or resolve_workdir(None, flags.config, config)
    output = os.path.abspath(flags.output or f"{workdir.rstrip('/')}_inspection")
    configure_jax(config)

    from train.data.class_names import check_classes
    from train.data.datasets import data_dir, open_source
    from train.data.hold_out import SingleImageError
    from train.data.preprocessing import make_preprocessing
    from train.data.splits import ALL, evaluation_split
    from train.inspect.inspection import inspect
    from train.runtime.formatting import format_duration
    from train.workdir.trained_run import load_trained_run

    dataset = config.dataset
    dataset.data_dir = data_dir(dataset)
    _check_output(output, dataset.data_dir)
    splits = [dataset.train_split, evaluation_split(dataset)]
    if flags.splits is not None:
        splits = [name.strip() for name in flags.splits.split(",") if name.strip()]
        if not splits:
            raise UsageError("--splits names no split; omit it for those of the recipe")
    try:
        sources = [open_source(dataset, name) for name in dict.fromkeys(splits)]
    except SingleImageError as error:
        sources = [open_source(dataset, ALL)]
        warn(f"no part is held out: {error}")
    if sources[0].label_kind == "mask":
        raise UsageError(
            f"train.inspect compares images of classes, and those of {dataset.name!r} have masks;"
            " train.plan names pairs, sizes and values that are wrong"
        )
    for other in sources[1:]:
        check_classes(sources[0], other)
    pixels, trained = make_preprocessing(dataset).pixels, None
    if flags.workdir:
        trained = load_trained_run(flags.workdir, step, None, 32, flags.trust_recipe)
        if trained.preprocessing.pixels != pixels:
            raise UsageError(
                f"the run has images of {trained.preprocessing.pixels}, the data of {pixels}"
            )

    def done(name: str, seconds: float) -> None:
        if seconds >= _MIN_SECONDS:
            print_line(f"{name}: {format_duration(seconds)}")

    inspection = inspect(sources, pixels, trained, flags.predictions, done)
    _report(inspection, output, f"Inspection of {dataset.name}", pixels)
    return 0


def _load_config(flags: argparse.Namespace, overrides: list[tuple[str, str]]):
    """Return the configuration of the recipe, or of the run without one, with the overrides."""
    from train.config import loading
    from train.config.access import set_key

    if flags.config:
        return loading.load_config(flags.config, overrides)
    from train.workdir.run_files import read_config
    from train.workdir.trained_run import use_recipe

    use_recipe(flags.workdir, flags.trust_recipe)
    config = read_config(flags.workdir)
    for name, text in overrides:
        set_key(config, name, loading.parse(name, text))
    return config


def _check_output(output: str, data_dir: str) -> None:
    """Raise an error if the output cannot be written, or would be in the data."""
    if os.path.exists(output) and not os.path.isdir(output):
        raise UsageError(f"--output must be a folder, but {output!r} is a file")
    if data_dir and "://" not in data_dir:
        data, place = os.path.realpath(data_dir), os.path.realpath(output)
        if os.path.commonpath([data, place]) == data:
            raise UsageError(
                f"{output!r} is in the folder of the data; choose another folder with --output"
            )
    check_writable(output, output)


def _report(inspection, output: str, title: str, pixels) -> None:
    """Write the files and print a summary; its last line is a JSON object."""
    import numpy as np

    from flax_resnet.files import make_atomically, write_atomically
    from train.inspect.findings_table import count_kinds, write_csv
    from train.inspect.page import page
    from train.runtime.array_files import save_arrays

    images = inspection.images
    with writing(output):
        os.makedirs(output, exist_ok=True)
        write_csv(os.path.join(output, CSV), inspection.rows)
        write_atomically(os.path.join(output, PAGE), page(inspection, title, pixels))
        if inspection.probabilities is not None:
            arrays = {
                "file": np.array([images.name(i) for i in range(len(images))]),
                "label": images.targets.astype(np.int32),
                "probabilities": inspection.probabilities,
                "class_names": np.array(images.sources[0].class_names),
            }
            path = os.path.join(output, PROBABILITIES)
            make_atomically(path, lambda temporary: save_arrays(temporary, arrays))
    for finding in inspection.findings:
        (warn if finding.is_warning else note)(finding.text)
    for text in inspection.notes:
        note(text)
    counts = count_kinds(inspection.rows)
    for kind, number in counts.items():
        print_line(f"{kind:20} {number:,}")
    print_line(f"written: {os.path.join(output, PAGE)}, {CSV}")
    print(json.dumps({"images": len(images), "findings": counts, "output": output}), flush=True)


if __name__ == "__main__":
    run_command(main)
