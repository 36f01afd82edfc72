"""Pictures of evaluated images, if their data can still be read."""

from collections.abc import Sequence

import numpy as np

from flax_resnet.decoding import ImageDecodeError
from flax_resnet.preprocessing import to_viewable
from train.data.loader import DataLoader
from train.data.splits import evaluation_split
from train.engine.run_evaluation import limit_to_machine
from train.engine.stored_predictions import stored_name
from train.runtime.errors import RunError, UsageError
from train.workdir.run_files import check_data, read_config, read_description


def read_thumbnails(path: str, records: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return images as the evaluation of a run sees them, uint8 ``(N, H, W, 3)``.

    Args:
      path: the workdir.
      records: numbers of the images in the evaluation split.
      names: their stored names.

    Raises:
      RunError: the data cannot be read, or have changed.
    """
    try:
        config = read_config(path)
        if config.dataset.name == "table":  # which may lack some classes
            config.dataset.class_names = read_description(path).class_names
        limit_to_machine(config.loader)
        config.loader.cache_on_device = "never"  # that would decode all images
        loader = DataLoader(config, evaluation_split(config.dataset), training=False)
        check_data(path, loader)
        source = loader.source
        if any(
            record >= len(source) or stored_name(source.record_name(int(record))) != name
            for record, name in zip(records, names, strict=True)
        ):
            raise RunError("the data have changed since the evaluation")
        return to_viewable(loader.center_crops(records))
    except (UsageError, ImageDecodeError, OSError) as error:
        raise RunError(str(error)) from error
