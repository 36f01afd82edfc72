"""Data to evaluate a run on, other than its own evaluation split."""

from dataclasses import dataclass

from train.config.keys import DATA_KEYS, KEYS
from train.data.datasets import has_splits
from train.data.splits import ALL, evaluation_split
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError


@dataclass(frozen=True)
class OtherData:
    """Data to evaluate on instead of the run's evaluation split; '' means the run's own.

    Attributes:
      split: name of a split.
      dataset: a value of ``config.dataset.name``.
      data_dir: a value of ``config.dataset.data_dir``.
      labels: a value of ``config.dataset.labels``.
    """

    split: str = ""
    dataset: str = ""
    data_dir: str = ""
    labels: str = ""

    def apply(self, dataset: ConfigDict, separator: str = "") -> str:
        """Change ``config.dataset`` accordingly, and return the split.

        Args:
          dataset: ``config.dataset``.
          separator: ``label_separator`` of another table.
        """
        name = self.dataset or ("table" if self.labels else "")
        if name and name != dataset.name:
            dataset.update({key: KEYS[f"dataset.{key}"].default for key in DATA_KEYS})
            dataset.name = name
            in_folder = name in ("folder", "segmentation_folder", "arrays", "webdataset")
            if in_folder and not self.data_dir:
                raise UsageError(f"--dataset {self.dataset} needs --data_dir, where they are")
            dataset.label_separator = separator if name == "table" else ""
            if name == "table" and not self.labels:
                raise UsageError("--dataset table needs --labels, the table")
        if self.labels:
            dataset.labels, dataset.data_dir = self.labels, ""
        if self.data_dir:
            dataset.data_dir = self.data_dir
        if self.is_other_dataset:
            dataset.fold = ""  # all its images
        if self.split:
            return self.split
        if self.is_other_dataset and not has_splits(dataset):
            return ALL  # not only the part that training would hold out
        return evaluation_split(dataset)

    @property
    def is_other_dataset(self) -> bool:
        """Whether more than the split differs."""
        return bool(self.dataset or self.data_dir or self.labels)
