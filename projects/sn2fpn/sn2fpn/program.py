"""What all command lines share: user mistakes and signals become one line on the console and an exit code."""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import resolve_name
from types import FrameType, ModuleType, TracebackType
from typing import Any, ClassVar

from .atomic import storage_errors
from .command_line import as_typed
from .errors import UserError

__all__ = ["STOP_SIGNALS", "Interrupted", "StopSignals", "default_signals", "import_quickly", "report", "run_program"]

STOP_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""The signals that ask a program to stop. Of several that arrive together, the last one in this list is reported."""

_NOTICES = (signal.SIGUSR1, signal.SIGUSR2)  # schedulers send them in addition to SIGTERM, before or after it
_ECHO_S = 1.0  # a launcher passes a signal on that has also reached the process directly


class Interrupted(KeyboardInterrupt):
    """A signal has stopped the program.

    Args:
        number: the number of the signal.
        message: what to tell the user; "" if it has been said already.

    Attributes:
        exit_code: 128 plus the number of the signal, as shells report it.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        return 128 + self.number


class StopSignals:
    """A context that hears `STOP_SIGNALS`. SIGHUP stays ignored where it is ignored already, as under `nohup`.

    A second signal raises an error in any case, so that the program ends at once. These do not count as a second
    one: a signal within a second after the first, since launchers repeat what all processes have heard, and SIGUSR1 or
    SIGUSR2 after another signal, since schedulers send them as additional notices.

    Args:
        patient: whether the first signal is only noted, so that the program can end in good order.

    Attributes:
        heard: the number of the signal that was heard, or 0.

    Raises:
        Interrupted: at the first signal unless `patient` is set, and at the second one.
    """

    _innermost: ClassVar[StopSignals | None] = None

    def __init__(self, patient: bool = False) -> None:
        self.heard = 0
        self._patient = patient
        self._first = 0
        self._heard_at = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # only there, Python allows handlers
            ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            numbers = [n for n in STOP_SIGNALS if not (n == signal.SIGHUP and ignored)]
            self._outer, StopSignals._innermost = StopSignals._innermost, self
            self._previous = {n: signal.signal(n, self._hear) for n in numbers}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._previous:
            return
        if self._outer is not None and self.heard:  # the outer context may still hear the echo
            self._outer.heard, self._outer._heard_at = self.heard, self._heard_at
        StopSignals._innermost = self._outer
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        if isinstance(error, Interrupted) and self.heard:  # a further notice may have come while the program saved
            error.number = max(error.number, self.heard, key=STOP_SIGNALS.index)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        first, now = not self.heard, time.monotonic()
        self._first = self._first or self.heard or number
        repeated = now - self._heard_at < _ECHO_S or (number in _NOTICES and number != self._first)
        self.heard = max(self.heard or number, number, key=STOP_SIGNALS.index)
        if first:
            self._heard_at = now
        if (first and not self._patient) or not (first or repeated):
            raise Interrupted(number, f"stopped by {signal.Signals(number).name}")


@contextmanager
def default_signals() -> Iterator[None]:
    """Let `STOP_SIGNALS` end the process inside this context, also where Python cannot act on them."""
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        ignored = (signal.SIG_IGN, None)
        handlers = {n: h for n in STOP_SIGNALS if (h := signal.getsignal(n)) not in ignored}
    for number in handlers:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run_program(command: Callable[[], int | None], *, debug: bool = False) -> int:
    """Run a command and return its exit code.

    Args:
        command: does the work and returns an exit code; None means 0.
        debug: raise user mistakes with their traceback instead of reporting them.

    Returns:
        The command's own exit code, 2 after a user mistake (`UserError`) or when files cannot be written, for instance
        on a full disk, which is reported, or 128 + N after the signal number N, one of `STOP_SIGNALS`, which is 130
        after Ctrl-C. A reader that closes the pipe of the output, such as `head`, ends the command as SIGPIPE would.
    """
    with StopSignals() as signals:
        try:
            with storage_errors():
                code = command() or 0
                sys.stdout.flush()
                return code
        except UserError as e:
            if debug:
                raise
            report(e)
            return 2
        except KeyboardInterrupt as e:
            if not isinstance(e, Interrupted):
                return 128 + (signals.heard or signal.SIGINT)
            report(e)
            return e.exit_code
        except BrokenPipeError:
            if not _output_is_closed():
                raise
            return 128 + signal.SIGPIPE


def import_quickly(name: str, package: str | None = None) -> ModuleType:
    """Import a module that does the work of a program, and keep the garbage collector away from what it imports.

    PyTorch and what it needs make about a million objects that live until the program ends. To search them for garbage
    again and again takes a third of the time of a start. They are not searched later either, which would also copy the
    memory that loader workers share. A module that has been imported before is returned without any of this.

    Args:
        name: the name of the module, which may be relative.
        package: the package that a relative name starts from.
    """
    full_name, enabled = resolve_name(name, package), gc.isenabled()
    if full_name in sys.modules:
        return sys.modules[full_name]
    gc.disable()
    try:
        return import_module(full_name)
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _output_is_closed() -> bool:
    """Return whether nobody reads the standard output any more. If so, what is left of it is thrown away."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
    return closed


def report(error: UserError | Interrupted) -> None:
    """Print a user mistake, or what stopped the program, to the console and, when logging is set up, to the log."""
    root, mistake, text = logging.getLogger("sn2fpn"), isinstance(error, UserError), as_typed(str(error))
    if not text:
        return
    if root.handlers:
        root.log(logging.ERROR if mistake else logging.WARNING, "%s", text)
    consoles = (sys.stdout, sys.stderr)  # a handler without a stream is that of a program with a progress bar
    if not any(getattr(handler, "stream", sys.stderr) in consoles for handler in root.handlers):
        print(f"error: {text}" if mistake else text, file=sys.stderr)
