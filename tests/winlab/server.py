"""The server of these tests: runs on Windows, does what each line of JSON on stdin says, and answers it with one on stdout.

A client's message is echoed, except for b"close" and b"abort": that is done then, after an answer of b"bye"."""

import dataclasses
import json
import sys

import fastaccept


class Served:
    def __init__(self):
        self.server = None
        self.reports = []

    def open(self, max_connections, when_full="queue", reject_message="", backlog=4096):
        """Begin anew."""
        self.close()
        self.reports = []
        self.server = fastaccept.Server(
            on_data=self.answer,
            on_error=lambda event: self.reports.append(str(event)),
            limits=fastaccept.Limits(max_connections=max_connections),
            when_full=when_full,
            reject_message=reject_message.encode(),
        )
        listener = self.server.listen("127.0.0.1", 0, backlog=backlog)[0]
        self.server.start()
        return listener.port

    def answer(self, conn, data):
        if data in (b"close", b"abort"):
            conn.write(b"bye")
            getattr(conn, data.decode())()
        else:
            conn.write(data)

    def look(self):
        listener = self.server.listeners[0]
        stats = dataclasses.asdict(self.server.stats())
        return {**stats, "state": listener.state, "reports": self.reports}

    def pause(self, how):
        self.server.pause(how)

    def resume(self):
        self.server.resume()

    def close(self):
        if self.server is not None:
            self.server.close()
        self.server = None


if __name__ == "__main__":
    served = Served()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name, options = json.loads(line)
        print(json.dumps(getattr(served, name)(**options)), flush=True)
    served.close()
