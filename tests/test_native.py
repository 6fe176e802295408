"""Without `adaste-jax-cpu`, or with one that cannot be loaded, XLA does the work."""

import subprocess
import sys

import pytest

_PROGRAM = """
import jax, jax.numpy as jnp
import adaste_jax
from adaste_jax import estimators, export
from adaste_jax.nn import linen

layer = linen.BinaryConv(4, (3, 3), estimator=estimators.ste_clipped)
images = jnp.ones((2, 5, 5, 3))
variables = layer.init(jax.random.key(0), images)
grad = jax.jit(jax.grad(lambda v: layer.apply(v, images).sum()))
assert "custom_call" not in grad.lower(variables).as_text()
packed = export.pack(jnp.ones((8, 4)), axis=0)
assert export.packed_matmul(jnp.ones(8), packed).tolist() == [8.0] * 4
try:
    export.packed_matmul(jnp.ones(8), packed, form="native")
except ModuleNotFoundError as error:
    assert "adaste-jax-cpu" in str(error)
else:
    raise AssertionError("the form `native` without the package")
print(adaste_jax.summary(layer.apply, variables, images))
"""


@pytest.mark.parametrize(
    ("package", "variable", "said"),
    [
        ("def load(): raise OSError('libgomp.so.1: not found')", "1", "libgomp.so.1"),
        ("import no_such_module", "1", "no_such_module"),
        ("raise AssertionError('imported')", "0", ""),
    ],
)
def test_falls_back_and_only_summary_says_why(tmp_path, package, variable, said):
    (tmp_path / "adaste_jax_cpu.py").write_text(package)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}){_PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={"ADASTE_NATIVE": variable, "JAX_PLATFORMS": "cpu", "PATH": ""}
        | {"PYTHONPATH": ":".join(sys.path)},
    )
    assert ("adaste-jax-cpu is installed but not used" in done.stdout) == bool(said)
    assert said in done.stdout
    assert not done.stderr
