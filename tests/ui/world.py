"""Made-up boxes, the sparkgap in front of them, and people who work with it."""

import json
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "qwen3-coder-480b"
WINDOW = 131_072
# A token is four bytes of the prompt.
TOKEN = 4
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>"\'&lt;'
HOSTILE_MODEL = "<b onmouseover=window.hacked=1>model</b>"


class Box:
    """A model server on loopback. It reads and writes so many tokens a second, and remembers the prompts that it has read."""

    def __init__(self, read=6000, write=90):
        self.read, self.write = read, write
        self.prompts, self.running, self.lock = [], 0, threading.Lock()
        box = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def whole(self, status, text, kind="application/json"):
                data = text.encode()
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                if self.path == "/v1/models":
                    model = {"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": WINDOW}
                    self.whole(200, json.dumps({"object": "list", "data": [model]}))
                elif self.path == "/metrics":
                    use = min(0.97, sum(map(len, box.prompts)) / TOKEN / 640_000)
                    values = {"num_requests_running": box.running, "num_requests_waiting": 0, "kv_cache_usage_perc": use}
                    lines = [f"# TYPE vllm:{name} gauge\nvllm:{name}{{engine=\"0\"}} {value}\n" for name, value in values.items()]
                    self.whole(200, "".join(lines), "text/plain")
                else:
                    self.whole(404, "{}")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                box.answer(self, body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def answer(self, handler, body):
        prompt = json.dumps([body.get("tools"), body["messages"]])
        if "please fail" in prompt[-400:]:
            error = {"message": f"no such adapter: {HOSTILE}", "type": "BadRequestError", "code": 400}
            handler.whole(400, json.dumps({"error": error}))
            return
        with self.lock:
            cached = max([len(os.path.commonprefix([prompt, known])) for known in self.prompts], default=0) // TOKEN // 16 * 16
            self.prompts = (self.prompts + [prompt])[-40:]
            self.running += 1
        try:
            self.stream(handler, body, len(prompt) // TOKEN, cached)
        except OSError:
            pass
        finally:
            with self.lock:
                self.running -= 1

    def stream(self, handler, body, prompt, cached):
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        handler.end_headers()

        def send(delta, finish=None):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            handler.wfile.write(f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n".encode())

        time.sleep((prompt - cached) / self.read if self.read else 0)
        output = min(body.get("max_completion_tokens") or body.get("max_tokens") or 200, 200)
        send({"role": "assistant", "content": ""})
        for done in range(0, output, 10):
            send({"content": "word " * 10})
            time.sleep(10 / self.write if self.write else 0)
        send({}, "stop")
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "prompt_tokens_details": {"cached_tokens": min(cached, prompt)}}
        handler.wfile.write(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode())
        handler.close_connection = True


class Sparkgap:
    """A running sparkgap: `url` is its base URL."""

    def __init__(self, boxes, keys=None, places=4, listen="127.0.0.1:0", record=None, lua=""):
        self.folder = tempfile.TemporaryDirectory()
        hooks, self.keys = f"{self.folder.name}/hooks.lua", f"{self.folder.name}/keys"
        upstreams = ", ".join(f'[{json.dumps(name)}] = {{ url = "{box.url}", max_in_flight = {places} }}' for name, box in boxes.items())
        names = ", ".join(json.dumps(name) for name in boxes)
        with open(hooks, "w", encoding="utf-8") as file:
            file.write(f'return {{ upstreams = {{ {upstreams} }}, aliases = {{ {{ "*", upstream = {{ {names} }} }} }}, {lua} }}\n')
        command = [os.environ["SPARKGAP"], "serve", "--hooks", hooks, "--listen", listen]
        if record:
            command += ["--record", record, "--state", f"{self.folder.name}/state"]
        if keys:
            self.write_keys(keys)
            command += ["--api-key-file", self.keys]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.log, self.url, self.grown = "", "", threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()
        for name in boxes:
            self.wait_for(f"upstream {name}")
        self.wait_for("listens on")

    def write_keys(self, text):
        with open(self.keys, "w", encoding="utf-8") as file:
            file.write(text)

    def read(self):
        for line in self.process.stderr:
            with self.grown:
                self.log += line
                found = re.search(r" listens on (http://\S+)", line)
                self.url = found.group(1) if found else self.url
                self.grown.notify_all()

    def wait_for(self, text):
        with self.grown:
            assert self.grown.wait_for(lambda: text in self.log, 60), f"no '{text}' in:\n{self.log}"

    def end(self):
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log
        assert "panicked" not in self.log and "ERROR" not in self.log, self.log
        self.folder.cleanup()

    def ask(self, messages, session=None, model="claude-opus-5-5", key=None, system="Be brief.", lane="main", agent=None, output=200):
        """Sends a request, and returns the text of its answer, or the status of its error."""
        body = {"model": model, "max_tokens": output, "stream": True, "system": system, "messages": messages}
        headers = {"content-type": "application/json", "x-claude-code-request-class": lane}
        named = {"x-claude-code-session-id": session, "x-claude-code-agent-id": agent, "x-api-key": key}
        headers.update({name: value for name, value in named.items() if value})
        request = urllib.request.Request(f"{self.url}/v1/messages", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            error.read()
            return error.code
        return "word " * output


class People(threading.Thread):
    """Somebody who works: turn after turn of one conversation, which grows. `change_at`: the turn with another system prompt."""

    def __init__(self, proxy, session, turns, size=9000, change_at=None, **options):
        super().__init__(daemon=True)
        self.proxy, self.session, self.turns, self.options = proxy, session, turns, options
        self.size, self.change_at = size, change_at

    def run(self):
        system = f"You work in {self.session}. " + "Read the files before you change them. " * 400
        messages = []
        for turn in range(self.turns):
            if turn == self.change_at:
                system = "Today is another day. " + system
            messages.append({"role": "user", "content": f"Turn {turn} of {self.session}: " + "look at this file, " * (self.size // 19)})
            answer = self.proxy.ask(messages, self.session, system=system, **self.options)
            messages.append({"role": "assistant", "content": str(answer)})
