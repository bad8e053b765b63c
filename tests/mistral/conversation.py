"""Fifty turns of a coding session through sparkgap to an upstream that lets mistral-common validate every request, as vLLM
does for models of Mistral: tools, parallel calls, images, errors, interruptions, reminders, calls of another model, and a
compaction. Every turn must be served. A model with a known name is never refused; one without may be refused while sparkgap
learns."""

import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version

from mistral_common.protocol.instruct import validator
from mistral_common.protocol.instruct.request import ChatCompletionRequest

# The validators of Mistral's tokenizers. The oldest one refuses text beside calls.
VALIDATORS = [name for name in ("V3", "V5", "V11", "V13") if hasattr(validator, f"MistralRequestValidator{name}")]
TURNS = 50
REFUSALS_MAX = 6
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
LONG_NAME = "mcp__a_server_with_a_rather_long_name_for_its_tools__a_tool_with_a_rather_long_name"
TOOLS = [
    {"name": name, "description": "Runs.", "input_schema": {
        "type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}}
    for name in ("Run", LONG_NAME)
]


class Upstream(http.server.ThreadingHTTPServer):
    """Answers as vLLM does, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, model, kind):
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.bodies, self.refused, self.turn = model, [], [], 0
        self.validator = getattr(validator, f"MistralRequestValidator{kind}")(validator.ValidationMode.serving)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path != "/v1/models":
            return self.say(404, b'{"detail":"Not Found"}')
        model = {"id": self.server.model, "object": "model", "owned_by": "vllm", "max_model_len": 131072}
        return self.say(200, json.dumps({"object": "list", "data": [model]}).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/v1/chat/completions":
            return self.say(404, b'{"detail":"Not Found"}')
        try:
            # vLLM takes the members of each message that it knows, and reasoning is not one of them here.
            messages = [{k: v for k, v in m.items() if not k.startswith("reasoning")} for m in body["messages"]]
            request = ChatCompletionRequest.from_openai(messages, body.get("tools"), model=body["model"])
            self.server.validator.validate_request(request)
        except Exception as error:  # whatever it raises is what vLLM would answer
            self.server.refused.append(str(error))
            refusal = {"error": {"message": str(error), "type": "BadRequestError", "param": None, "code": 400}}
            return self.say(400, json.dumps(refusal).encode())
        self.server.bodies.append(body)
        self.say(200, answer(self.server.turn), "text/event-stream")


def answer(turn):
    """The model's answer of a turn: calls in three of four turns, with text in some of them."""
    def delta(delta, reason=None):
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
    chunks = []
    calls = {0: 0, 1: 1, 2: 2, 3: 1}[turn % 4]
    if calls != 2:
        chunks.append(delta({"role": "assistant", "content": f"Step {turn}."}))
    for i in range(calls):
        function = {"name": "Run", "arguments": json.dumps({"command": f"step {turn} {i}"})}
        call = {"index": i, "id": f"a{turn:03}b{i:03}c", "type": "function", "function": function}
        chunks.append(delta({"tool_calls": [call]}))
    chunks.append(delta({}, "tool_calls" if calls else "stop"))
    chunks.append({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 9, "total_tokens": 109}})
    return b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


def image():
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}


def text(words):
    return {"type": "text", "text": words}


def history():
    """The beginning of a conversation with another model: its ids have another shape, and one tool has a long name."""
    call = {"type": "tool_use", "id": "toolu_01AbCdEfGhIjKlMnOpQrStUv", "name": LONG_NAME, "input": {"command": "ls"}}
    return [
        {"role": "user", "content": [text("<system-reminder>be brief</system-reminder>"), text("Look around."), image()]},
        {"role": "assistant", "content": [text("I look."), call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "a b"}]},
        {"role": "assistant", "content": "Two files."},
    ]


def reply(turn, content):
    """The client's next message: the results of the calls, and what the person adds."""
    calls = [block for block in content if block["type"] == "tool_use"]
    if not calls:
        return [text(f"Go on with {turn}.")] + ([image()] if turn % 8 == 0 else [])
    blocks = []
    for call in calls:
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": f"result of {call['input']['command']}"}
        if turn % 5 == 0:
            result["is_error"] = True
        if turn % 7 == 0:
            result["content"] = [text("a picture"), image()]
        blocks.append(result)
    if turn % 6 == 1:
        blocks.append(text("[Request interrupted by user]"))
    elif turn % 3 == 2:
        blocks.append(text("<system-reminder>The list of tasks is empty.</system-reminder>"))
    elif turn % 11 == 5:
        blocks += [text("Look at this, too."), image()]
    return blocks


def compacted():
    return [{"role": "user", "content": [
        text("This session is being continued from a previous conversation that ran out of context. Summary: steps."),
        text("Please continue."),
    ]}]


def ask(port, messages):
    body = {
        "model": "claude-sonnet-5", "max_tokens": 2000, "messages": messages, "tools": TOOLS,
        "system": [text("You are a coding agent."), text("Work below /tmp.")],
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/messages", json.dumps(body), {
        "content-type": "application/json", "anthropic-version": "2023-06-01"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert response.status == 200, answer
    return answer["content"]


def converse(port, upstream):
    messages = history()
    messages.append({"role": "user", "content": "What next?"})
    for turn in range(TURNS):
        upstream.turn = turn
        content = ask(port, messages)
        messages.append({"role": "assistant", "content": content})
        messages.append({"role": "user", "content": reply(turn, content)})
        if turn % 9 == 4:  # the person types while the model works: a second message follows the first
            messages.append({"role": "user", "content": "And be quick."})
        if turn == TURNS // 2:
            messages = compacted()


def check_prefix(bodies):
    """Turn N+1 extends turn N, except at the compaction: the upstream's prefix cache depends on it."""
    breaks = 0
    for before, after in zip(bodies, bodies[1:]):
        before, after = before["messages"], after["messages"]
        breaks += after[:len(before)] != before
    assert breaks <= 1, f"{breaks} turns do not extend the turn before"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def session(model, kind):
    upstream, port = Upstream(model, kind), free_port()
    with tempfile.TemporaryFile() as log:
        sparkgap = subprocess.Popen(
            [os.environ["SPARKGAP"], "serve", "--listen", f"127.0.0.1:{port}",
             "--upstream", f"http://127.0.0.1:{upstream.server_address[1]}/v1"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            for _ in range(1000):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.02)
            converse(port, upstream)
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode()[-4000:])
            sys.stderr.write("refused: " + "\n".join(upstream.refused) + "\n")
            raise
        finally:
            sparkgap.terminate()
            sparkgap.wait()
            upstream.shutdown()
    assert len(upstream.bodies) == TURNS, len(upstream.bodies)
    refused = len(upstream.refused)
    return upstream, refused


def main():
    name = version("mistral_common")
    for kind in VALIDATORS:
        upstream, refused = session("mistralai/Devstral-Small-2-24B-Instruct-2512", kind)
        allowed = 1 if kind == "V3" else 0  # text beside calls, which newer models take
        assert refused <= allowed, upstream.refused
        check_prefix(upstream.bodies[refused:])
        upstream, unknown = session("coder", kind)
        assert unknown <= REFUSALS_MAX, upstream.refused
        print(f"mistral-common {name}, validator {kind}: {TURNS} turns; refused {refused} with its name, {unknown} without")


main()
