"""Graphs that ask for more than to compute: lines of MLIR at the beginning of a whole one."""

import dataclasses

from jax import export as jax_export
from jax.interpreters import mlir
from jaxlib.mlir.dialects import stablehlo

FORGED_ATTRIBUTES = (
    "api_version = 4 : i32, has_side_effect = true, backend_config = {index = 140000000 : ui64}"
)
TARGETS = (
    *("xla_ffi_python_cpu_callback", "xla_buffer_python_cpu_callback", "xla_python_gpu_callback"),
    *("lapack_spotrf_ffi", "tf.call_tf_function", "tpu_custom_call", "no such\ntarget", ""),
)
"""Python by an address in the process that calls it, native kernels, other languages, nothing at all."""


def _call(target: str) -> str:
    name = target.replace("\n", r"\0A")
    return f'%planted = stablehlo.custom_call @"{name}"() {{{FORGED_ATTRIBUTES}}} : () -> tensor<f32>'


def _with_token(name: str, attributes: str, *, has_result: bool) -> str:
    """An operation that takes a token and gives one, and maybe a number."""
    results, kinds = (
        ("%planted:2", "(tensor<f32>, !stablehlo.token)") if has_result else ("%planted", "!stablehlo.token")
    )
    return (
        "%token = stablehlo.create_token : !stablehlo.token\n"
        f'{results} = "{name}"(%token) <{{{attributes}}}> : (!stablehlo.token) -> {kinds}'
    )


def _channel(kind: int) -> str:
    return f"channel_handle = #stablehlo.channel_handle<handle = 1, type = {kind}>, is_host_transfer = true"


FORBIDDEN_OPERATIONS = {
    **{target or "stablehlo.custom_call": _call(target) for target in TARGETS},
    "stablehlo.infeed": _with_token("stablehlo.infeed", 'infeed_config = ""', has_result=True),
    "stablehlo.outfeed": _with_token("stablehlo.outfeed", 'outfeed_config = ""', has_result=False),
    "stablehlo.send": _with_token("stablehlo.send", _channel(2), has_result=False),
    "stablehlo.recv": _with_token("stablehlo.recv", _channel(3), has_result=True),
    "stablehlo.replica_id": "%planted = stablehlo.replica_id : tensor<ui32>",
}
"""What is refused, and the lines that ask for it."""
NESTED_OPERATION = (
    "%always = stablehlo.constant dense<true> : tensor<i1>\n"
    f'"stablehlo.if"(%always) ({{\n{_call(TARGETS[0])}\nstablehlo.return\n}},'
    " {\nstablehlo.return\n}) : (tensor<i1>) -> ()"
)
"""The first of them, inside of a branch."""


def plant_operations(graph: bytes, lines: str) -> bytes:
    """A serialised graph whose program begins with these lines."""
    exported = jax_export.deserialize(bytearray(graph))
    with mlir.make_ir_context():
        head, main, rest = exported.mlir_module().partition("func.func public @main(")
        signature, body_start, body = rest.partition(
            "{\n    "
        )  # of a function that has a signature of one line
        module = mlir.ir.Module.parse(f"{head}{main}{signature}{body_start}{lines}\n{body}")
        changed = stablehlo.serialize_portable_artifact(module, stablehlo.get_current_version())
    return bytes(dataclasses.replace(exported, mlir_module_serialized=changed).serialize())
