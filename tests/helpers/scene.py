"""A server over a scripted system: no sockets, and a clock that the test moves."""

from fastaccept import Limits, Server
from fastaccept._testing import ScriptedBackend


class Scene:
    """A server over a scripted backend; each turn is followed by the invariants."""

    def __init__(self, listeners=1, seed=None, capacity=None, **options):
        self.backend = ScriptedBackend(seed=seed, capacity=capacity)
        self.events = []
        self.changes = []
        options.setdefault("on_data", lambda conn, data: conn.write(data))
        options.setdefault("on_error", self.events.append)
        options.setdefault("limits", Limits(max_connections=None))
        self.server = Server(_backend=self.backend, **options)
        self.loop = self.server._loop
        for i in range(listeners):
            self.loop.add_listener(10 + i, 128)
        self.loop.settle()

    def turn(self, times=1):
        for _ in range(times):
            self.loop.turn()
            self.check()

    def check(self):
        limit = self.loop.limit
        assert self.backend.violations == []
        assert all(n == 1 for n in self.backend.closed.values())
        if not self.lowered:
            assert limit is None or self.loop.active <= limit
        for number, mode in self.backend.modes.items():
            state, reasons = self.loop.listener_state(number)[:2]
            assert (mode == "accept") == (not reasons), (mode, reasons)
            assert (state == "accepting") == (not reasons)

    def check_few(self):
        """The invariants that cost nothing, for the long run."""
        assert self.backend.violations == [] and self.loop.active <= self.loop.limit
        assert self.backend.closed.most_common(1)[0][1] == 1
        self.backend.closed.clear()

    lowered = False

    def reasons(self, number=0):
        return self.loop.listener_state(number)[1]

    def close(self):
        self.server.close()
        assert self.backend.violations == []
        assert self.backend.open_handles == 0
