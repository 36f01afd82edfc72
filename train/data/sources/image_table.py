"""Tables of images to classify, whose columns are joined to the predictions."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from train.data.sources.table_columns import IMAGE, choose_column
from train.data.sources.table_file import read_table
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import join_names

EXTENSIONS = (".csv", ".tsv", ".parquet")
_MAX_NAMED = 10


@dataclass(frozen=True)
class ImageTable:
    """A table with a row per image.

    Attributes:
      names: names of the columns.
      files: paths of the images, by row.
      columns: the texts of each column, by row.
    """

    names: tuple[str, ...]
    files: Sequence[str]
    columns: Mapping[str, Sequence[str]]

    def row(self, index: int) -> list[str]:
        """Return the fields of a row."""
        return [self.columns[name][index] for name in self.names]


def find_table(paths: Sequence[str]) -> str | None:
    """Return the path that is a table by its extension; None if there is none.

    Raises:
      UsageError: there are other paths as well.
    """
    tables = [p for p in paths if p.lower().endswith(EXTENSIONS) and not os.path.isdir(p)]
    if tables and len(paths) > 1:
        raise UsageError(
            f"{tables[0]!r} is a table of images, which must be the only argument, but there are"
            f" {len(paths)}"
        )
    return tables[0] if tables else None


def read_image_table(path: str, folder: str, image_key: str, delimiter: str) -> ImageTable:
    """Read all columns of a table.

    Args:
      path: a CSV or Parquet file.
      folder: folder to which the paths of the images are relative; "": that of the table.
      image_key: column of the images; "": detected.
      delimiter: as for ``read_table``.

    Raises:
      UsageError: there is no column of images, or several columns have the same name.
      RunError: the table cannot be read, has no rows, or rows with another number of fields.
    """
    image = ""

    def choose(names: Sequence[str]) -> dict[str, str]:
        nonlocal image
        image = choose_column(names, IMAGE, image_key, path, "--")
        return {name: name for name in names}

    table = read_table(path, delimiter, choose, "--")
    if table.uneven:
        lines = join_names([f"{line:,}" for line, _ in table.uneven], _MAX_NAMED)
        raise RunError(
            f"{path!r} has rows with another number of fields than its {len(table.names)} columns,"
            f" in line {lines}"
        )
    if not len(table):
        raise RunError(f"{path!r} has no rows")
    folder = folder or os.path.dirname(path)
    files = [os.path.join(folder, file) for file in table.columns[image]]
    return ImageTable(table.names, files, table.columns)
