#!/usr/bin/env python3
"""OpenAI's Python library through sparkgap: whole and streamed answers, errors, a client that leaves. SPARKGAP: the binary.

`sdk_openai.py COMMAND...` runs a command instead, with SPARKGAP_URL in its environment.
"""

import io
import json
import os
import subprocess
import sys
import tempfile

import openai

from openai_upstream import MODEL, TEXT, Upstream
from sparkgap import Sparkgap

MESSAGES = [{"role": "user", "content": "Hi"}]


def fails(kind, ask):
    try:
        ask()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def check(client, upstream):
    chat = client.chat.completions
    answer = chat.create(model="gpt-5.2", messages=MESSAGES, temperature=0.5)
    assert answer.choices[0].message.content == TEXT and answer.usage.total_tokens == 12, answer
    assert answer._request_id.startswith("req_"), answer._request_id
    path, raw = upstream.seen[-1]
    assert path == "/v1/chat/completions" and json.loads(raw)["model"] == MODEL, raw

    chunks = list(chat.create(model="gpt-5.2", messages=MESSAGES, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == TEXT and chunks[-1].usage.completion_tokens == 5, chunks

    first = client.responses.create(model="gpt-5.2", input="Hi")
    assert first.output_text == TEXT and first.usage.input_tokens == 7, first
    events = list(client.responses.create(model="gpt-5.2", input="on", previous_response_id=first.id, stream=True))
    assert [event.type for event in events][-1] == "response.completed", events
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta").strip() == TEXT
    assert json.loads(upstream.seen[-1][1])["previous_response_id"] == first.id

    vectors = client.embeddings.create(model="bge", input=["a", "b"])
    assert [vector.embedding for vector in vectors.data] == [[1.0, -0.5]] * 2, vectors

    heard = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", io.BytesIO(b"RIFF\r\n\0" * 100)))
    assert heard.text == TEXT, heard
    assert f'name="model"\r\n\r\n{MODEL}\r\n'.encode() in upstream.seen[-1][1], upstream.seen[-1]

    assert MODEL in [model.id for model in client.models.list()] or client.models.list().data

    error = fails(openai.BadRequestError, lambda: chat.create(model="m", messages=[{"role": "user", "content": "please refuse"}]))
    assert error.body["message"] == "top_p must be in (0, 1]", error.body
    error = fails(openai.NotFoundError, lambda: client.completions.create(model="m", prompt="x"))
    assert "does not serve /v1/completions" in error.body["message"], error.body
    wrong = client.with_options(api_key="sk-wrong-0123456789")
    error = fails(openai.AuthenticationError, lambda: wrong.chat.completions.create(model="m", messages=MESSAGES))
    assert error.code == "invalid_api_key", error

    stream = chat.create(model="m", messages=[{"role": "user", "content": "please hang"}], stream=True)
    next(iter(stream))
    stream.close()
    assert upstream.left.wait(30), "the model went on for nobody"


def run(command):
    """Runs a command beside a proxy in front of the scripted upstream. The command must leave the request that hangs."""
    upstream = Upstream()
    with Sparkgap("serve", "--upstream", upstream.url) as proxy:
        environment = {**os.environ, "SPARKGAP_URL": proxy.url}
        done = subprocess.run(command, env=environment, timeout=300, check=False)
        assert upstream.left.wait(30), "the model went on for nobody"
    return done.returncode


def main():
    upstream = Upstream()
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write("sk-client-0123456789 anna\n")
        keys.flush()
        with Sparkgap("serve", "--upstream", upstream.url, "--api-key-file", keys.name) as proxy:
            client = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="sk-client-0123456789", max_retries=0, timeout=60)
            check(client, upstream)
            proxy.wait_for("the client has left")
    print("OpenAI's Python library: ok")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]) if sys.argv[1:] else main())
