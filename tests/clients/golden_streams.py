#!/usr/bin/env python3
"""Every stream of the golden corpus through the streaming accumulators of both official SDKs.

A tiny server answers a request whose model is CASE with `tests/golden/CASE/message.sse`. Each SDK's final message must be
what the events say, put together here a second time and without any SDK; where they end in an error the SDK must raise it.
The TypeScript half is `golden_streams.mjs`; NODE_MODULES: where its SDK is.
"""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anthropic

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "golden"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = (GOLDEN / request["model"] / "message.sse").read_bytes()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def events(case):
    text = (GOLDEN / case / "message.sse").read_text(encoding="utf-8")
    frames = [frame.split("\n") for frame in text.strip().split("\n\n")]
    return [json.loads(data.removeprefix("data: ")) for _, data in frames]


def expected(case):
    """The final message as a plain object, and the error's type if there is one."""
    message, error, partial = None, None, ""
    for event in events(case):
        kind = event["type"]
        if kind == "message_start":
            message = event["message"]
        elif kind == "content_block_start":
            message["content"].append(event["content_block"])
            partial = ""
        elif kind == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            if delta["type"] == "input_json_delta":
                partial += delta["partial_json"]
            else:
                key = delta["type"].removesuffix("_delta")
                block[key] = block[key] + delta[key]
        elif kind == "content_block_stop" and partial:
            message["content"][event["index"]]["input"] = whole_object(partial)
            partial = ""
        elif kind == "message_delta":
            message |= event["delta"]
            # The SDKs take the counts of this event, and keep the first event's division of the written ones.
            message["usage"] |= {key: value for key, value in event["usage"].items() if key != "cache_creation"}
        elif kind == "error":
            error = event["error"]["type"]
    return message, error


def whole_object(text):
    """The arguments of a call; `None`: cut at the token limit, then each SDK makes of it what it can."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def agrees(found, wanted, where="message"):
    """Whether all that is wanted is there. An SDK may add keys of its own, and leave nulls out."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            if value is not None:
                agrees(found.get(key), value, f"{where}.{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for at, pair in enumerate(zip(found, wanted)):
            agrees(*pair, f"{where}.{at}")
    else:
        assert found == wanted and type(found) is type(wanted), f"{where} is {found!r}, not {wanted!r}"


def python_sdk(client, case):
    """The final message and the error's type, as this SDK tells them."""
    request = {"model": case, "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
    seen = []
    try:
        with client.messages.stream(**request) as stream:
            seen.extend(event.type for event in stream)
            return stream.get_final_message().to_dict(), None
    except anthropic.APIStatusError as error:
        assert error.status_code == 200 and error.body["request_id"].startswith("req_"), error.body
        return None, error.body["error"]["type"]


def typescript_sdk(url, cases):
    command = ["node", str(HERE / "golden_streams.mjs"), *cases]
    environment = {**os.environ, "SERVER_URL": url}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=120, check=True)
    told = json.loads(run.stdout)
    return {case: (told[case].get("message"), told[case].get("error")) for case in cases}


# covers: 106
def main():
    cases = sorted(path.parent.name for path in GOLDEN.glob("*/message.sse"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    client = anthropic.Anthropic(base_url=url, api_key="sk-client", max_retries=0, timeout=30)
    typescript = typescript_sdk(url, cases)
    wrong, errors = 0, 0
    for case in cases:
        message, error = expected(case)
        errors += error is not None
        for sdk, (found, raised) in (("Python", python_sdk(client, case)), ("TypeScript", typescript[case])):
            try:
                assert raised == error, f"raised {raised}, not {error}"
                if not error:
                    agrees(found, message)
            except AssertionError as what:
                wrong += 1
                print(f"{case}: {sdk} SDK: {what}")
    print(f"{len(cases)} golden streams, {errors} of them errors, through two SDKs: {wrong} wrong")
    assert cases and not wrong


if __name__ == "__main__":
    sys.exit(main())
