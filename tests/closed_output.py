"""Run commands whose output nobody reads; print the status and the errors of each.

Takes a JSON list of ``[module, argument, …]`` for each command, in one process, since imports
take seconds. A command gets new standard streams, as at the start of a process.
"""

import json
import os
import sys
import tempfile

from tests.conftest import as_a_process, command_main
from train.runtime.cli import run_command


def run(module: str, arguments: list[str], closed: tuple[int, ...]) -> dict:
    """Run a command with pipes without readers in place of the numbers ``closed``."""
    kept = {number: os.dup(number) for number in (1, 2)}
    errors = tempfile.TemporaryFile()
    os.dup2(errors.fileno(), 2)
    for number in closed:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, number)
        os.close(writer)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
    try:
        with as_a_process():
            sys.argv = [module, *arguments]
            run_command(command_main(module))
    except SystemExit as ended:
        status = ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    errors.seek(0)
    return {"status": status or 0, "errors": errors.read().decode()}


if __name__ == "__main__":
    for text in sys.argv[1:]:
        command = json.loads(text)
        print(json.dumps(run(command[0], command[1:], (1,))), flush=True)
