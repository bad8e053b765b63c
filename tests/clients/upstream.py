#!/usr/bin/env python3
"""A scripted vLLM on loopback: answers by the keyword in the last user message, and records what it was asked.

The keyword is the last `please do KEYWORD` of that message; the table is `ANSWERS`. Streams have the shapes that a real
vLLM with `--tool-call-parser qwen3_coder --reasoning-parser qwen3` was recorded with: a role chunk, `reasoning` chunks
(only with enable_thinking), text that begins with two line ends after reasoning, tool calls whose first chunk has no
`arguments`, a finish chunk, a usage chunk, `[DONE]`. Only the standard library is used.

As a program: `upstream.py RECORD_FILE` prints its base URL and appends every chat completion it is asked to the file.
"""

import json
import re
import socket
import sys
import threading
from http.server import ThreadingHTTPServer

import server

MODEL = "Intel/Qwen3.6-35B-A3B-int4-AutoRound"
WINDOW = 131_072
KEYWORD = re.compile(r"please do ([A-Z]+)")
# How Claude Code asks for the summary that stands for a conversation from then on.
COMPACTION = "Respond with TEXT ONLY"
SUMMARY = "SUMMARY-BY-THE-UPSTREAM: the user and the assistant exchanged words."

OVERFLOW = {
    "message": f"This model's maximum context length is {WINDOW} tokens. However, your prompt contains at least "
    f"{WINDOW + 1} input tokens, which exceeds this limit even without any output tokens. Please reduce the length "
    f"of the input prompt. (parameter=input_tokens, value={WINDOW + 1})",
    "type": "BadRequestError",
    "param": "input_tokens",
    "code": 400,
}


class Refused(Exception):
    """The chat completion is answered with an HTTP error."""

    def __init__(self, status, error):
        super().__init__(error)
        self.status, self.error = status, error


def text_of(message):
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content)


class Chat:
    """A request, in the form in which the answers look at it."""

    def __init__(self, body, box):
        """`box`: the upstream that answers."""
        self.body, self.window, self.box = body, box.window, box
        messages = body["messages"]
        users = [i for i, message in enumerate(messages) if message["role"] == "user"]
        self.last_user = text_of(messages[users[-1]]) if users else ""
        found = KEYWORD.findall(self.last_user)
        self.keyword = found[-1] if found else ""
        # Tool results since the last answer of the model.
        self.results = []
        for message in reversed(messages):
            if message["role"] != "tool":
                break
            self.results.insert(0, text_of(message))
        self.thinks = body.get("chat_template_kwargs", {}).get("enable_thinking", True)
        self.everything = json.dumps(messages)
        found = re.search(r"Primary working directory: ([^\\\n]+)", self.everything)
        self.folder = found.group(1) if found else ""


def say(text, reasoning="", calls=(), finish=None, ids="chatcmpl-tool-{turn}-{index}", spent=0):
    """An answer: reasoning, text and tool calls (name, arguments as text), in pieces of a few characters. `ids`: how the
    server names its calls. `spent`: the output tokens that it counts in the end, if not its chunks."""
    return {"reasoning": reasoning, "text": text, "calls": list(calls), "finish": finish, "ids": ids, "spent": spent}


def bash(command):
    return ("Bash", json.dumps({"command": command, "description": "Say something"}))


def after(chat, calls, reasoning=""):
    """First the calls, then, when their results are there, a text that quotes these."""
    if chat.results:
        results = [result.split("<system-reminder>")[0].strip() for result in chat.results]
        return say("Results: " + " | ".join(results), reasoning="The results are there.")
    return say("Let me do that.", reasoning=reasoning or "A tool will tell.", calls=calls)


def half_a_call(finish, arguments):
    """Once, a call to Bash that is cut: had it been run, it would have left a file. Then a text."""

    def answer(chat):
        if chat.results or "incomplete tool call" in chat.everything or "Output token limit hit" in chat.everything:
            return say("The half was not run.")
        # A whole one before it, for the half must not hide behind it.
        return say("Cleaning up.", calls=[bash("echo whole"), ("Bash", arguments)], finish=finish, spent=chat.body["max_tokens"])

    return answer


def agent(chat):
    """A sub-agent is started. Its report comes later, in a message without a keyword."""
    prompt = {"description": "Look", "prompt": "please do REPORT", "subagent_type": "general-purpose"}
    return say("It runs.") if chat.results else say("", calls=[("Agent", json.dumps(prompt))])


def reads(chat):
    """Four large files at a time. A prompt that does not fit into the window is refused, as vLLM does."""
    if len(chat.everything) // 4 > chat.window:
        raise Refused(400, OVERFLOW)
    if chat.results:
        return say("Four files were read.")
    return say("", calls=[("Read", json.dumps({"file_path": f"{chat.folder}/{name}.txt"})) for name in "abcd"])


