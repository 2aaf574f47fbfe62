"""Peers: other people's trainers behind the worker's protocol; each module is a program of its own.

They import nothing of ours but the protocol, so that another interpreter can run them.
"""
