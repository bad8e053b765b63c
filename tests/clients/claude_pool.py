#!/usr/bin/env python3
"""The real Claude Code, headless, through sparkgap in front of two boxes, one of which breaks off each of its answers.

SPARKGAP and CLAUDE: the binaries. The box that is asked first closes its connection at the same place of every answer,
though it goes on to accept connections; the other one answers to the end. It closes once Claude Code has shown what came
before, since the client drops what arrives together with the end of a connection. The tests check that Claude Code asks
again by itself, as a stream, that the other box answers then, and that no command runs twice: each run writes a line to a
file.
"""

import pathlib
import sys
import tempfile
import threading
import time

import upstream as scripted
from claude_code import Claude, chats, check_tool_results, text_of
from sparkgap import Sparkgap
from upstream import Upstream, bash, say

TESTS = []

# The file gets a line for each time that the command runs.
COMMAND = bash("echo once >> runs; echo it-ran")
HALF = ("Bash", '{"description": "Cut", "command": "echo half >> ru')
RESUME = "cut off mid-stream. Resume"


def test(shown, broken, whole):
    """A test of a box that answers `broken`, beside one that answers `whole`; both are functions of the chat. It closes
    when a line of stream-json has all of `shown`."""

    def add(function):
        TESTS.append((function, shown, broken, whole))
        return function

    return add


class Pool:
    """Two boxes. The one that is asked first is the broken one."""

    def __init__(self, shown, broken, whole):
        self.shown, self.is_shown = shown, threading.Event()
        self.boxes = [Upstream(), Upstream()]
        self.broken, self.asked = None, []
        self.answers = (broken, whole)
        # Claude Code's request to resume has no keyword.
        for keyword in ("POOL", ""):
            scripted.ANSWERS[keyword] = self.answer
        for box in self.boxes:
            box.before_cut = self.wait_until_shown

    def wait_until_shown(self):
        assert self.is_shown.wait(60), f"Claude Code did not show {self.shown}"

    def look(self, line):
        if all(part in line for part in self.shown):
            self.is_shown.set()

    def answer(self, chat):
        with self.boxes[0].lock:
            self.broken = self.broken or chat.box
            self.asked.append("broken" if chat.box is self.broken else "whole")
        broken, whole = self.answers
        return broken(chat) if chat.box is self.broken else whole(chat)

    @property
    def whole(self):
        return next(box for box in self.boxes if box is not self.broken)

    def check(self):
        """Checks what holds for each request."""
        for box in self.boxes:
            for body in chats(box):
                assert body["stream"] is True
                check_tool_results(body["messages"])
            box.stop()


def delays(run):
    """The pauses before Claude Code's further tries, in ms, as it says them."""
    return [event["retry_delay_ms"] for event in run.events if event.get("subtype") == "api_retry"]


def runs(claude):
    """The number of times that the command ran."""
    file = pathlib.Path(claude.home, "work", "runs")
    return file.read_text().split() if file.exists() else []


@test(['"text_delta"'], lambda chat: say("Half an", finish="cut"), lambda chat: say("A whole answer."))
def in_the_middle_of_text(claude, pool):
    """Nothing of the half is kept: the same request comes again after half a second, and goes to the other box."""
    run = claude("please do POOL", "--include-partial-messages").ended_well("A whole answer.")
    assert pool.asked == ["broken", "whole"], pool.asked
    assert [block["text"] for block in run.blocks("assistant", "text")] == ["A whole answer."]
    (delay,) = delays(run)
    assert delay < 1000, "the first of its pauses, which grow"
    (first,), (second,) = chats(pool.broken), chats(pool.whole)
    assert first["messages"] == second["messages"], "the repeated request has the same prefix"


@test(
    ['"type":"assistant"', "A whole block."],
    lambda chat: say("A whole block.", calls=[HALF], finish="cut"),
    lambda chat: say("The rest of it."),
)
def after_a_block_of_text(claude, pool):
    """The block is kept, and the model is asked to resume behind it."""
    run = claude("please do POOL", "--include-partial-messages").ended_well("The rest of it.")
    assert pool.asked == ["broken", "whole"], pool.asked
    assert [block["text"] for block in run.blocks("assistant", "text")] == ["A whole block.", "The rest of it."]
    (asked,) = chats(pool.whole)
    assert text_of(asked["messages"][-2]["content"]).strip() == "A whole block.", asked["messages"][-2]
    assert RESUME in text_of(asked["messages"][-1]["content"]), asked["messages"][-1]
    assert not runs(claude), "half a command ran"


@test(
    ['"thinking_delta"'],
    lambda chat: say("", reasoning="Half a thought", finish="cut"),
    lambda chat: say("A whole answer.", reasoning="A whole thought."),
)
def during_thinking(claude, pool):
    """Claude Code notices nothing: the other box's thinking goes on in the same block."""
    run = claude("please do POOL", "--include-partial-messages").ended_well("A whole answer.")
    assert pool.asked == ["broken", "whole"] and not delays(run), pool.asked
    (block,) = run.blocks("assistant", "thinking")
    assert block["thinking"] == "Half a thoughtA whole thought.", block


@test(
    ['"type":"assistant"', '"tool_use"'],
    lambda chat: say("It runs.", calls=[COMMAND, HALF], finish="cut"),
    lambda chat: say("Done: " + "".join(chat.results)) if chat.results else say("It runs.", calls=[COMMAND]),
)
def after_a_whole_tool_call(claude, pool):
    """The whole call runs, the half does not, and the next request carries the result instead of asking again."""
    run = claude("please do POOL", "--include-partial-messages").ended_well("Done: it-ran")
    assert pool.asked == ["broken", "whole"], pool.asked
    assert any("Connection lost mid-response" in block["text"] for block in run.blocks("assistant", "text"))
    assert runs(claude) == ["once"], runs(claude)


def the_second_turn(chat):
    """A first call that runs, whichever box is asked; then a text that names all results."""
    results = [text_of(message["content"]) for message in chat.body["messages"] if message["role"] == "tool"]
    return say("Done: " + " ".join(results)) if results else say("", calls=[COMMAND])


@test(
    ['"text_delta"'],
    lambda chat: say("Half an", finish="cut") if chat.results else the_second_turn(chat),
    the_second_turn,
)
def after_a_tool_has_run(claude, pool):
    """The turn behind a tool breaks off: its result goes to the other box, and the tool does not run again."""
    claude("please do POOL", "--include-partial-messages").ended_well("Done: it-ran")
    assert pool.asked == ["broken", "broken", "whole"], pool.asked
    assert runs(claude) == ["once"], runs(claude)


def main(names):
    with tempfile.TemporaryDirectory(prefix="sparkgap-claude-") as homes:
        for function, *setting in TESTS:
            if names and function.__name__ not in names:
                continue
            pool = Pool(*setting)
            urls = [argument for box in pool.boxes for argument in ("--upstream", box.url)]
            began = time.monotonic()
            with Sparkgap("serve", *urls) as proxy:
                try:
                    proxy.wait_for("upstream upstream2: ")
                    claude = Claude(proxy, f"{homes}/{function.__name__}")
                    claude.on_line = pool.look
                    function(claude, pool)
                    pool.check()
                except BaseException:
                    print(f"FAILED: {function.__name__}: {pool.asked}\n{proxy.log}", file=sys.stderr)
                    raise
            print(f"  ok: {function.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"Claude Code on two boxes: {len(names) or len(TESTS)} passed")


if __name__ == "__main__":
    main(sys.argv[1:])
