"""A scripted HTTP server on loopback, of which each test says how it answers. Only the standard library is used."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """The beginning of a handler: one that logs nothing, and answers with a body of known length."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        """The bytes of the request's body."""
        return self.rfile.read(int(self.headers["content-length"]))

    def give(self, status, kind, text, headers=()):
        """Answers with a text of this type."""
        data = text.encode()
        self.send_response(status)
        for name, value in [("content-type", kind), *headers, ("content-length", str(len(data)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def whole(self, status, value):
        """Answers with JSON."""
        self.give(status, "application/json", json.dumps(value))

    def begin_pieces(self, kind):
        """Begins an answer whose length is not known."""
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def piece(self, text):
        """Sends a piece of it; an empty one ends it."""
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def serve(handler):
    """Starts a server with this handler on a free port, and returns its origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
