"""The handler that c1m.toml names: `c1m serve --config examples/c1m.toml`."""


class Lobby:
    """Tells everybody what anybody says."""

    def on_open(self, ws):
        ws.subscribe("lobby")

    def on_message(self, ws, message):
        ws.send(message)
        ws.publish("lobby", message)
