"""Memory traffic that benchmarks/studies/hlo.py counts in a compiled program."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.studies import hlo


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def test_operands_and_results_are_counted_once():
    x, y = jnp.ones((64, 32)), jnp.ones(32, jnp.bfloat16)
    (kernel,) = hlo.kernels(compiled(lambda x, y: (x * x + y).astype(jnp.int8), x, y))
    assert (kernel.read, kernel.written) == (4 * 64 * 32 + 2 * 32, 64 * 32)


def test_library_workspace_is_not_counted():
    """As on a GPU: a convolution as custom call with a tuple result, and a norm's statistics."""
    text = """HloModule jit_step, is_scheduled=true

%fused_reduce (p: bf16[4,8,8,64]) -> (f32[64], bf16[4,8,8,64]) {
  %p = bf16[4,8,8,64]{3,2,1,0} parameter(0)
}

ENTRY %main (x: bf16[4,8,8,32], w: bf16[64,3,3,32]) -> bf16[4,8,8,64] {
  %x = bf16[4,8,8,32]{3,2,1,0} parameter(0), sharding={replicated}
  %w = bf16[64,3,3,32]{3,2,1,0} parameter(1)
  %conv = (bf16[4,8,8,64]{3,2,1,0}, u8[4096]) custom-call(%x, %w), custom_call_target="__cudnn$conv"
  %y = bf16[4,8,8,64]{3,2,1,0} get-tuple-element(%conv), index=0
  %sums = (f32[64]{0}, bf16[4,8,8,64]{3,2,1,0}) fusion(%y, %y), kind=kInput, calls=%fused_reduce
  %map = bf16[4,8,8,64]{3,2,1,0} get-tuple-element(%sums), index=1
  ROOT %copy.1 = bf16[4,8,8,64]{3,2,1,0} copy(%map)
}
"""
    x, w, y = 2 * 4 * 8 * 8 * 32, 2 * 64 * 9 * 32, 2 * 4 * 8 * 8 * 64
    assert hlo.kernels(text) == [
        hlo.Kernel("conv", "__cudnn$conv", x + w, y),
        hlo.Kernel("sums", "fusion", y, 4 * 64 + y),
        hlo.Kernel("copy.1", "copy", y, y),
    ]


def test_sizes_of_dtypes():
    assert hlo.size("(bf16[8,4]{1,0}, u8[100]{0}, pred[3], f32[])", workspace=False) == 64 + 3 + 4
    assert hlo.size("(bf16[8,4]{1,0}, u8[100]{0})") == 164
    for dtype in ("s4", "f8e4m3fn", "token"):
        with pytest.raises(ValueError, match=dtype):
            hlo.size(f"{dtype}[2]")


def test_loops_are_rejected():
    text = compiled(lambda x: jax.lax.while_loop(lambda x: x < 9, lambda x: x * x + x, x), 1.5)
    with pytest.raises(ValueError, match="cannot count"):
        hlo.kernels(text)
