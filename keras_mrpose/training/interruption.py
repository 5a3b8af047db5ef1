"""Ctrl-C and SIGTERM in a training: noted when they come, obeyed when the state can be saved."""

from __future__ import annotations

import signal
import threading


class Stopped(KeyboardInterrupt):
    """A training was asked to stop, and has saved its state.

    Args:
        message: says so, and how to go on.
        number: of the signal.
    """

    def __init__(self, message: str, number: signal.Signals):
        super().__init__(message)
        self.signal = number


class Interruption:
    """In a ``with`` statement, `signal` is the first SIGINT or SIGTERM that came, None before.

    A second one does what it did before, at once. Signals that were ignored stay ignored (a shell that starts a
    process in the background ignores SIGINT for it), and outside the main thread, where Python forbids it, nothing is
    changed.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._before = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note) or signal.SIG_DFL
        return self

    def __exit__(self, *error) -> None:
        self._restore()

    def _note(self, number: int, frame) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
