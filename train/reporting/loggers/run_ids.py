"""Files in the workdir that hold the identity of the run in a tracking service."""

import json
import os

from flax_resnet import schema
from flax_resnet.files import write_atomically

_ID = schema.mapping(schema.text(10_000))


def read_id(workdir: str, service: str) -> dict[str, str]:
    """Return what :func:`write_id` wrote; empty without such a file.

    Raises:
      OSError, SchemaError: the file cannot be read.
    """
    try:
        return schema.read_json(_path(workdir, service), _ID)
    except FileNotFoundError:
        return {}


def write_id(workdir: str, service: str, **values: str) -> None:
    """Keep the identity of the run in ``SERVICE_run.json``."""
    write_atomically(_path(workdir, service), json.dumps(values) + "\n")


def _path(workdir: str, service: str) -> str:
    return os.path.join(workdir, f"{service}_run.json")
