"""Products with packed matrices, in every form, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaste_jax import export
from adaste_jax.export import _kernel, _matmul

FORMS = ("lookup", "pallas", "planes", "unpack")


def problem(rows, inputs, outputs, seed=0):
    rng = np.random.default_rng(seed)
    kernel = np.where(rng.normal(size=(inputs, outputs)) >= 0, 1.0, -1.0)
    x = rng.normal(size=(rows, inputs)).astype(np.float32)
    return x, kernel, export.pack(kernel.astype(np.float32), axis=0)


@pytest.mark.parametrize("form", [None, *FORMS])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(1, 8, 1), (3, 21, 5), (17, 1100, 700)],  # the last one needs several blocks
)
def test_every_form_is_the_product(strict_dtypes, form, rows, inputs, outputs):
    x, kernel, packed = problem(rows, inputs, outputs)
    found = export.packed_matmul(x, packed, form=form)
    assert found.dtype == jnp.float32
    expected = x.astype(np.float64) @ kernel
    scale = np.sqrt(inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * scale)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_summed_in_float32(form):
    """A sum of 1000 in bfloat16 itself would be wrong in the second digit."""
    _, kernel, packed = problem(1, 1000, 3)
    x = np.full((2, 1000), 1.0) + np.arange(1000) % 2
    found = export.packed_matmul(jnp.asarray(x, jnp.bfloat16), packed, form=form)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(float), x @ kernel, rtol=2**-8, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_double_precision_stays(float64, form):
    x, kernel, packed = problem(2, 30, 4)
    x = x.astype(np.float64) + 1e-12
    found = export.packed_matmul(x, packed, form=form)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, x @ kernel, rtol=1e-13, atol=1e-13)


def test_axes_before_the_inputs_are_kept():
    x, kernel, packed = problem(6, 24, 5)
    found = export.packed_matmul(x.reshape(2, 3, 24), packed)
    np.testing.assert_allclose(found, (x @ kernel).reshape(2, 3, 5), atol=1e-5)
    vector = export.packed_matmul(x[0], packed)
    np.testing.assert_allclose(vector, x[0] @ kernel, atol=1e-5)
    for form in FORMS:
        assert export.packed_matmul(x[:0], packed, form=form).shape == (0, 5)
        assert export.packed_matmul(x, packed[:, :0], form=form).shape == (6, 0)


def test_bits_that_fill_up_the_last_byte_do_not_count():
    x, kernel, packed = problem(2, 13, 4)
    noisy = packed.at[1].set(packed[1] | jnp.uint8(0b11100000))
    for form in FORMS:
        found = export.packed_matmul(x, noisy, form=form)
        np.testing.assert_allclose(found, x @ kernel, atol=1e-5)


def test_bytes_of_a_file_go_in_as_they_are(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    x, kernel, _ = problem(3, 16, 6)
    path = tmp_path / "model.safetensors"
    export.save(path, {"kernel": jnp.asarray(kernel, jnp.float32)})
    packed = safetensors.load_file(path)["params/kernel"]
    found = export.packed_matmul(x, packed)
    np.testing.assert_allclose(found, x @ kernel, atol=1e-5)


def test_the_form_is_chosen_by_rows_and_backend(monkeypatch):
    monkeypatch.setenv("ADASTE_NATIVE", "0")
    one, many = jnp.ones((1, 8)), jnp.ones((256, 8))
    assert _matmul._choose(one, "cpu") == "lookup"
    assert _matmul._choose(many, "cpu") == "planes"
    assert _matmul._choose(one, "gpu") == _matmul._choose(many, "tpu") == "unpack"


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")
@pytest.mark.parametrize(
    ("platform", "backend", "target"),
    [("cuda", "gpu", "triton"), ("tpu", "tpu", "tpu_custom_call")],
)
def test_the_kernel_can_be_lowered_for_accelerators(platform, backend, target):
    """That it is accepted there; whether it is fast takes the device."""
    check = jax.export.DisabledSafetyCheck.custom_call
    lower = jax.export.export(
        jax.jit(lambda x, p: _kernel.packed_matmul(x, p, backend=backend)),
        platforms=[platform],
        disabled_checks=[check("__gpu$xla.gpu.triton"), check("tpu_custom_call")],
    )
    x = jax.ShapeDtypeStruct((17, 300, 8), jnp.float32)
    packed = jax.ShapeDtypeStruct((300, 130), jnp.uint8)
    try:
        module = lower(x, packed).mlir_module()
    except RuntimeError as error:
        if "No supported GPU devices" not in str(error):
            raise
        pytest.skip("jax 0.12 lowers Triton where there is a GPU only")
    assert target in module


def test_operands_that_do_not_fit_are_refused():
    x, _, packed = problem(2, 24, 5)
    with pytest.raises(ValueError, match=r"2 rows of bytes, got \(3, 5\)"):
        export.packed_matmul(x[:, :16], packed)
    with pytest.raises(ValueError, match="axis=0"):
        export.packed_matmul(x, packed.reshape(-1))
    with pytest.raises(TypeError, match="floating point"):
        export.packed_matmul(x.astype(int), packed)
    with pytest.raises(TypeError, match="uint8"):
        export.packed_matmul(x, packed.astype(jnp.int8))
    with pytest.raises(ValueError, match="scalar"):
        export.packed_matmul(x[0, 0], packed)
    with pytest.raises(ValueError, match="`form` must be one of"):
        export.packed_matmul(x, packed, form="fast")
