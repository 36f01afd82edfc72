"""The function that XLA calls, through its foreign function interface, to convolve by oneDNN.

It runs in XLA's threads, several at a time, where Python would wait for its lock, and at the end of
a process forever. So it is a function in LLVM's language, compiled by llvmlite in a few
milliseconds. It looks a program up by its number, wraps XLA's buffers into the library's arrays,
and executes the program's two steps; all memory that it needs besides is its own.

The places of fields are those of 64-bit systems: of XLA's structures in ``xla/ffi/api/c_api.h``,
which jaxlib ships (``jax.ffi.include_dir()``; versions 0.3 to 0.5, of JAX 0.10 to 0.12, agree), and
of :class:`_Program`.
"""

import ctypes
import functools
import hashlib
import threading
from ctypes import c_int32, c_int64, c_void_p

import jax
import llvmlite.binding as llvm

from flax_resnet.ops.onednn import library
from flax_resnet.ops.onednn.convolutions import MAKERS, Geometry, Program, is_fast

TARGET = "flax_resnet_onednn"
_ARRAYS, _ARGUMENTS = 6, 4  # of a program; at most, of a step
_GIVEN = 3  # arrays whose memory is XLA's


class _Argument(ctypes.Structure):
    _fields_ = (("number", c_int32), ("array", c_int32))


class _Step(ctypes.Structure):
    _fields_ = (
        *(("primitive", c_void_p), ("count", c_int64)),
        ("arguments", _Argument * _ARGUMENTS),
    )


class _Program(ctypes.Structure):
    """What the function knows of a program; they are a list."""

    _fields_ = (
        *(("number", c_int64), ("next", c_void_p)),
        *(("layouts", c_void_p * _ARRAYS), ("steps", _Step * 2)),
    )


_first_program = c_void_p()
_kept: list[_Program] = []  # they are used as long as the process lives
_lock = threading.Lock()  # several threads may trace at the same time


@functools.cache
def is_supported(geometry: Geometry) -> bool:
    """Return whether a convolution should be computed by the library."""
    with _lock:
        return is_fast(geometry)


@functools.cache
def prepare(kind: str, geometry: Geometry) -> int:
    """Make a program known to the function; return its number, the same in every process.

    Args:
      kind: a key of ``MAKERS``.
      geometry: of the convolution.

    Raises:
      OneDnnError: the library cannot compute it.
    """
    key = hashlib.sha256(f"{kind} {geometry}".encode()).digest()
    number = int.from_bytes(key[:8], "little", signed=True)
    with _lock:  # functions may be traced in several threads at a time
        _register()
        try:
            entry = _entry(number, MAKERS[kind](geometry))
        except library.OneDnnError as error:
            advice = f"{library.SWITCH}=0 in the environment leaves oneDNN out"
            raise library.OneDnnError(f"{error}, {kind} of {geometry}; {advice}") from error
        _kept.append(entry)
        _first_program.value = ctypes.addressof(entry)
    return number


def _entry(number: int, program: Program) -> _Program:
    # Each step has a working memory of its own, after the program's arrays.
    scratchpads = [
        library.layout_of(step.descriptor, library.SCRATCHPAD_LAYOUT) for step in program.steps
    ]
    steps = []
    for place, step in enumerate(program.steps, len(program.layouts)):
        arguments = {**step.arrays, library.SCRATCHPAD: place}
        pairs = (_Argument * _ARGUMENTS)(*arguments.items())
        steps.append(_Step(library.primitive(step.descriptor), len(arguments), pairs))
    layouts = (c_void_p * _ARRAYS)(*program.layouts, *scratchpads)
    return _Program(number, _first_program.value, layouts, (_Step * 2)(*steps))


