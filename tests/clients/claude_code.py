#!/usr/bin/env python3
"""The real Claude Code, headless, through sparkgap: against the scripted upstream, and against the demo.

SPARKGAP and CLAUDE: the binaries. Each test has a home of its own. The tests check the client's stream-json and
the requests that the upstream got.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

from sparkgap import Sparkgap
from upstream import COMPACTION, SUMMARY, Upstream

RUN = pathlib.Path(__file__).parent / "claude-code" / "run"
TESTS = []


def test(function, *options):
    TESTS.append((function, options))
    return function


def test_with(*options):
    """A test of a sparkgap with these options."""
    return lambda function: test(function, *options)


class Claude:
    """One home of Claude Code, in which conversations go on."""

    def __init__(self, proxy, home):
        self.proxy, self.url, self.home = proxy, proxy.url, home
        self.session = None
        # Called with each line of stream-json when it comes.
        self.on_line = lambda line: None

    def __call__(self, prompt, *arguments, model="claude-sonnet-5-5", keep="", again=False):
        """Runs a prompt; `again`: in the same conversation. Gives the events of stream-json."""
        arguments = [*arguments, *(["--resume", self.session] if again else [])]
        environment = {
            "PATH": os.environ["PATH"],
            "CLAUDE": os.environ["CLAUDE"],
            "HOME_DIR": f"{self.home}/home",
            "WORK": f"{self.home}/work",
            "MODEL": model,
            "KEEP_ENV": keep,
        }
        lines = []
        with tempfile.TemporaryFile("w+") as stderr:
            # `RUN` ends it after two minutes.
            with subprocess.Popen(
                [RUN, self.url, prompt, *arguments], env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
            ) as process:
                for line in process.stdout:
                    self.on_line(line)
                    lines.append(line)
            stderr.seek(0)
            done = subprocess.CompletedProcess(process.args, process.returncode, "".join(lines), stderr.read())
        run = Run([json.loads(line) for line in lines if line.startswith("{")], done)
        self.session = run.events[0].get("session_id")
        return run


class Run:
    """What Claude Code said in one run."""

    def __init__(self, events, done):
        self.events, self.done = events, done
        assert events, f"no output: {done.stderr}"
        self.end = events[-1]

    def ended_well(self, text):
        assert self.end["type"] == "result" and self.end["is_error"] is False, self.end
        assert self.end["subtype"] == "success" and text in self.end["result"], self.end
        assert self.done.returncode == 0, self.done.stderr
        return self

    def blocks(self, role, kind):
        contents = [event["message"]["content"] for event in self.events if event["type"] == role]
        return [block for content in contents for block in content if isinstance(block, dict) and block["type"] == kind]

    def tool_results(self):
        return [text_of(block["content"]) for block in self.blocks("user", "tool_result")]


def text_of(content):
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def chats(upstream):
    return [request["body"] for request in upstream.requests]


def is_prefix(shorter, longer):
    return longer[: len(shorter)] == shorter


def check_all(upstream):
    """Checks the rules for every request that an upstream gets on behalf of Claude Code."""
    assert upstream.requests
    for body in chats(upstream):
        text = json.dumps(body)
        assert "x-anthropic-billing-header" not in text
        assert "cache_control" not in text and "defer_loading" not in text
        names = [tool["function"]["name"] for tool in body.get("tools", [])]
        assert "DeferredToolPlaceholder" not in names, names
        assert body["stream"] is True and body["stream_options"]["include_usage"] is True
        assert 1 <= body["max_tokens"] < 131_072, body["max_tokens"]
        roles = [message["role"] for message in body["messages"]]
        assert roles[0] == "system" and roles.count("system") == 1 and roles[-1] in ("user", "tool"), roles
        check_tool_results(body["messages"])


def check_tool_results(messages):
    """The results stand right behind their calls, in the calls' order."""
    for i, message in enumerate(messages):
        calls = [call["id"] for call in message.get("tool_calls") or []]
        results = [follower.get("tool_call_id") for follower in messages[i + 1 : i + 1 + len(calls)]]
        assert calls == results, (calls, results)
        for call in message.get("tool_calls") or []:
            assert isinstance(json.loads(call["function"]["arguments"]), dict)


