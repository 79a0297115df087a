"""All cases by name; the stored result of a case is tests/golden/peer_<name>.npz."""

from benchmarks.peers import bilinear, fcn
from tests.peers import (
    am_fbp,
    attention,
    bottleneck,
    cross_attention,
    frames,
    hgr,
    lmf,
    lrn,
    metric_learning,
    network,
    r3d,
    sequence_fusions,
)

OPS = (attention, bilinear, cross_attention, hgr, lmf, lrn, metric_learning)
MODULES = (am_fbp, bottleneck, fcn, frames, network, r3d, sequence_fusions)
CASES = {name: case for module in (*OPS, *MODULES) for name, case in module.CASES.items()}
