"""Cluster: one model trained by many machines, on Ray (extra ``cluster``)."""
