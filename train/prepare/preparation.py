"""Preparation of TFDS data sets, the only part that requires TensorFlow."""

import contextlib
import importlib.util
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator

import requests
import tensorflow_datasets as tfds

from flax_resnet.text import error_reason
from train.data.sources.tfds_source import find_builder, incomplete, open_builder
from train.prepare import staging
from train.prepare.archives import ARCHIVES, check_archives
from train.runtime.errors import RunError, print_line
from train.runtime.files import directory_size
from train.runtime.formatting import format_bytes

PROGRESS_SECONDS = 60  # between progress lines without a terminal
TENSORFLOW_REQUIRED = (
    "preparing a TFDS data set requires TensorFlow (training does not):"
    " pip install 'flax-resnet[prepare]', or in a checkout: pip install -e '.[prepare]'"
)


def prepare(
    name: str, folder: str, manual_dir: str | None = None, any_size: bool = False
) -> tfds.core.DatasetBuilder:
    """Download and prepare the TFDS data set ``name`` as ArrayRecord, unless it already exists.

    Args:
      name: name in TFDS, such as ``imagenette/160px-v2``.
      folder: directory of data sets, or a bucket.
      manual_dir: folder with the archives that must be downloaded by hand; by default
        ``downloads/manual`` in ``folder``.
      any_size: accept archives whose size differs from the published one.

    Returns:
      The builder of the prepared data set.

    Raises:
      UsageError: there is no such data set.
      RunError: TensorFlow, an archive or disk space is missing (before anything is written), or
        the preparation failed.
    """
    try:
        builder = find_builder(name, folder)
    except RunError:
        _require_tensorflow()  # the most frequent missing dependency of a data set's code
        raise
    if builder.is_prepared():
        print_line(f"{describe(builder)}: nothing to prepare")
        return builder
    if reason := incomplete(builder, folder):
        raise RunError(reason)
    _require_tensorflow()
    downloads = os.path.join(folder, "downloads")
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        manual_dir = manual_dir or os.path.join(downloads, "manual")
    archives = check_archives(builder.name, manual_dir, any_size) if manual_dir else 0
    started = time.monotonic()
    if "://" in folder:
        _build(name, folder, downloads, manual_dir)
    else:
        staging.report_unfinished(os.path.dirname(builder.data_path))
        needed = _needed_bytes(builder, archives)
        with staging.staging_dir(folder, name, needed) as staged, _progress_lines(staged):
            _publish(_build(name, staged, downloads, manual_dir), builder)
    builder = open_builder(name, folder)
    minutes = (time.monotonic() - started) / 60
    print_line(f"{describe(builder)}: prepared in {minutes:.1f} min")
    return builder


def describe(builder: tfds.core.DatasetBuilder) -> str:
    """Return a one-line description of a prepared data set."""
    splits = ", ".join(f"{s.num_examples:,} {n}" for n, s in builder.info.splits.items())
    size = format_bytes(builder.info.dataset_size)
    return f"{builder.info.full_name} ({splits} images, {size}) in {builder.data_path}"


def _require_tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise RunError(TENSORFLOW_REQUIRED)


def _needed_bytes(builder: tfds.core.DatasetBuilder, archives: int) -> int:
    """Return the bytes of the download and the data set, as far as TFDS knows them; 0: unknown.

    TFDS also keeps records in temporary files while it shuffles them, but deletes those as the
    data set grows.
    """
    if builder.info.dataset_size:
        return int(builder.info.dataset_size) + (0 if archives else int(builder.info.download_size))
    if builder.name in ARCHIVES:
        return archives
    if builder.BUILDER_CONFIGS:  # the list of downloads covers all configurations
        return 0
    download = sum(info.size or 0 for info in builder.url_infos.values())
    return 2 * download  # the data set is about as large as its sources


def _build(
    name: str, folder: str, downloads: str, manual_dir: str | None
) -> tfds.core.DatasetBuilder:
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    if sys.stderr.isatty():
        tfds.enable_progress_bar()
    else:
        tfds.disable_progress_bar()
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # one warning for each of ten attempts
    builder = find_builder(name, folder)
    print_line(f"preparing {name}…")
    try:
        with contextlib.redirect_stdout(None):  # TFDS's banners
            builder.download_and_prepare(
                download_dir=downloads, download_config=config, file_format="array_record"
            )
        return builder
    except Exception as error:  # anything that a data set's code or its server may raise
        raise RunError(_failure(name, builder, downloads, error)) from error


def _failure(name: str, builder: tfds.core.DatasetBuilder, downloads: str, error: Exception) -> str:
    """Return an error message with advice for a failed preparation."""
    reason = f"{type(error).__name__}: {error_reason(error, 300)}"
    if isinstance(error, ImportError) and error.name:
        return f"preparing {name} requires {error.name}; install it with pip ({reason})"
    if isinstance(error, tfds.download.DownloadError | requests.exceptions.RequestException):
        files = [f"{url} as {info.filename}" for url, info in builder.url_infos.items()]
        listed = f": {', '.join(files)}" if len(files) <= 4 else ""
        return (
            f"cannot download {name}; try again, or download the files by other means and pass"
            f" their folder as --manual_dir{listed} ({reason})"
        )
    if "checksum" in type(error).__name__.lower():
        return (
            f"checksum mismatch in a file of {name}; delete the file in {downloads!r} or in the"
            f" manual folder and try again ({reason})"
        )
    return f"cannot prepare {name}: {reason}"


def _publish(built: tfds.core.DatasetBuilder, target: tfds.core.DatasetBuilder) -> None:
    if not staging.publish(os.fspath(built.data_path), os.fspath(target.data_path)):
        print("another process finished first; its data set is kept", flush=True)
    # The file that names the default configuration, if there are several.
    source = os.path.join(os.path.dirname(built.data_path.parent), ".config")
    destination = os.path.join(os.path.dirname(target.data_path.parent), ".config")
    if built.BUILDER_CONFIGS and os.path.isdir(source) and not os.path.exists(destination):
        shutil.move(source, destination)


@contextlib.contextmanager
def _progress_lines(folder: str) -> Iterator[None]:
    """Print the size of ``folder`` every minute if there is no terminal for a progress bar."""
    ended = threading.Event()

    def report() -> None:
        started = time.monotonic()
        while not ended.wait(PROGRESS_SECONDS):
            minutes = (time.monotonic() - started) / 60
            size = format_bytes(directory_size(folder))
            print(f"… {minutes:.0f} min, {size} written", flush=True)

    thread = threading.Thread(target=report, daemon=True)
    if not sys.stderr.isatty():
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()
