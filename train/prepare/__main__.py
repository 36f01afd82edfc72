"""Command: ``python -m train.prepare --dataset NAME [--data_dir DIR] [--manual_dir DIR]``."""

import os
import warnings

from train.runtime.cli import Parser, run_command
from train.runtime.errors import UsageError, print_line


def main() -> int:
    """Run the command and return its exit status."""
    parser = Parser(
        "train.prepare",
        description="Download and prepare a TFDS data set once, so that training can read it"
        " without TensorFlow. A data set that is already prepared is not changed.",
    )
    parser.add_argument(
        "--dataset", required=True, metavar="NAME", help="name in TFDS: imagenet2012, cifar10, …"
    )
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help="directory of data sets; default: TFDS_DATA_DIR or ~/tensorflow_datasets",
    )
    parser.add_argument(
        "--manual_dir",
        metavar="DIR",
        help="folder with archives that must be downloaded by hand, such as ImageNet's",
    )
    parser.add_argument(
        "--any_size",
        action="store_true",
        help="accept archives whose size differs from the published one, such as a subset",
    )
    parser.add_argument(
        "--resize",
        type=int,
        metavar="N",
        help="also write NAME_N, a copy with larger images resized to a shorter side of N pixels,"
        " which decodes faster (400 suits training at 224)",
    )
    flags = parser.parse_args()
    name = flags.dataset.removeprefix("tfds:")
    if name in ("", "digits", "folder"):
        raise UsageError(f"--dataset={flags.dataset} needs no preparation; name a TFDS data set")
    if flags.resize is not None and not 16 <= flags.resize <= 8192:
        raise UsageError(f"--resize must be from 16 to 8192 pixels, not {flags.resize}")

    # Keep TensorFlow off the GPU and silence its notices about the build.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    warnings.simplefilter("ignore")

    from train.data.datasets import resolve_data_dir
    from train.prepare.preparation import prepare
    from train.prepare.resized import resize_dataset

    folder = resolve_data_dir(flags.data_dir)
    manual_dir = flags.manual_dir and os.path.abspath(os.path.expanduser(flags.manual_dir))
    builder = prepare(name, folder, manual_dir, flags.any_size)
    if flags.resize is not None:
        builder = resize_dataset(builder, folder, flags.resize)
    print_line(
        f"to train on it: --config.dataset.name=tfds:{builder.info.full_name.rpartition('/')[0]}"
        f" --config.dataset.data_dir={folder}"
    )
    return 0


if __name__ == "__main__":
    run_command(main)
