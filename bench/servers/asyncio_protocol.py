"""asyncio's selector loop."""

import asyncio

from protocols import main

if __name__ == "__main__":
    main("asyncio", asyncio.new_event_loop, "protocol", copy=False)
