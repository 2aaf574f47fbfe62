"""The signals that ask a run to stop."""

from __future__ import annotations

import os
import signal
import threading

from fmtune.tune.halt import Halt


def test_the_first_signal_asks_and_handlers_are_given_back() -> None:
    """One that is ignored stays so; afterwards all is as before."""
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    own = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        halt = Halt()
        with halt.heeded():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not halt.asked()
            os.kill(os.getpid(), signal.SIGTERM)
            assert halt.asked() and halt.signal == signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, own)
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before


def test_beside_the_main_thread_nothing_is_heeded() -> None:
    """Python tells signals to the main thread alone."""
    before, during = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with Halt().heeded():
            during.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert during == [before]
