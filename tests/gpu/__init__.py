"""Checks of the CUDA kernels that have targets of their own in the Makefile."""
