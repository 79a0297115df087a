"""tensorboardX without PyTorch, which it imports where it is installed: 1.6 s, and its own CUDA libraries."""

import sys

absent = {} if "torch" in sys.modules else {"torch": None}
sys.modules.update(absent)
try:
    from tensorboardX import SummaryWriter as SummaryWriter
finally:
    for name in absent:
        del sys.modules[name]
