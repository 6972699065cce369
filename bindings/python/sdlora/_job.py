# SPDX-License-Identifier: MIT
"""Long C calls that Python can interrupt.

The interpreter runs signal handlers only between its own instructions, so a C call of a minute
would hold Ctrl-C back for a minute.  On the main thread such a call therefore runs on a helper
thread while the main thread waits; an interrupt cancels the job, waits for it to stop cleanly, and
is raised again.  Callbacks' exceptions never cross C: they are kept, the job is cancelled, and they
are raised when the call returns."""
from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Optional


class Kept:
    """What a handle knows of its job: the first exception of callbacks, and that it runs.  C lets
    one thread at a time into a handle; a second one is refused here."""

    def __init__(self) -> None:
        self.error: Optional[BaseException] = None
        self.stopped = False
        self.busy = False

    def stop(self) -> None:
        """The next callback cancels the job."""
        self.stopped = True

    def guard(self, function: Callable[..., Any], *args: Any) -> int:
        """The callback's answer to C: non-zero cancels."""
        try:
            return 1 if function(*args) or self.stopped else 0
        except BaseException as error:
            self.error = self.error or error
            return 1

    def refuse_if_busy(self) -> None:
        if self.busy:
            raise RuntimeError("a job of this object is running: cancel it first")

    def run(self, call: Callable[[], Any]) -> Any:
        self.refuse_if_busy()
        self.busy = True
        self.error = None
        try:
            return call()
        except BaseException:
            if self.error is not None:
                raise self.error from None
            raise
        finally:
            self.error = None
            self.busy = False


def interruptible(call: Callable[[], Any], cancel: Callable[[], None]) -> Any:
    """Runs call(), which cancel() from another thread can stop.  Callbacks run on a helper thread:
    on the main thread an interrupt could strike in a callback before its first instruction, where
    nothing can catch it.

    An interrupt is raised even if call() succeeds meanwhile; its result is then dropped, so it must
    own what C made."""
    if threading.current_thread() is not threading.main_thread():
        return call()  # signals are handled elsewhere
    result: List[Any] = []
    failure: List[BaseException] = []
    owner: Dict[str, str] = {}  # who came first: the helper, or an interrupt before it began
    over = threading.Event()

    def work() -> None:
        if owner.setdefault("job", "helper") == "helper":
            try:
                result.append(call())
            except BaseException as error:
                failure.append(error)
        over.set()

    thread = threading.Thread(target=work, name="sdlora", daemon=True)
    try:
        thread.start()
        over.wait()
    except BaseException:  # KeyboardInterrupt, or what a signal handler raised
        # While C uses our memory a second Ctrl-C must not free it.
        while owner.setdefault("job", "nobody") == "helper" and not over.is_set():
            try:
                cancel()
                over.wait()
            except BaseException:
                pass
        result.clear()
        raise
    if failure:
        raise failure[0]
    return result[0]
