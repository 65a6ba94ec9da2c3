"""uvloop (libuv)."""

import uvloop
from protocols import main

if __name__ == "__main__":
    main("uvloop", uvloop.new_event_loop, "protocol", copy=True)
