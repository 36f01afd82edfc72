"""The images that a command line names."""

import os
from collections.abc import Mapping, Sequence

from train.runtime.errors import RunError, UsageError, note


def find_files(paths: Sequence[str], outputs: Mapping[str, str | None]) -> list[str]:
    """Return the given files, and the images in the given folders; each once.

    Args:
      paths: files and folders.
      outputs: folders in which the command writes images, by flag; images there are skipped.

    Raises:
      RunError: a folder has no images or cannot be listed.
      UsageError: all images of a folder are skipped.
    """
    from train.data.sources.image_folder import list_images

    written = {
        name: os.path.join(os.path.abspath(folder), "")
        for name, folder in outputs.items()
        if folder
    }
    files: dict[str, None] = {}
    for path in paths:
        images = [path]  # if a file cannot be read, that is reported later
        if os.path.isdir(path):
            images, others = list_images(path)
            if not images:
                found = "".join(f"; {text}" for text in others)
                raise RunError(f"{path!r} has no images, by the extensions of its files{found}")
            for text in others:
                note(f"{path}: {text}")
            for name, folder in written.items():
                images = [file for file in images if not os.path.abspath(file).startswith(folder)]
                if not images:
                    raise UsageError(
                        f"all images in {path!r} are in the folder of {name}, which is skipped;"
                        f" choose another folder for {name}"
                    )
        files |= dict.fromkeys(images)
    return list(files)
