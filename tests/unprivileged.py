"""Run a block without root's permission to read and write everything."""

import contextlib
import os

NOBODY = 65534


@contextlib.contextmanager
def unprivileged(folder):
    """Run the block in ``folder``, as an unprivileged user if the tests run as root."""
    before, root = os.getcwd(), os.geteuid() == 0
    folder.chmod(0o755)
    os.chdir(folder)  # its parents may be closed to that user
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        os.chdir(before)