def late(chat):
    """Tools that are declared at the start, or found by ToolSearch where they are not."""
    if chat.results and "WebFetch" in chat.everything.split("REASON-TO-FETCH")[-1]:
        return after(chat, [])
    declared = [tool["function"]["name"] for tool in chat.body["tools"]]
    if "WebFetch" in declared or chat.results:
        return say("REASON-TO-FETCH", calls=[("WebFetch", '{"url": "http://127.0.0.1:9/page", "prompt": "What is there?"}')])
    return say("", calls=[("ToolSearch", '{"query": "select:WebFetch", "max_results": 5}')])


def counted_from_zero(chat):
    """Three calls, one after the other, by a server that numbers them from zero in every answer."""
    turns = chat.everything.count("echo turn-")
    if turns == 3:
        return say("Done: " + " ".join(sorted(set(re.findall(r"turn-\d", chat.everything)))))
    return say("", calls=[bash(f"echo turn-{turns}")], ids="functions.Bash:{index}" if "KIMI" in chat.keyword else "call_{index}")


def overflow(chat):
    """Too long until the conversation was compacted."""
    if SUMMARY in chat.everything:
        return say("Compacted, and on we go.")
    raise Refused(400, OVERFLOW)


ANSWERS = {
    "": lambda chat: say("Hello from the scripted upstream."),
    "THINK": lambda chat: say("The answer is 42.", reasoning="Six times seven is forty-two."),
    "BASH": lambda chat: after(chat, [bash("echo sparkgap-$((40+2))")]),
    # A second round of tools, each with its own reasoning before it.
    "TWICE": lambda chat: (
        say("Done: " + chat.results[-1].split("<")[0].strip(), reasoning="Both are there.")
        if "echo second" in chat.everything
        else say("", reasoning="Now the second.", calls=[bash("echo second")])
        if chat.results
        else say("", reasoning="First the first.", calls=[bash("echo first")])
    ),
    "PARALLEL": lambda chat: after(chat, [bash("sleep 0.4; echo slow-one"), bash("echo quick-two")]),
    "RISKY": lambda chat: after(chat, [bash('python3 -c "print(6*7)"')]),
    "SILENCE": lambda chat: after(chat, [bash("echo after-the-silence")]),
    "RESTART": lambda chat: after(chat, [bash("echo before-the-restart")]),
    "WEATHER": lambda chat: after(chat, [("get_weather", '{"city": "Paris", "days": 3}')]),
    "CITIES": lambda chat: after(
        chat, [("get_weather", '{"city": "Paris"}'), ("get_weather", '{"city": "Oslo", "note": "\\u00e4 \\"b\\""}')]
    ),
    "AGENT": agent,
    "REPORT": lambda chat: say("REPORT-OF-THE-AGENT"),
    "READS": reads,
    "LATE": late,
    "SEARCH": lambda chat: after(chat, [("WebSearch", '{"query": "sparkgap"}')]),
    "LENGTH": lambda chat: say("As long as the", finish="length"),
    "CUTCALL": lambda chat: say("", calls=[("get_weather", '{"city": "Par')], finish="length"),
    "HALFSTRING": half_a_call("tool_calls", '{"description": "Clean up", "command": "touch half-a-command'),
    "HALFSTOP": half_a_call("stop", '{"command": "touch half-a-command", "timeout": 12'),
    "HALFEMPTY": half_a_call("", '{"command": "touch half-a-command", "run_in_background": fal'),
    "HALFDONE": half_a_call("none", '{"command": "touch half-a-command", "description": "Clean'),
    "HALFCLOSED": half_a_call("tool_calls", '{"command": "touch half-a-command"'),
    "HALFBROKEN": half_a_call("cut", '{"description": "Clean up", "command": "touch half-a-command'),
    "HALFERROR": half_a_call("error", '{"description": "Clean up", "command": "touch half-a-command'),
    "ZERO": counted_from_zero,
    "ZEROKIMI": counted_from_zero,
    "HALFWEATHER": lambda chat: say(
        "", calls=[("get_weather", '{"city": "Par'), ("get_weather", '{"city": "Oslo"}')], finish="tool_calls", spent=1000
    ),
    "CITY": lambda chat: after(chat, [("get_weather", '{"city": "Paris"}')]),
    "WEATHERS": lambda chat: say("", calls=[("get_weather", '{"city": "Paris"}')], ids="call_{index}"),
    "COUNT": lambda chat: say("one two three STOP four five"),
    "JSON": lambda chat: say('{"title": "A title"}'),
    "UNICODE": lambda chat: say("Grüße, 世界 🙂"),
    "OVERFLOW": overflow,
    "MIDERROR": lambda chat: say("Half an", finish="error"),
    "CUT": lambda chat: say("Half an", finish="cut"),
    "BUSY": lambda chat: refuse(503, {"message": "QueueOverflow", "type": "ServiceUnavailable", "code": 503}),
    "BAD": lambda chat: refuse(400, {"message": "top_p must be in (0, 1]", "type": "BadRequestError", "code": 400}),
    "KEY": lambda chat: refuse(401, "Unauthorized"),
    "MISSING": lambda chat: refuse(404, {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}),
}


