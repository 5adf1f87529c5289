"""SIGTERM and SIGINT as a wish to stop that a run can put off until it has saved."""

import contextlib
import signal


class Stopped(BaseException):
    """A run was told to stop, as `signal` says.

    Not an `Exception`, as `KeyboardInterrupt` is none: nothing shall take it for an
    error that can be handled.
    """

    def __init__(self, number):
        super().__init__(number)
        self.signal = number

    @property
    def exit_code(self):
        """0 for SIGTERM, by which machines are taken away; 130 for SIGINT, Ctrl-C."""
        return 0 if self.signal == signal.SIGTERM else 130


class Interruption:
    """Listens while it is a context; `Stopped` is raised at once unless deferred.

    A second SIGINT is never put off.
    """

    def __init__(self):
        self._deferred = False
        self._wish = None
        self._before = {}

    def __enter__(self):
        self.listen()
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self):
        """Listens, again where another library has taken a signal for itself."""
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.signal(number, self._hear)
            self._before.setdefault(number, before)

    def default(self):
        """Leaves signals to the system, while TensorFlow waits and Python cannot."""
        for number in self._before:
            signal.signal(number, signal.SIG_DFL)

    def ignore(self):
        """Hears no more, while what is told to stop is ending."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def deferred(self):
        """Within, a wish to stop waits for `stop`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @property
    def wished(self):
        """Whether somebody wants the run to stop."""
        return self._wish is not None

    def stop(self):
        """Raises `Stopped`, as for SIGTERM where the wish is another process's."""
        raise Stopped(self._wish or signal.SIGTERM)

    def _hear(self, number, frame):
        again = self.wished and number == signal.SIGINT
        self._wish = number
        if again or not self._deferred:
            raise Stopped(number)
