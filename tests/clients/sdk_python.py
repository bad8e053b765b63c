#!/usr/bin/env python3
"""The official Python SDK through sparkgap: typed answers, accumulated streams, error classes. SPARKGAP: the binary."""

import json
import os
import sys

import anthropic

from sparkgap import Sparkgap
from upstream import Upstream

WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "note": {"type": "string"}},
        "required": ["city"],
    },
}
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def ask(keyword, **more):
    messages = [{"role": "user", "content": f"please do {keyword}"}]
    return {"model": "claude-sonnet-5-5", "max_tokens": 1000, "messages": messages, **more}


def both(client, **request):
    """The same request whole and streamed; they must agree."""
    whole = client.messages.create(**request)
    with client.messages.stream(**request) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds
    one, other = whole.to_dict(), streamed.to_dict()
    assert one.pop("id") != other.pop("id")
    assert one == other, (one, other)
    return whole


def both_but_ids(client, **request):
    """As `both`, where the ids of calls are made from the message's. Gives the streamed message."""
    whole = client.messages.create(**request).to_dict()
    with client.messages.stream(**request) as stream:
        streamed = stream.get_final_message()
    plain = [{**message, "id": "", "content": [{**b, "id": ""} for b in message["content"]]} for message in (whole, streamed.to_dict())]
    assert plain[0] == plain[1], plain
    return streamed


@test
def text(client, upstream):
    message = both(client, **ask("NOTHING", system="Be brief.", extra_body={"temperature": 0.5}))
    assert (message.type, message.role, message.model) == ("message", "assistant", "claude-sonnet-5-5")
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].text == "Hello from the scripted upstream."
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 5
    assert message.usage.cache_read_input_tokens == 0
    assert message._request_id.startswith("req_")
    one, other = upstream.requests[-2:]
    assert one["body"] == other["body"], "streamed or not, the upstream is asked the same"
    assert one["body"]["stream"] is True and one["body"]["temperature"] == 0.5
    assert [m["role"] for m in one["body"]["messages"]] == ["system", "user"]
    assert one["headers"]["authorization"] == "Bearer sk-upstream"
    assert "x-api-key" not in one["headers"] and "sk-client" not in json.dumps(one)


@test
def text_stream(client, upstream):
    with client.messages.stream(**ask("UNICODE")) as stream:
        texts = list(stream.text_stream)
    assert len(texts) > 3 and "".join(texts) == "Grüße, 世界 🙂", texts


@test
def thinking(client, upstream):
    message = both(client, **ask("THINK", thinking={"type": "adaptive"}))
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking == "Six times seven is forty-two."
    assert message.content[0].signature
    assert message.content[1].text.strip() == "The answer is 42."
    message = both(client, **ask("THINK", thinking={"type": "disabled"}))
    assert [block.type for block in message.content] == ["text"]
    assert upstream.requests[-1]["body"]["chat_template_kwargs"]["enable_thinking"] is False


@test
def withheld_thinking_comes_back_to_the_model(client, upstream):
    request = ask("WEATHER", tools=[WEATHER], thinking={"type": "adaptive", "display": "omitted"})
    message = both(client, **request)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.content[0].thinking == "" and message.content[0].signature
    result = {"type": "tool_result", "tool_use_id": message.content[2].id, "content": "Rain"}
    request["messages"] += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    client.messages.create(**request)
    assistant = upstream.requests[-1]["body"]["messages"][-2]
    assert assistant["reasoning"] == "A tool will tell.", assistant


@test
def a_tool_and_its_result(client, upstream):
    request = ask("WEATHER", tools=[WEATHER])
    message = both(client, **request)
    assert message.stop_reason == "tool_use"
    call = message.content[-1]
    assert (call.type, call.name, call.input) == ("tool_use", "get_weather", {"city": "Paris", "days": 3})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "Rain"}]}
    request["messages"] += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    message = both(client, **request)
    assert (message.content[-1].text, message.stop_reason) == ("Results: Rain", "end_turn")
    sent = upstream.requests[-1]["body"]
    assert [m["role"] for m in sent["messages"]] == ["user", "assistant", "tool"]
    assert sent["messages"][2]["tool_call_id"] == call.id
    assert sent["tools"][0]["function"]["parameters"] == WEATHER["input_schema"]


@test
def two_calls_and_results_in_any_order(client, upstream):
    request = ask("CITIES", tools=[WEATHER], tool_choice={"type": "auto"})
    message = both(client, **request)
    calls = [block for block in message.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "Paris"}, {"city": "Oslo", "note": 'ä "b"'}]
    results = [{"type": "tool_result", "tool_use_id": c.id, "content": c.input["city"] + "!"} for c in reversed(calls)]
    request["messages"] += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    assert both(client, **request).content[-1].text == "Results: Paris! | Oslo!"


@test
def cut_at_the_limit(client, upstream):
    message = both(client, **ask("LENGTH"))
    assert (message.stop_reason, message.content[0].text) == ("max_tokens", "As long as the")
    message = client.messages.create(**ask("CUTCALL", tools=[WEATHER]))
    assert message.stop_reason == "max_tokens"
    with client.messages.stream(**ask("CUTCALL", tools=[WEATHER])) as stream:
        assert stream.get_final_message().stop_reason == "max_tokens"


