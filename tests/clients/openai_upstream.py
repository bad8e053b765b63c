#!/usr/bin/env python3
"""A scripted server of OpenAI's protocol on loopback: chat completions, completions, responses, embeddings, rerank and
transcriptions. It records the path and the bytes of each request. Only the standard library is used.

As a program: `openai_upstream.py` prints its base URL.
"""

import json
import sys
import threading
import time

from server import Handler, serve

MODEL = "Intel/Qwen3.6-35B-A3B-int4-AutoRound"
TEXT = "Hello from the scripted upstream."
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def words(text):
    return [word + " " for word in text.split(" ")]


def chat_chunk(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}


def chat(body):
    message = {"role": "assistant", "content": TEXT}
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": USAGE}
    events = [chat_chunk({"role": "assistant", "content": ""})]
    events += [chat_chunk({"content": word}) for word in words(TEXT)]
    events += [chat_chunk({}, "stop"), {**chat_chunk({}), "choices": [], "usage": USAGE}]
    return [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"]


def response(number, body):
    content = [{"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}]
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}
    usage = {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 5,
             "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 12}
    whole = {"id": f"resp_{number}", "object": "response", "created_at": 1, "status": "completed", "model": MODEL,
             "output": [item], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None,
             "incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1.0, "top_p": 1.0,
             "previous_response_id": body.get("previous_response_id"), "usage": usage}
    if not body.get("stream"):
        return whole
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    part = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty = {**item, "status": "in_progress", "content": []}
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": empty},
        {"type": "response.content_part.added", **part, "part": {**content[0], "text": ""}},
        *[{"type": "response.output_text.delta", **part, "delta": word, "logprobs": []} for word in words(TEXT)],
        {"type": "response.output_text.done", **part, "text": TEXT, "logprobs": []},
        {"type": "response.content_part.done", **part, "part": content[0]},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in numbered]


def embeddings(body):
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    # base64 of two floats, 1.0 and -0.5, as the libraries ask for it.
    vector = "AACAPwAAAL8=" if body.get("encoding_format") == "base64" else [1.0, -0.5]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, _ in enumerate(inputs)]
    return {"object": "list", "data": data, "model": MODEL, "usage": {"prompt_tokens": 3, "total_tokens": 3}}


class Upstream:
    """The server; `url` is its base URL, and `seen` the path and the body of each request."""

    def __init__(self):
        upstream, self.seen, self.left = self, [], threading.Event()

        class OpenAi(Handler):
            def events(self, events):
                self.begin_pieces("text/event-stream")
                for event in events:
                    self.piece(event)
                self.piece("")

            def do_GET(self):
                if self.path != "/v1/models":
                    return self.whole(404, {"detail": "Not Found"})
                model = {"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 131_072}
                return self.whole(200, {"object": "list", "data": [model]})

            def do_POST(self):
                raw = self.body()
                upstream.seen.append((self.path, raw))
                if self.path == "/v1/audio/transcriptions":
                    return self.whole(200, {"text": TEXT})
                body = json.loads(raw)
                said = json.dumps(body)
                if "please refuse" in said:
                    error = {"message": "top_p must be in (0, 1]", "type": "BadRequestError", "param": None, "code": 400}
                    return self.whole(400, {"error": error})
                if "please hang" in said:
                    return self.hang()
                answers = {"/v1/chat/completions": chat, "/v1/embeddings": embeddings,
                           "/v1/responses": lambda body: response(len(upstream.seen), body)}
                if self.path not in answers:
                    return self.whole(404, {"detail": "Not Found"})
                told = answers[self.path](body)
                return self.events(told) if isinstance(told, list) else self.whole(200, told)

            def hang(self):
                """Streams until the other side has left."""
                try:
                    self.events(self.endless())
                except (BrokenPipeError, ConnectionResetError):
                    upstream.left.set()
                self.close_connection = True

            def endless(self):
                while True:
                    yield f"data: {json.dumps(chat_chunk({'content': 'on '}))}\n\n"
                    time.sleep(0.05)

        self.url = f"{serve(OpenAi)}/v1"


if __name__ == "__main__":
    print(Upstream().url, flush=True)
    sys.stdin.read()
    threading.Event().wait()
