"""A server that can be away and come back at the same port."""

import threading
from http.server import ThreadingHTTPServer


class Quiet:
    """Of a handler of requests, which says nothing of them."""

    def log_message(self, *_):
        pass


class HttpServer:
    """Serves in a thread of its own, from `serve` to `shut`; what is made of it has a handler."""

    def __init__(self):
        self.server, self.port = None, 0

    def serve(self, handler):
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def shut(self):
        server, self.server = self.server, None
        if server:
            server.shutdown()
            server.server_close()
