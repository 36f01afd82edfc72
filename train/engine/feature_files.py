"""Files of pooled features of images, ``.npz`` or ``.parquet``.

Besides ``file``, names of the images, and ``features``, float32 ``(N, D)``, they have ``network``,
a text that differs between checkpoints (in a Parquet file it is metadata of the schema), and
columns with more about the images, such as ``label``.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flax_resnet.calibration import checkpoint_fingerprint
from flax_resnet.files import make_atomically
from flax_resnet.runs import Run
from flax_resnet.text import error_reason
from train.data.label_sets import join_classes
from train.data.source import DataSource
from train.data.sources.table_file import import_pyarrow
from train.runtime.array_files import read_arrays, save_arrays
from train.runtime.errors import RunError, UsageError
from train.runtime.files import writing
from train.tasks.predictions import Predictions

ENDINGS = (".npz", ".parquet")
_RESERVED = ("file", "features", "network", "class_names")


@dataclass(frozen=True)
class Features:
    """Features of N images.

    Attributes:
      files: names of the images.
      features: float32 ``(N, D)``.
      network: identifies the weights that computed them; "" if that is not known.
      columns: more about the images, arrays with N rows.
      class_names: of the numbers in the column ``label``, if there are any.
    """

    files: Sequence[str]
    features: np.ndarray
    network: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)
    class_names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.files)


def network_identity(workdir: str, step: int, weights: str) -> str:
    """Return a text that differs between checkpoints; "" for one without a manifest."""
    fingerprint = checkpoint_fingerprint(workdir, step)
    return f"{fingerprint}-{weights}" if fingerprint else ""


def features_of_split(predictions: Predictions, source: DataSource, network: str) -> Features:
    """Return the features of an evaluation's images with their labels."""
    files = [source.record_name(int(record)) for record in predictions.record]
    columns = {"label": predictions.label}
    return Features(files, predictions.features, network, columns, source.class_names)


def check_features_path(path: str, flag: str = "--features") -> None:
    """Raise UsageError or RunError unless features can be stored in such a file."""
    if not path.endswith(ENDINGS):
        raise UsageError(f"{flag} must name a .npz or .parquet file, not {path!r}")
    if os.path.isdir(path):
        raise UsageError(f"{flag} must name a file, but {path!r} is a folder")
    if path.endswith(".parquet"):
        import_pyarrow()


def check_network(features: Features, path: str, run: Run) -> None:
    """Raise UsageError if the features of the file ``path`` are of another network."""
    network = network_identity(run.path, run.step, run.weights)
    width = run.features([]).shape[1]
    if features.features.shape[1] != width:
        raise UsageError(
            f"{path!r} has {features.features.shape[1]:,} features of each image, but the network"
            f" of {run.path!r} has {width:,}"
        )
    if features.network and network and features.network != network:
        raise UsageError(
            f"{path!r} has features of another checkpoint than step {run.step:,} ({run.weights}"
            f" weights) of {run.path!r}; write it again with --features, or choose --step and"
            " --weights"
        )


def write_features(path: str, features: Features) -> None:
    """Write features to a file, which replaces an earlier one.

    A label is a number in ``.npz`` (zeros and ones ``(K,)`` if images have any number of classes),
    with ``class_names`` beside it, and in ``.parquet`` a name (names joined by ``|``).

    Raises:
      RunError: the file cannot be written.
    """
    columns = {
        f"table_{name}" if name in _RESERVED else name: column
        for name, column in features.columns.items()
    }
    write = _write_parquet if path.endswith(".parquet") else _write_npz
    with writing(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        make_atomically(path, lambda temporary: write(temporary, features, columns))


def read_features(path: str, flag: str) -> Features:
    """Return the files and features that ``train.predict`` or ``train.evaluate`` wrote.

    Raises:
      RunError: the file cannot be read.
      UsageError: it does not hold features.
    """
    check_features_path(path, flag)
    read = _read_parquet if path.endswith(".parquet") else _read_npz
    files, features, network = read(path)
    numeric = features.ndim == 2 and features.dtype.kind == "f" and features.size
    if not numeric or len(files) != len(features) or not all(isinstance(f, str) for f in files):
        raise UsageError(f"{path!r} must have a name and a row of features for each file")
    with np.errstate(over="ignore"):
        features = features.astype(np.float32)
    if not np.isfinite(features).all():
        raise UsageError(f"{path!r} must have finite features, as float32")
    return Features(list(files), features, network)


def _write_npz(path: str, features: Features, columns: Mapping[str, Any]) -> None:
    arrays = {"file": np.array(features.files), "features": features.features}
    arrays |= {name: np.asarray(column) for name, column in columns.items()}
    if features.class_names:
        arrays["class_names"] = np.array(features.class_names)
    save_arrays(path, arrays | {"network": np.array(features.network)})


def _read_npz(path: str) -> tuple[Sequence[str], np.ndarray, str]:
    arrays = read_arrays(path, ("file", "features"), "--features FILE.npz")
    network = arrays.get("network", np.array(""))
    return arrays["file"].ravel().tolist(), arrays["features"], str(network)


def _write_parquet(path: str, features: Features, columns: Mapping[str, Any]) -> None:
    pyarrow = import_pyarrow()
    values = pyarrow.array(features.features.ravel())
    width = features.features.shape[1]
    texts = {"file": features.files}
    texts |= {name: _texts(column, features) for name, column in columns.items()}
    data = {name: pyarrow.array(map(_utf8, column)) for name, column in texts.items()}
    data["features"] = pyarrow.FixedSizeListArray.from_arrays(values, width)
    table = pyarrow.table(data).replace_schema_metadata({"network": features.network})
    pyarrow.parquet.write_table(table, path)


def _texts(column: Any, features: Features) -> list[str]:
    """Return a column as text, with the names of labels."""
    names = features.class_names
    if not names:
        return list(column)
    if np.ndim(column) == 2:
        return [join_classes(row, names) for row in column]
    return [names[label] for label in column]


def _utf8(text: str) -> str:
    """Return text without surrogates, which stand for bytes of file names that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _read_parquet(path: str) -> tuple[Sequence[str], np.ndarray, str]:
    pyarrow = import_pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if lacking := [name for name in ("file", "features") if name not in names]:
                raise UsageError(
                    f"{path!r} must have the columns 'file' and 'features'; it has no"
                    f" {lacking[0]!r}"
                )
            table = file.read(columns=["file", "features"])
            network = (file.schema_arrow.metadata or {}).get(b"network", b"").decode()
        files = table.column("file").cast(pyarrow.string()).to_pylist()
        features = np.array(table.column("features").to_pylist(), np.float32)
    except (OSError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise RunError(f"cannot read {path!r}: {error_reason(error)}") from error
    return files, features, network
