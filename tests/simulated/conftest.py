"""Tests that run in numba's CUDA simulator, by ``tests/test_cuda.py`` in a process of their own.

The simulator is chosen by an environment variable when numba is imported, so no other test may share its process.
"""

import os

collect_ignore_glob = [] if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else ["test_*.py"]