def check_growth(upstream):
    """Each turn extends the one before: same tools, same system message, same history, byte for byte. Only the last
    message may grow, by reminders that were folded into it."""
    bodies = chats(upstream)
    for one, other in zip(bodies, bodies[1:]):
        assert json.dumps(one.get("tools")) == json.dumps(other.get("tools"))
        *shared, last = one["messages"]
        assert is_prefix(shared, other["messages"]), "the history has changed"
        kept = other["messages"][len(shared)]
        assert {**kept, "content": ""} == {**last, "content": ""}, "the last message has changed"
        assert text_of(kept["content"]).startswith(text_of(last["content"])[:200]), "the last message has changed"


@test
def bash_and_its_result(claude, upstream):
    run = claude("please do BASH").ended_well("Results: sparkgap-42")
    assert [call["name"] for call in run.blocks("assistant", "tool_use")] == ["Bash"]
    assert run.tool_results() == ["sparkgap-42"]
    bodies = chats(upstream)
    assert len(bodies) == 2
    assert bodies[0]["model"] == "Intel/Qwen3.6-35B-A3B-int4-AutoRound"
    assert bodies[0]["chat_template_kwargs"]["enable_thinking"] is True
    assert text_of(bodies[1]["messages"][-1]["content"]).startswith("sparkgap-42")
    check_growth(upstream)


@test
def the_articles_model(claude, upstream):
    run = claude("please do BASH", model="claude-sonnet-4-20250514").ended_well("Results: sparkgap-42")
    assert run.blocks("assistant", "thinking")
    check_growth(upstream)


@test
def two_parallel_tools(claude, upstream):
    run = claude("please do PARALLEL").ended_well("Results: slow-one | quick-two")
    assert len(run.blocks("assistant", "tool_use")) == 2
    assert sorted(run.tool_results()) == ["quick-two", "slow-one"]
    check_growth(upstream)


@test
def one_tool_after_the_other(claude, upstream):
    run = claude("please do TWICE").ended_well("Done: second")
    assert run.tool_results() == ["first", "second"]
    check_growth(upstream)
    # The model gets its own reasoning back, on the messages it belongs to.
    told = [message["reasoning"] for message in chats(upstream)[-1]["messages"] if message["role"] == "assistant"]
    assert told == ["First the first.", "Now the second."], told


@test
def a_thinking_answer(claude, upstream):
    run = claude("please do THINK").ended_well("The answer is 42.")
    assert [block["thinking"] for block in run.blocks("assistant", "thinking")] == ["Six times seven is forty-two."]


@test
def thinking_that_is_not_shown(claude, upstream):
    """With text output Claude Code asks for `display: omitted`: the model's reasoning travels in the signature."""
    claude.home += "-text"
    done = subprocess.run(
        [RUN, claude.url, "please do TWICE", "--output-format", "text"],
        env={"PATH": os.environ["PATH"], "CLAUDE": os.environ["CLAUDE"], "HOME_DIR": f"{claude.home}/home", "WORK": f"{claude.home}/work"},
        capture_output=True, text=True, timeout=150, check=False,
    )
    assert done.stdout.strip() == "Done: second", done
    assert chats(upstream)[0]["chat_template_kwargs"]["enable_thinking"] is True
    told = [message["reasoning"] for message in chats(upstream)[-1]["messages"] if message["role"] == "assistant"]
    assert told == ["First the first.", "Now the second."], told
    check_growth(upstream)


@test
def thinking_switched_off(claude, upstream):
    for model in ("qwen3", "claude-sonnet-4-20250514"):
        run = claude("please do THINK", model=model, keep="MAX_THINKING_TOKENS=0").ended_well("The answer is 42.")
        assert not run.blocks("assistant", "thinking")
        assert chats(upstream)[-1]["chat_template_kwargs"]["enable_thinking"] is False


@test
def a_conversation_of_several_runs(claude, upstream):
    claude("please do BASH").ended_well("sparkgap-42")
    claude("please do THINK", again=True).ended_well("The answer is 42.")
    claude("please do UNICODE", again=True).ended_well("Grüße, 世界 🙂")
    bodies = chats(upstream)
    assert len(bodies) == 4
    check_growth(upstream)


