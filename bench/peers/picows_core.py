"""An echo by picows' own interface, on uvloop: `picows_core.py PORT`. At /publish, what anybody sends goes to all."""

from __future__ import annotations

import sys

import uvloop
from picows import WSListener, WSMsgType, ws_create_server

subscribers = set()              # transports


class Echo(WSListener):
    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Publisher(WSListener):
    def on_ws_connected(self, transport):
        subscribers.add(transport)

    def on_ws_frame(self, transport, frame):
        message = frame.get_payload_as_bytes()
        for subscriber in subscribers:
            subscriber.send(frame.msg_type, message)

    def on_ws_disconnected(self, transport):
        subscribers.discard(transport)


def listener(request):
    return Publisher() if request.path == b"/publish" else Echo()


async def main(port):
    server = await ws_create_server(listener, "127.0.0.1", port, max_frame_size=1 << 30, backlog=4096)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
