"""rloop (mio, in Rust)."""

import rloop
from protocols import main

if __name__ == "__main__":
    main("rloop", rloop.new_event_loop, "protocol", copy=True)