@test
def an_overflow_is_compacted(claude, upstream):
    claude("please do BASH").ended_well("sparkgap-42")
    claude("please do THINK", again=True).ended_well("The answer is 42.")
    claude("please do OVERFLOW", again=True).ended_well("Compacted, and on we go.")
    last = [text_of(next(m for m in reversed(body["messages"]) if m["role"] == "user")["content"]) for body in chats(upstream)]
    asked = [i for i, text in enumerate(last) if COMPACTION in text]
    assert len(asked) == 1, f"compacted {len(asked)} times"
    assert any("please do OVERFLOW" in text for text in last[: asked[0]]), "it was refused before"
    assert SUMMARY in json.dumps(chats(upstream)[-1]["messages"])


@test
def the_upstream_restarts(claude, upstream):
    """Gone while Claude Code runs its tool, with all connections, and back once a request has met with that."""

    def come_back():
        claude.proxy.wait_for(" 502 ")
        upstream.start()

    def restart():
        upstream.on_restart = None
        upstream.stop()
        threading.Thread(target=come_back, daemon=True).start()

    upstream.on_restart = restart
    run = claude("please do RESTART").ended_well("Results: before-the-restart")
    assert run.tool_results() == ["before-the-restart"]
    retries = [event for event in run.events if event.get("subtype") == "api_retry"]
    assert retries and all(event["error_status"] == 502 for event in retries), retries
    check_growth(upstream)


@test_with("--open-after", "0", "--ping-every", "1", "--usage-every", "1", "--log-level", "debug")
def a_long_silence(claude, upstream):
    """The events that keep Claude Code waiting leave no trace in its display, nor in the history that it sends."""
    upstream.while_silent = lambda: claude.proxy.wait_for("only pings for long")
    run = claude("please do SILENCE").ended_well("Results: after-the-silence")
    assert run.tool_results() == ["after-the-silence"]
    assert [block["thinking"] for block in run.blocks("assistant", "thinking")] == ["A tool will tell.", "The results are there."]
    said = [block["text"].strip() for block in run.blocks("assistant", "text")]
    assert said == ["Let me do that.", "Results: after-the-silence"], said
    assert len(chats(upstream)) == 2
    check_growth(upstream)


@test
def an_answer_that_breaks_off(claude, upstream):
    """Half a text and an error in mid-stream: Claude Code keeps the half and asks the model to go on."""
    claude("please do MIDERROR").ended_well("Hello from the scripted upstream.")
    bodies = chats(upstream)
    assert len(bodies) == 2 and "Half an" in text_of(bodies[1]["messages"][-2]["content"]), bodies[1]["messages"][1:]
    check_growth(upstream)


@test
def half_a_command_is_not_run(claude, upstream):
    """A call that was cut, behind a whole one, however the server says that it ended: Claude Code runs every call whose JSON
    parses, whatever the stop reason is. It runs the whole one, and the model hears that the other one was cut."""
    for keyword in ("HALFSTRING", "HALFSTOP", "HALFEMPTY", "HALFDONE", "HALFCLOSED", "HALFBROKEN", "HALFERROR"):
        before = len(upstream.requests)
        run = claude(f"please do {keyword}").ended_well("The half was not run.")
        assert not list(pathlib.Path(claude.home, "work").iterdir()), f"{keyword}: half a command ran"
        assert "whole" in run.tool_results(), f"{keyword}: {run.tool_results()}"
        assert any("could not be parsed as JSON" in result for result in run.tool_results()), f"{keyword}: {run.tool_results()}"
        assert len(upstream.requests) == before + 2, keyword


@test
def call_ids_that_come_again(claude, upstream):
    """A server that numbers its calls from zero in every answer: Claude Code drops a call whose id it knows."""
    for keyword, told in (("ZERO", "call_0"), ("ZEROKIMI", "functions.Bash:0")):
        before = len(upstream.requests)
        run = claude(f"please do {keyword}").ended_well("Done: turn-0 turn-1 turn-2")
        assert run.tool_results() == ["turn-0", "turn-1", "turn-2"], run.tool_results()
        assert len({call["id"] for call in run.blocks("assistant", "tool_use")}) == 3
        bodies = chats(upstream)[before:]
        assert len(bodies) == 4
        calls = [call["id"] for message in bodies[-1]["messages"] for call in message.get("tool_calls") or []]
        assert calls == [told] * 3, calls
        for one, other in zip(bodies, bodies[1:]):
            assert is_prefix(one["messages"][:-1], other["messages"]), "the history has changed"