@functools.cache
def _register() -> None:
    """Compile the function and make it known to XLA."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    functions = ("memory_create", "memory_destroy", "stream_create", "stream_wait")
    for name in (*functions, "stream_destroy", "primitive_execute"):
        function = getattr(library.load(), f"dnnl_{name}")
        llvm.add_symbol(f"dnnl_{name}", ctypes.cast(function, c_void_p).value)
    llvm.add_symbol("flax_resnet_first_program", ctypes.addressof(_first_program))
    module = llvm.parse_assembly(_code())
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2)
    compiler = llvm.create_mcjit_compiler(module, machine)
    compiler.finalize_object()
    _compilers.append(compiler)
    address = compiler.get_function_address("handler")
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(address), platform="cpu")


_compilers: list[llvm.ExecutionEngine] = []  # which own the compiled code


def _constant(name: str, text: str) -> str:
    size = len(text) + 1
    return f'@{name} = private constant [{size} x i8] c"{text}\\00"'


def _code() -> str:
    """Return the function in LLVM's language."""
    return f"""\
declare i32 @dnnl_memory_create(ptr, ptr, ptr, ptr)
declare i32 @dnnl_memory_destroy(ptr)
declare i32 @dnnl_stream_create(ptr, ptr, i32)
declare i32 @dnnl_stream_wait(ptr)
declare i32 @dnnl_stream_destroy(ptr)
declare i32 @dnnl_primitive_execute(ptr, ptr, i32, ptr)
@flax_resnet_first_program = external global ptr
{_constant("unknown", "this process has not prepared this convolution by oneDNN")}
{_constant("failed", "oneDNN cannot convolve; with ONEDNN_VERBOSE=all it prints why")}

define ptr @handler(ptr %frame) {{
  {_load("extension", "ptr", "frame", 8)}
  %extended = icmp ne ptr %extension, null
  br i1 %extended, label %has_extension, label %compute
has_extension:
  {_load("type", "i32", "extension", 8)}
  %asks_for_version = icmp eq i32 %type, 1
  br i1 %asks_for_version, label %describe, label %compute
describe:  ; the version of the interface is XLA's own
  {_load("api_of_version", "ptr", "frame", 16)}
  {_load("version", "i64", "api_of_version", 32)}
  {_load("metadata", "ptr", "extension", 24)}
  %place = getelementptr i8, ptr %metadata, i64 24
  store i64 %version, ptr %place
  ret ptr null
compute:
  {_load("attributes", "ptr", "frame", 160)}
  {_load("attribute", "ptr", "attributes", 0)}
  {_load("value", "ptr", "attribute", 8)}
  {_load("number", "i64", "value", 0)}
  %first = load atomic ptr, ptr @flax_resnet_first_program acquire, align 8
  br label %search
search:
  %program = phi ptr [%first, %compute], [%next, %other]
  %ended = icmp eq ptr %program, null
  br i1 %ended, label %fail, label %compare
compare:
  {_load("its_number", "i64", "program", 0)}
  %found = icmp eq i64 %its_number, %number
  br i1 %found, label %execute, label %other
other:
  {_load("next", "ptr", "program", 8)}
  br label %search
execute:
  {_load("arguments", "ptr", "frame", 72)}
  {_load("results", "ptr", "frame", 112)}
  {_load("buffer0", "ptr", "arguments", 0)}
  {_load("buffer1", "ptr", "arguments", 8)}
  {_load("buffer2", "ptr", "results", 0)}
  {_load("data0", "ptr", "buffer0", 24)}
  {_load("data1", "ptr", "buffer1", 24)}
  {_load("data2", "ptr", "buffer2", 24)}
  %status = call i32 @execute(ptr %program, ptr %data0, ptr %data1, ptr %data2)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %done, label %fail
done:
  ret ptr null
fail:
  %message = phi ptr [@unknown, %search], [@failed, %execute]
  {_load("api", "ptr", "frame", 16)}
  {_load("create_error", "ptr", "api", 48)}
  %error = alloca [4 x i64]
  store i64 28, ptr %error
  {_store("extension_of_error", "ptr null", "error", 8)}
  {_store("message_of_error", "ptr %message", "error", 16)}
  {_store("code_of_error", "i32 13", "error", 24)}
  %made = call ptr %create_error(ptr %error)
  ret ptr %made
}}

define private i32 @execute(ptr %program, ptr %data0, ptr %data1, ptr %data2) {{
  %engine = inttoptr i64 {library.engine().value} to ptr
  %own = inttoptr i64 -1 to ptr  ; memory that the library allocates
  %arrays = alloca [{_ARRAYS} x ptr]
  store [{_ARRAYS} x ptr] zeroinitializer, ptr %arrays
  %streams = alloca ptr
  store ptr null, ptr %streams
  %stream_status = call i32 @dnnl_stream_create(ptr %streams, ptr %engine, i32 1)
  %stream = load ptr, ptr %streams
  %start = icmp eq i32 %stream_status, 0
  br i1 %start, label %array0, label %end
{"".join(_create_array(i) for i in range(_ARRAYS))}
{"".join(_execute_step(i) for i in range(2))}
wait:
  %waited = call i32 @dnnl_stream_wait(ptr %stream)
  br label %end
end:
  %result = phi i32 [%stream_status, %0], [%waited, %wait]
    {"".join(f", [%array_status{i}, %array{i}]" for i in range(_ARRAYS))}
    {"".join(f", [%step_status{i}, %step{i}]" for i in range(2))}
{"".join(_destroy_array(i) for i in range(_ARRAYS))}
  %had_stream = icmp ne ptr %stream, null
  br i1 %had_stream, label %destroy_stream, label %leave
destroy_stream:
  call i32 @dnnl_stream_destroy(ptr %stream)
  br label %leave
leave:
  ret i32 %result
}}
"""