def refuse(status, error):
    raise Refused(status, error)


def answer(chat):
    if COMPACTION in chat.last_user:
        return say(f"<summary>{SUMMARY}</summary>")
    if "</block>" in chat.body.get("stop", []):
        return say("<block>no</block>")
    return ANSWERS.get(chat.keyword, ANSWERS[""])(chat)


def pieces(text, size=3):
    return [text[i : i + size] for i in range(0, len(text), size)]


def chunks(chat):
    """The chunks of the answer; the last may be an exception, the end of the connection."""
    told = answer(chat)
    prompt = len(chat.everything) // 4
    output = 0
    stops = chat.body.get("stop") or []
    options = chat.body.get("stream_options") or {}

    def chunk(delta, finish=None, stop=None):
        nonlocal output
        output += 1 if delta else 0
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        if finish:
            choice["stop_reason"] = stop
        whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
        if options.get("continuous_usage_stats"):
            total = prompt + output
            whole["usage"] = {"prompt_tokens": prompt, "total_tokens": total, "completion_tokens": output}
        return whole

    yield chunk({"role": "assistant", "content": ""})
    thinks = chat.thinks and told["reasoning"]
    for piece in pieces(told["reasoning"] if thinks else ""):
        yield chunk({"reasoning": piece})
    text, stop = told["text"], None
    for word in stops:
        if word in text:
            text, stop = text[: text.index(word)], word
    for piece in pieces(("\n\n" if thinks and text else "") + text):
        yield chunk({"content": piece})
    for index, (name, arguments) in enumerate(told["calls"]):
        identity = told["ids"].format(turn=len(chat.body["messages"]), index=index)
        function = {"id": identity, "type": "function", "index": index, "function": {"name": name}}
        yield chunk({"tool_calls": [function]})
        for piece in pieces(arguments, 5):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    if told["finish"] == "cut":
        yield None
    if told["finish"] == "error":
        error = {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": None, "code": 500}
        yield {"error": error}
        return
    # Without any reason the server says `[DONE]` all the same.
    if told["finish"] == "none":
        return
    finish = told["finish"] if told["finish"] is not None else "tool_calls" if told["calls"] else "stop"
    yield chunk({}, finish, stop)
    output = told["spent"] or output
    if options.get("include_usage"):
        usage = {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}
        yield {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [], "usage": usage}


class Handler(server.Handler):
    # Else each small chunk waits for the other side's delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path != "/v1/models":
            return self.whole(404, {"detail": "Not Found"})
        model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "vllm", "root": MODEL, "max_model_len": self.server.upstream.window}
        self.whole(200, {"object": "list", "data": [model]})

    def do_POST(self):
        body = json.loads(self.body())
        upstream = self.server.upstream
        if self.path != "/v1/chat/completions":
            upstream.unserved.append(self.path)
            return self.whole(404, {"detail": "Not Found"})
        upstream.record({"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": body})
        chat = Chat(body, upstream)
        if chat.keyword == "SILENCE" and not chat.results:
            upstream.while_silent()
        try:
            self.stream(chat)
        except Refused as refused:
            self.whole(refused.status, {"error": refused.error})
        if chat.keyword == "RESTART" and not chat.results and upstream.on_restart:
            upstream.on_restart()

    def stream(self, chat):
        told = chunks(chat)
        first = next(told)
        self.begin_pieces("text/event-stream; charset=utf-8")
        for chunk in [first, *told]:
            if chunk is None:
                chat.box.before_cut()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.piece(f"data: {json.dumps(chunk)}\n\n")
        self.piece("data: [DONE]\n\n")
        self.piece("")


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port, upstream):
        self.upstream = upstream
        self.open = set()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request, client_address):
        self.open.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        """Ignores a proxy that leaves."""


class Upstream:
    """The server, which can be stopped like a process and started again on its port."""

    def __init__(self, record=None, window=WINDOW):
        self.window = window
        # Chat completions, and the paths of whatever else was posted: tokens to be counted.
        self.requests, self.unserved = [], []
        self.on_restart = None
        # Lasts as long as the upstream says nothing.
        self.while_silent = lambda: None
        # Lasts until an answer that is to be cut may be cut.
        self.before_cut = lambda: None
        self.lock = threading.Lock()
        self.file = open(record, "a", encoding="utf-8") if record else None
        self.listener = None
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def record(self, request):
        with self.lock:
            self.requests.append(request)
            if self.file:
                self.file.write(json.dumps(request) + "\n")
                self.file.flush()

    def start(self):
        self.listener = Listener(self.port, self)
        self.port = self.listener.server_address[1]
        threading.Thread(target=self.listener.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        """Refuses and drops everybody, as a process does that was killed."""
        listener, self.listener = self.listener, None
        listener.shutdown()
        listener.server_close()
        for connection in listener.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # ended before


if __name__ == "__main__":
    running = Upstream(sys.argv[1])
    print(running.url, flush=True)
    # Until whoever started it closes our stdin, or ends us.
    sys.stdin.read()
