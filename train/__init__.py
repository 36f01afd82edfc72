"""The trainer."""

import sys

if "multiprocessing" in sys.modules:  # perhaps in a worker, before it imports anything large
    from train.runtime.worker import exit_with_run

    exit_with_run()
