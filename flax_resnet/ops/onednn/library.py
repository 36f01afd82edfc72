"""oneDNN, Intel's library of convolutions for CPUs, as its wheel ``onednn-cpu-gomp`` ships it.

PyTorch convolves by the same library. Its functions in C are called by ctypes, so that nothing has
to be compiled; https://uxlfoundation.github.io/oneDNN describes them.
"""

import ctypes
import functools
import importlib.metadata
import importlib.util
import logging
import os
import re
from collections.abc import Sequence
from ctypes import c_void_p
from pathlib import Path

import jax

DISTRIBUTION, FILE, MAJOR = "onednn-cpu-gomp", "libdnnl.so.3", 3
XLA_MAJOR = 0  # major version of XLA's foreign function interface
SWITCH = "FLAX_RESNET_ONEDNN"  # environment variable; these values leave the library out
_OFF = ("0", "n", "no", "f", "false", "off")  # as of JAX's own variables

# Values of enumerations in dnnl_types.h and dnnl_common_types.h.
FORWARD_TRAINING, DIRECT = 64, 1
SRC, DST, WEIGHTS, SCRATCHPAD, DIFF_SRC, DIFF_DST, DIFF_WEIGHTS = 1, 17, 33, 80, 129, 145, 161
REORDER_FROM, REORDER_TO = SRC, DST
_IMPLEMENTATION = 8  # of a primitive
WEIGHTS_LAYOUT, DIFF_WEIGHTS_LAYOUT, SCRATCHPAD_LAYOUT = 131, 132, 136  # of a primitive
_CPU, _FLOAT32, _ANY_LAYOUT, _OWN_SCRATCHPAD = 1, 3, 1, 1


class OneDnnError(RuntimeError):
    """A function of the library failed; the message has its name and status."""


@functools.cache
def is_available() -> bool:
    """Return whether the library is installed, can be loaded, and is not switched off."""
    if os.environ.get(SWITCH, "").lower() in _OFF or importlib.util.find_spec("llvmlite") is None:
        return False
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return False
    try:
        load()
        importlib.import_module("llvmlite.binding")
    except (OSError, ImportError) as error:
        logging.getLogger("flax_resnet").warning(
            "%s %s is installed, but cannot be used: %s; XLA convolves instead",
            *(DISTRIBUTION, distribution.version, error),
        )
        return False
    return True


@functools.cache
def load() -> ctypes.CDLL:
    """Return the library.

    Raises:
      OSError: it cannot be loaded, or it or XLA has another interface.
    """
    _check_interface_of_xla(Path(jax.ffi.include_dir()))
    files = importlib.metadata.files(DISTRIBUTION) or []
    paths = [str(file.locate()) for file in files if file.name == FILE]
    if not paths:
        raise OSError(f"it has no file {FILE}")
    # Its waiting threads would take the cores from XLA's. It is read when the library is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    library = ctypes.CDLL(paths[0])
    try:
        library.dnnl_version.restype = ctypes.POINTER(ctypes.c_int)
        library.dnnl_primitive_desc_query_md.restype = c_void_p
    except AttributeError as error:
        raise OSError(f"its file {FILE} is another library: {error}") from error
    if library.dnnl_version()[0] != MAJOR:
        raise OSError(f"its version is {library.dnnl_version()[0]}, not {MAJOR}")
    # Its threads wait for one another, forever if OpenMP starts fewer than it says beforehand.
    if library.omp_get_dynamic() or library.omp_get_thread_limit() < library.omp_get_max_threads():
        raise OSError("OMP_DYNAMIC or OMP_THREAD_LIMIT limits its threads; set OMP_NUM_THREADS")
    return library


def _check_interface_of_xla(headers: Path) -> None:
    """Raise OSError unless structures of XLA are those whose fields ``handler.py`` reads.

    XLA increments the major version when it moves fields; the handler would then read anything.
    """
    text = (headers / "xla" / "ffi" / "api" / "c_api.h").read_text()
    major = re.findall(r"^#define XLA_FFI_API_MAJOR (\d+)$", text, re.MULTILINE)
    if major != [str(XLA_MAJOR)]:
        found = " ".join(major) or "unknown"
        raise OSError(f"the interface of XLA's foreign functions is {found}, not {XLA_MAJOR}")


def version() -> str:
    """Return the version of the library, such as ``3.2.0``."""
    return ".".join(map(str, load().dnnl_version()[:3]))


def call(name: str, *arguments: object) -> None:
    """Call a function of the library; raise OneDnnError if it fails."""
    if status := getattr(load(), name)(*arguments):
        raise OneDnnError(f"{name} of oneDNN {version()} failed with status {status}")


def created(name: str, *arguments: object) -> c_void_p:
    """Return what a function of the library creates; its first parameter is a pointer to it."""
    handle = c_void_p()
    call(name, ctypes.byref(handle), *arguments)
    return handle


@functools.cache
def engine() -> c_void_p:
    """Return the processor."""
    return created("dnnl_engine_create", _CPU, ctypes.c_size_t(0))


@functools.cache
def attributes() -> c_void_p:
    """Return those of all computations: who calls them gives them their working memory.

    Otherwise a computation could only run in the thread that created it.
    """
    made = created("dnnl_primitive_attr_create")
    call("dnnl_primitive_attr_set_scratchpad_mode", made, _OWN_SCRATCHPAD)
    return made


def int64s(values: Sequence[int]) -> ctypes.Array:
    """Return an array in C."""
    return (ctypes.c_int64 * len(values))(*values)


def layout(sizes: Sequence[int], strides: Sequence[int] | None = None) -> c_void_p:
    """Return the layout of an array of float32: steps in elements, or any that is fast."""
    create = "dnnl_memory_desc_create_with_" + ("tag" if strides is None else "strides")
    order = _ANY_LAYOUT if strides is None else int64s(strides)
    return created(create, len(sizes), int64s(sizes), _FLOAT32, order)


def layout_of(descriptor: c_void_p, query: int) -> c_void_p:
    """Return the layout that a computation chose for one of its arrays."""
    return c_void_p(load().dnnl_primitive_desc_query_md(descriptor, query, 0))


def implementation(descriptor: c_void_p) -> str:
    """Return the name of the code that a computation uses, such as ``"jit:avx512_core"``."""
    name = ctypes.c_char_p()
    call("dnnl_primitive_desc_query", descriptor, _IMPLEMENTATION, 0, ctypes.byref(name))
    return (name.value or b"").decode()


def primitive(descriptor: c_void_p) -> c_void_p:
    """Return the computation that a descriptor describes."""
    return created("dnnl_primitive_create", descriptor)


def reorder(source: c_void_p, target: c_void_p) -> c_void_p:
    """Return the descriptor of a copy from one layout to another."""
    name = "dnnl_reorder_primitive_desc_create"
    return created(name, source, engine(), target, engine(), attributes())
