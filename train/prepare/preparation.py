"""Preparing TFDS's own data sets, for which TFDS needs TensorFlow. Nothing else does."""

from __future__ import annotations

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

from train.data.tfds_source import find_builder, incomplete, open_builder
from train.prepare import staging
from train.prepare.archives import ARCHIVES, check_archives
from train.runtime.errors import RunError

HEARTBEAT = 60  # seconds between signs of life where there is no terminal for a bar
GIVE_TENSORFLOW = (
    "preparing TFDS's own data sets takes TensorFlow, which training does not need:"
    " pip install 'flax-resnet[prepare]', or in a checkout: pip install -e '.[prepare]'"
)


def prepare(
    name: str, folder: str, manual_dir: str | None = None, any_size: bool = False
) -> tfds.core.DatasetBuilder:
    """Downloads and prepares the TFDS data set ``name`` as ArrayRecord, unless it is there.

    Args:
      name: as TFDS has it, such as ``imagenette/160px-v2``.
      folder: where data sets are kept, or a bucket.
      manual_dir: folder with the archives that people have to fetch themselves; by default
        ``downloads/manual`` in ``folder``.
      any_size: accept such archives of another size than the published one.

    Returns the prepared data set's builder. Raises UsageError for a name that there is not and
    RunError, before anything is written, where TensorFlow, an archive or room is missing.
    """
    try:
        builder = find_builder(name, folder)
    except RunError:
        _require_tensorflow()  # which is what the data set's code lacks most often
        raise
    if builder.is_prepared():
        print(f"{describe(builder)}: nothing to prepare", flush=True)
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
        _run(name, folder, downloads, manual_dir)
    else:
        staging.report_unfinished(os.path.dirname(builder.data_path))
        needed = _space(builder, archives)
        with staging.staging(folder, name, needed) as staged, _signs_of_life(staged):
            _publish(_run(name, staged, downloads, manual_dir), builder)
    builder = open_builder(name, folder)
    minutes = (time.monotonic() - started) / 60
    print(f"{describe(builder)}: prepared in {minutes:.1f} min", flush=True)
    return builder


def describe(builder: tfds.core.DatasetBuilder) -> str:
    """A line about a prepared data set."""
    splits = ", ".join(f"{s.num_examples:,} {n}" for n, s in builder.info.splits.items())
    held = staging.size(builder.info.dataset_size)
    return f"{builder.info.full_name} ({splits} images, {held}) in {builder.data_path}"


def _require_tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise RunError(GIVE_TENSORFLOW)


def _space(builder: tfds.core.DatasetBuilder, archives: int) -> int:
    """Bytes that preparing will take, as far as TFDS knows: the download and the data set.

    Records are kept once more in temporary files while TFDS shuffles them, but those go as
    the data set grows.
    """
    if builder.info.dataset_size:
        return int(builder.info.dataset_size) + (0 if archives else int(builder.info.download_size))
    if builder.name in ARCHIVES:
        return archives
    if builder.BUILDER_CONFIGS:  # the list of downloads is that of all configurations
        return 0
    download = sum(info.size or 0 for info in builder.url_infos.values())
    return 2 * download  # the data set is about as large as what it is made of


def _run(
    name: str, folder: str, downloads: str, manual_dir: str | None
) -> tfds.core.DatasetBuilder:
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    if sys.stderr.isatty():
        tfds.enable_progress_bar()
    else:
        tfds.disable_progress_bar()
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # each of ten attempts is a warning
    builder = find_builder(name, folder)
    print(f"preparing {name}…", flush=True)
    try:
        with contextlib.redirect_stdout(None):  # TFDS's banners
            builder.download_and_prepare(
                download_dir=downloads, download_config=config, file_format="array_record"
            )
        return builder
    except Exception as error:  # whatever a data set's code and its server can do
        raise RunError(_what_failed(name, builder, downloads, error)) from error


def _what_failed(
    name: str, builder: tfds.core.DatasetBuilder, downloads: str, error: Exception
) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if isinstance(error, ImportError) and error.name:
        return f"preparing {name} needs {error.name}: pip install it ({reason})"
    if isinstance(error, tfds.download.DownloadError | requests.exceptions.RequestException):
        files = [f"{url} as {info.filename}" for url, info in builder.url_infos.items()]
        by_hand = f": {', '.join(files)}" if len(files) <= 4 else ""
        return (
            f"cannot download {name}; try again, or fetch it by other means and name the folder"
            f" with --manual_dir{by_hand} ({reason})"
        )
    if "checksum" in type(error).__name__.lower():
        return (
            f"a file of {name} is not the published one; delete it in {downloads!r} or in the"
            f" manual folder and try again ({reason})"
        )
    return f"cannot prepare {name}: {reason}"


def _publish(built: tfds.core.DatasetBuilder, target: tfds.core.DatasetBuilder) -> None:
    if not staging.publish(os.fspath(built.data_path), os.fspath(target.data_path)):
        print("another process was first; its data set is kept", flush=True)
    # Which configuration is the default, of data sets that have several.
    notes = os.path.join(os.path.dirname(built.data_path.parent), ".config")
    place = os.path.join(os.path.dirname(target.data_path.parent), ".config")
    if built.BUILDER_CONFIGS and os.path.isdir(notes) and not os.path.exists(place):
        shutil.move(notes, place)


@contextlib.contextmanager
def _signs_of_life(folder: str) -> Iterator[None]:
    """Tells every minute how much was written, where there is no terminal for a bar."""
    ended = threading.Event()

    def tell() -> None:
        started = time.monotonic()
        while not ended.wait(HEARTBEAT):
            minutes = (time.monotonic() - started) / 60
            held = staging.size(staging.size_of(folder))
            print(f"… {minutes:.0f} min, {held} written", flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    if not sys.stderr.isatty():
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()