def _load(name: str, type: str, base: str, offset: int) -> str:
    return (
        f"%at_{name} = getelementptr i8, ptr %{base}, i64 {offset}\n"
        f"  %{name} = load {type}, ptr %at_{name}"
    )


def _store(name: str, value: str, base: str, offset: int) -> str:
    return (
        f"%at_{name} = getelementptr i8, ptr %{base}, i64 {offset}\n  store {value}, ptr %at_{name}"
    )


def _create_array(i: int) -> str:
    """Return the block that wraps a buffer of XLA, or allocates an array."""
    data = f"%data{i}" if i < _GIVEN else "%own"
    arguments = f"ptr %slot{i}, ptr %layout{i}, ptr %engine, ptr {data}"
    following = f"array{i + 1}" if i + 1 < _ARRAYS else "step0"
    return f"""\
array{i}:
  {_load(f"layout{i}", "ptr", "program", _Program.layouts.offset + 8 * i)}
  %slot{i} = getelementptr ptr, ptr %arrays, i64 {i}
  %array_status{i} = call i32 @dnnl_memory_create({arguments})
  %array_good{i} = icmp eq i32 %array_status{i}, 0
  br i1 %array_good{i}, label %{following}, label %end
"""


def _execute_step(i: int) -> str:
    """Return the block that executes a step with its arrays."""
    step = _Program.steps.offset + i * ctypes.sizeof(_Step)
    lines = [
        f"step{i}:",
        _load(f"primitive{i}", "ptr", "program", step),
        _load(f"count{i}", "i32", "program", step + _Step.count.offset),
        f"%given{i} = alloca [{2 * _ARGUMENTS} x i64]",
    ]
    for j in range(_ARGUMENTS):  # pairs of a number and a pointer; the last may mean nothing
        argument, name = step + _Step.arguments.offset + 8 * j, f"{i}_{j}"
        lines += [
            _load(f"number{name}", "i32", "program", argument),
            _load(f"index{name}", "i32", "program", argument + 4),
            f"%slot_of{name} = getelementptr ptr, ptr %arrays, i32 %index{name}",
            f"%array_of{name} = load ptr, ptr %slot_of{name}",
            _store(f"stored_number{name}", f"i32 %number{name}", f"given{i}", 16 * j),
            _store(f"stored_array{name}", f"ptr %array_of{name}", f"given{i}", 16 * j + 8),
        ]
    call = "@dnnl_primitive_execute(ptr %primitive{0}, ptr %stream, i32 %count{0}, ptr %given{0})"
    lines += [
        f"%step_status{i} = call i32 {call.format(i)}",
        f"%step_good{i} = icmp eq i32 %step_status{i}, 0",
        f"br i1 %step_good{i}, label %{'step1' if i == 0 else 'wait'}, label %end\n",
    ]
    return "\n".join(lines)


def _destroy_array(i: int) -> str:
    return f"""\
  %old_slot{i} = getelementptr ptr, ptr %arrays, i64 {i}
  %old{i} = load ptr, ptr %old_slot{i}
  call i32 @dnnl_memory_destroy(ptr %old{i})
"""
