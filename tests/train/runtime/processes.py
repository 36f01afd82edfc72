"""Processes that tests start."""

import time

SECONDS_TO_END = 120


def ended(run, seconds=SECONDS_TO_END):
    """Wait for the processes to exit; return ``(status, stdout, stderr)`` of each."""
    deadline = time.monotonic() + seconds
    results = []
    for process in run:
        stdout, stderr = process.communicate(timeout=max(1, deadline - time.monotonic()))
        results.append((process.returncode, stdout, stderr))
    return results