@test
def half_a_call_is_not_run(client, upstream):
    """Older vLLM says tool_calls of a call that max_tokens cut. Neither the message nor the SDK's tool runner has one to run,
    also when the runner starts each call as soon as the next block begins."""
    ran = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: The city
        """
        ran.append(city)
        return "Rain"

    message = client.messages.create(**ask("HALFWEATHER", tools=[WEATHER]))
    assert message.stop_reason == "max_tokens", message
    assert [block.type for block in message.content] == ["text"], message
    with client.messages.stream(**ask("HALFWEATHER", tools=[WEATHER])) as stream:
        assert stream.get_final_message().stop_reason == "max_tokens"
    before = len(upstream.requests)
    client.beta.messages.tool_runner(tools=[get_weather], **ask("HALFWEATHER")).until_done()
    runner = client.beta.messages.tool_runner(tools=[get_weather], stream=True, run_tools_eagerly=True, **ask("HALFWEATHER"))
    for stream in runner:
        for _ in stream:
            pass
    assert ran == [] and len(upstream.requests) == before + 2, ran
    # The same runner runs a whole one.
    client.beta.messages.tool_runner(tools=[get_weather], **ask("CITY")).until_done()
    assert ran == ["Paris"], ran


@test
def call_ids_that_come_again(client, upstream):
    request = ask("WEATHERS", tools=[WEATHER])
    shown = []
    for _ in range(3):
        message = both_but_ids(client, **request)
        (call,) = [block for block in message.content if block.type == "tool_use"]
        shown.append(call.id)
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain"}
        request["messages"] += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    client.messages.create(**request)
    assert len(set(shown)) == 3 and shown[0] == "call_0", shown
    messages = upstream.requests[-1]["body"]["messages"]
    assert [m["tool_calls"][0]["id"] for m in messages if m["role"] == "assistant"] == ["call_0"] * 3
    assert [m["tool_call_id"] for m in messages if m["role"] == "tool"] == ["call_0"] * 3


@test
def stop_sequences(client, upstream):
    message = both(client, **ask("COUNT", stop_sequences=["STOP", "never"]))
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "STOP")
    assert message.content[0].text == "one two three "


@test
def structured_output(client, upstream):
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    request = ask("JSON", extra_body={"output_config": {"format": {"type": "json_schema", "schema": schema}}})
    message = client.messages.create(**request)
    assert json.loads(message.content[0].text) == {"title": "A title"}
    assert upstream.requests[-1]["body"]["response_format"]["json_schema"]["schema"] == schema


@test
def error_classes(client, upstream):
    for keyword, kind, status, name in [
        ("BAD", anthropic.BadRequestError, 400, "invalid_request_error"),
        ("OVERFLOW", anthropic.BadRequestError, 400, "invalid_request_error"),
        ("MISSING", anthropic.NotFoundError, 404, "not_found_error"),
        ("KEY", anthropic.InternalServerError, 502, "api_error"),
        ("BUSY", anthropic.InternalServerError, 529, "overloaded_error"),
    ]:
        for stream in (False, True):
            before = len(upstream.requests)
            try:
                client.with_options(max_retries=0).messages.create(stream=stream, **ask(keyword))
                raise AssertionError(f"{keyword}: no error")
            except kind as error:
                assert error.status_code == status, (keyword, error)
                assert error.body["error"]["type"] == name, (keyword, error.body)
                assert error.request_id == error.body["request_id"], (keyword, error.body)
                assert keyword != "OVERFLOW" or "prompt is too long: 131073 tokens > 131072 maximum" in str(error)
            # A busy upstream is asked again by the proxy before the client hears of it.
            assert len(upstream.requests) - before == (3 if keyword == "BUSY" else 1), keyword
    try:
        client.messages.create(**{**ask("NOTHING"), "max_tokens": "many"})
        raise AssertionError("no error")
    except anthropic.BadRequestError as error:
        assert error.body["error"]["message"].startswith("max_tokens: "), error


@test
def what_will_never_work_is_not_tried_again(client, upstream):
    before = len(upstream.requests)
    try:
        client.messages.create(**ask("KEY"))
    except anthropic.InternalServerError as error:
        assert error.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == before + 1


@test
def an_error_in_mid_stream_is_raised(client, upstream):
    for keyword, kind in (("MIDERROR", "overloaded_error"), ("CUT", "api_error")):
        texts = []
        try:
            with client.messages.stream(**ask(keyword)) as stream:
                texts.extend(stream.text_stream)
            raise AssertionError(f"{keyword}: no error")
        except anthropic.APIStatusError as error:
            assert error.body["error"]["type"] == kind, error.body
        assert "".join(texts) == "Half an", texts
        try:
            client.with_options(max_retries=0).messages.create(**ask(keyword))
            raise AssertionError(f"{keyword}: no error")
        except anthropic.InternalServerError as error:
            assert error.status_code in (502, 529), error


@test
def the_beta_namespace(client, upstream):
    message = client.beta.messages.create(betas=["context-management-2025-06-27"], **ask("NOTHING"))
    assert message.content[0].text == "Hello from the scripted upstream."


@test
def an_upstream_that_comes_back(client, upstream):
    client.messages.create(**ask("NOTHING"))
    upstream.stop()
    try:
        client.with_options(max_retries=0).messages.create(**ask("NOTHING"))
        raise AssertionError("no error")
    except anthropic.InternalServerError as error:
        assert (error.status_code, error.response.headers["retry-after"]) == (502, "1"), error
    upstream.start()
    client.messages.create(**ask("NOTHING"))
    upstream.stop()
    upstream.start()
    # Its connections are gone, but it is there: nobody notices.
    client.with_options(max_retries=0).messages.create(**ask("NOTHING"))


def main():
    upstream = Upstream()
    with Sparkgap("serve", "--upstream", upstream.url, key="sk-upstream") as proxy:
        client = anthropic.Anthropic(base_url=proxy.url, api_key="sk-client", timeout=60)
        for function in TESTS:
            function(client, upstream)
            print(f"  ok: {function.__name__.replace('_', ' ')}", flush=True)
    print(f"Python SDK {anthropic.__version__}: {len(TESTS)} passed")


if __name__ == "__main__":
    sys.exit(main())