# covers: 16
@test
def a_web_search(claude, upstream):
    """A request of its own, whose only tool is the server's. Refused, it is a failed tool that says why, and the model goes
    on. An empty block of results would be told to the model as a search that found nothing, with a reminder to cite it."""
    run = claude("please do SEARCH", "--allowedTools", "WebSearch").ended_well("is not supported by this gateway")
    (result,) = run.blocks("user", "tool_result")
    assert result["is_error"] is True and "server tool web_search_20250305" in text_of(result["content"]), result
    assert len(chats(upstream)) == 2, "the search itself does not reach the model"
    check_growth(upstream)


@test
def a_key_that_the_upstream_does_not_take(claude, upstream):
    """One request, and words that do not ask the user to log in."""
    run = claude("please do KEY")
    assert run.end["is_error"] is True and "rejected the gateway's credentials" in run.end["result"], run.end
    assert len(upstream.requests) == 1


def against_the_demo(home):
    with Sparkgap("demo") as proxy:
        for model in ("claude-sonnet-4-20250514", "claude-sonnet-5-5"):
            run = Claude(proxy, f"{home}-{model}")("Say hello", model=model).ended_well("Hello from sparkgap")
            assert [call["name"] for call in run.blocks("assistant", "tool_use")] == ["Bash"]
            assert run.tool_results() == ["Hello from sparkgap"]
            assert run.blocks("assistant", "thinking")
            assert "system-reminder" not in run.end["result"], run.end["result"]


def by_our_own_command(home):
    """`sparkgap claude`: with the window that the demo tells, Claude Code has nothing to warn of; without it, it has."""
    bin, work = pathlib.Path(home, "bin"), pathlib.Path(home, "work")
    bin.mkdir(parents=True)
    work.mkdir()
    (bin / "claude").symlink_to(os.environ["CLAUDE"])
    basic = {
        "HOME": home,
        "PATH": f"{bin}:/usr/local/bin:/usr/bin:/bin",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    headless = ["-p", "Say hello", "--allowedTools", "Bash"]

    def run(command, environment):
        done = subprocess.run(
            command, env={**basic, **environment}, cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150, check=False
        )
        assert done.returncode == 0 and "Hello from sparkgap" in done.stdout, done
        return done.stderr

    warning = "assumes a context window"
    with Sparkgap("demo") as proxy:
        said = run([os.environ["SPARKGAP"], "claude", *headless], {"SPARKGAP_URL": proxy.url})
        assert warning not in said, said
        assert " demo -> default/demo stream 200 end_turn" in proxy.log, proxy.log
        bare = {"ANTHROPIC_BASE_URL": proxy.url, "ANTHROPIC_API_KEY": "sk-local-any", "ANTHROPIC_MODEL": "demo"}
        said = run(["claude", *headless], bare)
        assert warning in said, f"the client has changed: {said}"
        script = 'eval "$("$0" env --remote "$1")" && shift && claude "$@"'
        said = run(["/bin/sh", "-c", script, os.environ["SPARKGAP"], proxy.url, *headless], {})
        assert warning not in said, said


def main(names):
    with tempfile.TemporaryDirectory(prefix="sparkgap-claude-") as homes:
        if not names:
            against_the_demo(f"{homes}/demo")
            print("  ok: against the demo", flush=True)
            by_our_own_command(f"{homes}/command")
            print("  ok: by our own command", flush=True)
        for function, options in TESTS:
            if names and function.__name__ not in names:
                continue
            upstream = Upstream()
            began = time.monotonic()
            with Sparkgap("serve", "--upstream", upstream.url, *options) as proxy:
                try:
                    function(Claude(proxy, f"{homes}/{function.__name__}"), upstream)
                    check_all(upstream)
                except BaseException:
                    print(f"FAILED: {function.__name__}\n{proxy.log}", file=sys.stderr)
                    raise
            upstream.stop()
            print(f"  ok: {function.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"Claude Code: {len(names) or len(TESTS) + 2} passed")


if __name__ == "__main__":
    main(sys.argv[1:])
