"""train.main, but with a timeout of one second for a shared workdir."""

from train.main import main
from train.runtime.cli import run_command
from train.workdir import run_files

if __name__ == "__main__":
    run_files._VISIBLE_SECONDS = 1
    run_command(main)
