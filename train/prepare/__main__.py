"""python -m train.prepare --dataset NAME [--data_dir DIR] [--manual_dir DIR] [--resize N]"""

from __future__ import annotations

import os
import warnings

from train.runtime.cli import Parser, run_command
from train.runtime.errors import UsageError


def main() -> int:
    parser = Parser(
        prog="python -m train.prepare",
        description="Downloads and prepares a TFDS data set, once, so that training can read it"
        " without TensorFlow. What is there already is left as it is.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dataset", required=True, metavar="NAME", help="as TFDS has it: imagenet2012, cifar10, …"
    )
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help="where data sets are kept; default: TFDS_DATA_DIR or ~/tensorflow_datasets",
    )
    parser.add_argument(
        "--manual_dir",
        metavar="DIR",
        help="folder with archives that cannot be downloaded by a program, such as ImageNet's",
    )
    parser.add_argument(
        "--any_size",
        action="store_true",
        help="accept archives of another size than the published one, such as a subset",
    )
    parser.add_argument(
        "--resize",
        type=int,
        metavar="N",
        help="also write NAME_N: the same, larger images at a shorter side of N (400 suits"
        " training at 224), which decode faster",
    )
    flags = parser.parse_args()
    name = flags.dataset.removeprefix("tfds:")
    if name in ("", "digits", "folder"):
        raise UsageError(f"--dataset={flags.dataset} is nothing to prepare; name one of TFDS's")
    if flags.resize is not None and not 16 <= flags.resize <= 8192:
        raise UsageError(f"--resize must be from 16 to 8192 pixels, not {flags.resize}")

    # TensorFlow is not to take a GPU, nor to talk about what it was built with.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    warnings.simplefilter("ignore")

    from train.data.tfds_source import resolve_data_dir
    from train.prepare.preparation import prepare
    from train.prepare.resized import resize

    folder = resolve_data_dir(flags.data_dir)
    manual_dir = flags.manual_dir and os.path.abspath(os.path.expanduser(flags.manual_dir))
    builder = prepare(name, folder, manual_dir, flags.any_size)
    if flags.resize is not None:
        builder = resize(builder, folder, flags.resize)
    print(
        f"train on it with: --config.dataset.name=tfds:{builder.info.full_name.rpartition('/')[0]}"
        f" --config.dataset.data_dir={folder}",
        flush=True,
    )
    return 0


if __name__ == "__main__":
    run_command(main)
