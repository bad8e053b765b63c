#!/usr/bin/env python3
"""The real Claude Code, headless, through sparkgap in front of a box and a scripted cloud, in one conversation that moves
between them and between two models of the cloud.

SPARKGAP and CLAUDE: the binaries. The cloud speaks the Messages API and checks every signature of thinking by the model
and the text that it stands for, as Anthropic's API does; a foreign one is a 400, and Claude Code would then be stuck.
"""

import hashlib
import json
import sys
import tempfile
import threading
import uuid

from claude_code import Claude, chats, text_of
from server import Handler, serve
from sparkgap import Sparkgap
from upstream import Upstream

OPUS, OTHER, LOCAL = "claude-opus-5-5", "claude-opus-5", "claude-sonnet-5-5"


def signature(model, thinking):
    return "sig-" + hashlib.sha256(f"{model}\n{thinking}".encode()).hexdigest()


class Cloud:
    """A server of the Messages API on loopback. `asked`: the bodies; `refused`: its 400s; `keys`: what clients sent."""

    def __init__(self):
        self.asked, self.refused, self.keys = [], [], set()
        self.lock = threading.Lock()
        cloud = self

        class Messages(Handler):
            def do_POST(self):
                body = json.loads(self.body())
                cloud.keys.add(self.headers.get("x-api-key") or self.headers.get("authorization"))
                if self.path.split("?")[0].endswith("/count_tokens"):
                    self.answer("application/json", json.dumps({"input_tokens": 1000}))
                    return
                with cloud.lock:
                    cloud.asked.append(body)
                    why = cloud.judge(body)
                    if why:
                        cloud.refused.append(why)
                if why:
                    error = {"type": "error", "error": {"type": "invalid_request_error", "message": why}}
                    self.answer("application/json", json.dumps(error), status=400)
                else:
                    self.answer("text/event-stream", events(body))

            def answer(self, kind, text, status=200):
                self.give(status, kind, text, [("request-id", "req_cloud")])

        self.url = serve(Messages)

    @staticmethod
    def judge(body):
        """The API's words about a block of thinking that it refuses."""
        asks = body.get("thinking", {}).get("type") == "enabled"
        for at, message in enumerate(body["messages"]):
            content = message["content"] if isinstance(message["content"], list) else []
            for number, block in enumerate(content):
                if block["type"] == "thinking" and block.get("signature") != signature(body["model"], block["thinking"]):
                    return f"messages.{at}.content.{number}: Invalid `signature` in `thinking` block"
            kinds = [block["type"] for block in content]
            is_open = at == len(body["messages"]) - 2
            if asks and is_open and message["role"] == "assistant" and "tool_use" in kinds and kinds[0] != "thinking":
                return f"messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kinds[0]}`"
        return None


def events(body):
    """An answer as a stream: thinking if it is asked for, then a command for `please do BASH`, or a text."""
    messages = body["messages"]
    answers = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    # Reminders may stand behind the prompt, as messages of their own.
    latest = messages[answers[-1] + 1 :] if answers else messages
    content = [block for message in latest if isinstance(message["content"], list) for block in message["content"]]
    results = [text_of(block["content"]) for block in content if block["type"] == "tool_result"]
    calls = not results and body.get("tools") and "please do BASH" in json.dumps(latest)
    name = "".join(letter for letter in body["model"] if letter.isalnum())
    blocks = []
    if body.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        thinking = f"{name} thinks about message {len(body['messages'])}."
        blocks.append({"type": "thinking", "thinking": thinking, "signature": signature(body["model"], thinking)})
    if calls:
        command = {"command": f"echo from-{name}", "description": "Say something"}
        blocks.append({"type": "tool_use", "id": f"toolu_{name}{len(body['messages'])}", "name": "Bash", "input": command})
    else:
        said = " ".join(result.split("<system-reminder>")[0].strip() for result in results)
        blocks.append({"type": "text", "text": f"The cloud says: {said or 'hello'}."})
    usage = {"input_tokens": 10, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 20}
    start = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": body["model"], "content": []}
    start |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
    found = [{"type": "message_start", "message": start}]
    for index, block in enumerate(blocks):
        found += [{"index": index, **event} for event in events_of(block)]
    stop = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    found += [{"type": "message_delta", "delta": stop, "usage": usage}, {"type": "message_stop"}]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in found)


def events_of(block):
    if block["type"] == "thinking":
        begin = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
        deltas += [{"type": "signature_delta", "signature": block["signature"]}]
    elif block["type"] == "tool_use":
        begin = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    else:
        begin = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": block["text"]}]
    found = [{"type": "content_block_start", "content_block": begin}]
    found += [{"type": "content_block_delta", "delta": delta} for delta in deltas]
    return found + [{"type": "content_block_stop"}]


def main():
    foreign = {"type": "thinking", "thinking": "x", "signature": signature(OTHER, "x")}
    assert Cloud.judge({"model": OPUS, "messages": [{"role": "assistant", "content": [foreign]}]}), "the judge sleeps"
    cloud, box = Cloud(), Upstream()
    with tempfile.TemporaryDirectory(prefix="sparkgap-claude-") as home:
        hooks = f"{home}/cloud.lua"
        with open(hooks, "w", encoding="utf-8") as file:
            file.write(
                f"""return {{ api = 1,
                upstreams = {{
                  default = {{ url = "{box.url}" }},
                  cloud = {{ url = "{cloud.url}", protocol = "messages", auth = "client" }},
                }},
                aliases = {{ {{ "claude-opus-*", upstream = "cloud" }}, {{ "*", upstream = "default" }} }} }}"""
            )
        with Sparkgap("serve", "--hooks", hooks) as proxy:
            claude = Claude(proxy, f"{home}/claude")
            try:
                for turn, (model, expected) in enumerate([
                    (OPUS, "The cloud says: from-claudeopus55."),
                    (LOCAL, "Results: sparkgap-42"),
                    (OPUS, "The cloud says: from-claudeopus55."),
                    (OTHER, "The cloud says: from-claudeopus5."),
                    (LOCAL, "Results: sparkgap-42"),
                    (OPUS, "The cloud says: from-claudeopus55."),
                ]):
                    claude("please do BASH", model=model, again=turn > 0).ended_well(expected)
                assert not cloud.refused, cloud.refused
                own = [b for m in cloud.asked[-1]["messages"] if isinstance(m["content"], list) for b in m["content"]]
                kinds = [block["type"] for block in own]
                assert kinds.count("tool_use") == 6, "the whole conversation is there"
                assert kinds.count("thinking") >= 3, f"the model's own thinking stays: {kinds}"
                told = json.dumps(chats(box)[-1]["messages"])
                assert "thinks about message" not in told, "the cloud's thinking does not reach the box"
                assert len(cloud.keys) == 1 and None not in cloud.keys, cloud.keys
            except BaseException:
                print(f"FAILED: {cloud.refused}\n{proxy.log}", file=sys.stderr)
                raise
    print(f"Claude Code between a box and a cloud: {len(cloud.asked)} requests to the cloud, {len(cloud.refused)} refused")


if __name__ == "__main__":
    main()
