"""Compiler options, which come and go with XLA's versions."""

from emofuse_jax.parallel.xla_options import supported_options


def test_options_that_xla_does_not_know_are_left_out():
    level, gone = ("xla_backend_optimization_level", 0), ("xla_cpu_no_such_option", True)
    assert supported_options(level, gone) == dict([level])
    assert supported_options(gone) is None
