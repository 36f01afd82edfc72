"""What the C library keeps: seen by the pages that the system has to clear."""

import os
import subprocess
import sys

import pytest

SIZE = 48 << 20  # more than glibc ever keeps by itself

FAULTS = f"""
import ctypes, resource, threading
from train import allocation

kept = allocation.keep_freed()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]

def work():
    for _ in range(5):
        place = library.malloc({SIZE})
        ctypes.memset(place, 1, {SIZE})
        library.free(place)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def in_thread():
    before = faults()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return faults() - before

in_thread()
print(kept, in_thread())
"""


def run(**environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=clean | environment, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets glibc's malloc")
def test_what_is_freed_is_there_the_next_time():
    pages = SIZE // os.sysconf("SC_PAGESIZE")
    kept, faults = run(JAX_PLATFORMS="cpu")
    assert kept and faults < pages / 2
    for environment in (
        {"JAX_PLATFORMS": "cuda"},
        {"JAX_PLATFORMS": "cpu", "MALLOC_ARENA_MAX": "4"},
    ):
        kept, faults = run(**environment)
        assert not kept and faults > 2 * pages
