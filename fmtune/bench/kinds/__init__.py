"""Kinds: what a case can measure; each module is the program of one worker process (``python -m``)."""
