"""A slow model server: one word in a tenth of a second, and at the end the key that it was asked with."""

import http.server
import json
import time

WORDS = 100


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.begin("application/json")
        self.wfile.write(json.dumps({"data": [{"id": "slow", "owned_by": "vllm"}]}).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.begin("text/event-stream")
        for i in range(WORDS if "slowly" in body else 1):
            self.send({"content": f"word{i} "})
            time.sleep(0.1)
        self.send({"content": f"asked with {self.headers['authorization']}"})
        self.send({}, "stop")
        self.wfile.write(b"data: [DONE]\n\n")

    def begin(self, kind):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()

    def send(self, delta, finish=None):
        chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Upstream).serve_forever()
