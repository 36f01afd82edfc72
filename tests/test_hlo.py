"""What benchmarks/hlo.py counts in a program that XLA compiled."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import hlo


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def test_operands_and_results_count_once():
    x, y = jnp.ones((64, 32)), jnp.ones(32, jnp.bfloat16)
    (kernel,) = hlo.kernels(compiled(lambda x, y: (x * x + y).astype(jnp.int8), x, y))
    assert (kernel.read, kernel.written) == (4 * 64 * 32 + 2 * 32, 64 * 32)


def test_a_product_between_two_sums_reads_what_the_first_wrote():
    x = jnp.ones((128, 128))
    kernels = hlo.kernels(compiled(lambda x: jnp.sin((x + 1) @ x), x))
    assert sum(kernel.bytes for kernel in kernels) >= 4 * 128 * 128 * (2 + 3 + 2)
    assert len(kernels) >= 2


def test_workspace_is_no_traffic():
    assert hlo.size("(bf16[8,4]{1,0}, u8[100]{0}, pred[3], f32[])", workspace=False) == 64 + 3 + 4
    assert hlo.size("(bf16[8,4]{1,0}, u8[100]{0})") == 164


def test_loops_are_refused():
    text = compiled(lambda x: jax.lax.while_loop(lambda x: x < 9, lambda x: x * x + x, x), 1.5)
    with pytest.raises(ValueError, match="cannot count"):
        hlo.kernels(text)
