"""Memory kept by the C library, measured by the page faults of an allocation."""

import os
import subprocess
import sys

import pytest

SIZE = 48 << 20  # more than glibc keeps by default

FAULTS = f"""
import ctypes, resource, threading
from train.runtime import host

is_kept = host.keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]

def work():
    for _ in range(5):
        address = library.malloc({SIZE})
        ctypes.memset(address, 1, {SIZE})
        library.free(address)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def in_thread():
    before = faults()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return faults() - before

in_thread()
print(is_kept, in_thread())
"""


def run(**environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=clean | environment, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    is_kept, faults = done.stdout.split()
    return is_kept == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets glibc's malloc")
def test_freed_memory_is_reused_without_page_faults():
    pages = SIZE // os.sysconf("SC_PAGESIZE")
    is_kept, faults = run(JAX_PLATFORMS="cpu")
    assert is_kept and faults < pages / 2
    for environment in (
        {"JAX_PLATFORMS": "cuda"},
        {"JAX_PLATFORMS": "cpu", "MALLOC_ARENA_MAX": "4"},
    ):
        is_kept, faults = run(**environment)
        assert not is_kept and faults > 2 * pages
