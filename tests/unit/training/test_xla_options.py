"""Compiler options, which come and go with XLA's versions."""

from emofuse_jax.parallel.xla_options import supported_options


def test_options_that_xla_does_not_know_are_left_out():
    known_option, unknown_option = ("xla_backend_optimization_level", 0), ("xla_cpu_no_such_option", True)
    assert supported_options(known_option, unknown_option) == dict([known_option])
    assert supported_options(unknown_option) is None
