"""Tests that run in numba's CUDA simulator, by ``tests/test_cuda.py`` in a process of their own.

The simulator is chosen by an environment variable when numba is imported, so no other test may share its process.
"""

import os

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
collect_ignore_glob = [] if SIMULATED else ["test_*.py"]

if SIMULATED:
    from numba.cuda.simulator import kernel

    from tests.simulated.turns import Turns

    # numba's own looks at the threads of a block in a loop, which takes most of the time, and two threads that ask
    # for a shared array at the same moment get one each.
    kernel.BlockManager = Turns
