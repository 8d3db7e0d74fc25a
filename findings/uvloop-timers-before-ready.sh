#!/bin/sh
# uvloop 0.23.0 runs a timer that is due before callbacks that were ready earlier.
#
# A callback asks for ready() with call_soon, then for timer() with call_later, and keeps the loop busy until the timer is
# due. Guess: ready() comes first, as in asyncio (CPython 3.11), where timers that are due are put behind what is ready;
# code that cancels a task "a moment later" so relies on the task having had its first step. Under uvloop timer() comes
# first, for libuv runs timers at the top of an iteration, and a task that timer() cancels never begins.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q 'uvloop==0.23.0'
"$place/venv/bin/python" - >"$place/seen" <<'PYTHON'
import asyncio
import time

import uvloop


async def main(seen):
    loop = asyncio.get_running_loop()

    def busy():
        loop.call_soon(seen.append, "ready")
        loop.call_later(0.05, seen.append, "timer")
        time.sleep(0.2)

    loop.call_soon(busy)
    await asyncio.sleep(0.5)


for name, factory in ("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop):
    seen = []
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(seen))
    print(name, *seen)
PYTHON
cat "$place/seen"
[ "$(cat "$place/seen")" = "asyncio ready timer
uvloop timer ready" ]
