"""For tests of what may not be read or written, which root may."""

import contextlib
import os

NOBODY = 65534


@contextlib.contextmanager
def unprivileged(folder):
    """Does the block in ``folder``, as a user that others' modes are for where it would be root."""
    before, root = os.getcwd(), os.geteuid() == 0
    folder.chmod(0o755)
    os.chdir(folder)  # those above it may be the user's own
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        os.chdir(before)
