#!/usr/bin/env python3
"""The real Claude Code in a terminal, through sparkgap to the scripted upstream: what `-p` never does.

SPARKGAP and CLAUDE: the binaries. Checked is what stands on the screen, what the upstream was asked, and sparkgap's log.
"""

import fcntl
import json
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

from sparkgap import Sparkgap
from upstream import MODEL, WINDOW, Upstream

PATIENCE = 60  # seconds for whatever is waited for
TESTS = []

# The cursor's moves stand for spaces; whatever else is not text goes.
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>78c])")


def test(function):
    TESTS.append(function)
    return function


def squeezed(text):
    return re.sub(r"\s+", "", text)


class Terminal:
    """A running client. Its screen is compared without spaces, since it moves the cursor instead of printing them."""

    def __init__(self, proxy, home):
        work = pathlib.Path(home, "work")
        work.mkdir(parents=True)
        # Its questions of the first start are answered.
        project = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        known = {"hasCompletedOnboarding": True, "theme": "dark", "projects": {str(work): project}}
        pathlib.Path(home, ".claude.json").write_text(json.dumps(known), encoding="utf-8")
        command = [os.environ["SPARKGAP"], "env", "--remote", proxy.url, "--json"]
        told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
        environment = {
            "HOME": home,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            **told,
        }
        self.start([os.environ["CLAUDE"]], environment, work)
        self.wait_for("auto mode on")

    def start(self, command, environment, work):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 140, 0, 0))
        self.process = subprocess.Popen(
            command, env=environment, cwd=work, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.drawn, self.seen = "", 0
        self.grown = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        raw = b""
        while True:
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                return  # it has ended
            raw += piece
            with self.grown:
                self.drawn = squeezed(ESCAPES.sub(" ", raw.decode("utf-8", "replace")))
                self.grown.notify_all()

    def wait_for(self, text):
        """Waits until this is drawn, after what was waited for before."""
        wanted = squeezed(text)
        with self.grown:
            done = self.grown.wait_for(lambda: wanted in self.drawn[self.seen :], PATIENCE)
            assert done, f"not drawn: {text}, but:\n{self.drawn[self.seen :]}"
            self.seen = self.drawn.index(wanted, self.seen) + len(wanted)

    def press(self, keys):
        os.write(self.master, keys.encode())

    def enter(self, line):
        """Types a line, and sends it once it stands there."""
        self.press(line)
        self.wait_for(line)
        self.press("\r")

    def close(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        os.close(self.master)


def until(condition, what):
    """Waits for something that nobody tells of."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


# covers: 102
@test
def the_menu_of_models(terminal, proxy, upstream, home):
    """`/model` lists the served models and aliases, and each can be chosen."""
    cache = pathlib.Path(home, ".claude/cache/gateway-models.json")
    until(cache.exists, "the models were not asked for")
    terminal.enter("/model")
    # The rows of opus, fable, sonnet and haiku, then those of the listing.
    title = MODEL.split("/")[1]
    for name in [f"{title} ✔", title, title, title, f"claude-big ({MODEL})", f"fast ({MODEL})", MODEL]:
        terminal.wait_for(f"{name} {WINDOW} tokens")
    # The last but one of them.
    terminal.press("7")
    terminal.wait_for("Set model to")
    terminal.enter("please do THINK")
    terminal.wait_for("The answer is 42.")
    assert " anthropic/fast -> default/" in proxy.log, proxy.log


@test
def escape_ends_the_upstreams_work(terminal, proxy, upstream, home):
    """In the silence before the first token; and nothing is sent again."""
    gone = threading.Event()
    upstream.while_silent = lambda: gone.wait(PATIENCE)
    terminal.enter("please do SILENCE")
    proxy.wait_for("only pings for long")
    terminal.press("\x1b")
    proxy.wait_for("stream 499")
    gone.set()
    terminal.enter(" no, please do THINK")
    terminal.wait_for("The answer is 42.")
    assert len(upstream.requests) == 2, proxy.log


@test
def auto_mode_asks_the_model(terminal, proxy, upstream, home):
    """Its classifier's answer ends at `</block>`, and the command runs: nobody is asked anything."""
    terminal.enter("please do RISKY")
    terminal.wait_for("Results: 42")
    asked = [request["body"] for request in upstream.requests if request["body"].get("stop") == ["</block>"]]
    assert len(asked) == 1 and asked[0]["chat_template_kwargs"]["enable_thinking"] is False, proxy.log
    assert "whole 200 stop_sequence" in proxy.log, proxy.log


@test
def the_report_of_an_agent_arrives(terminal, proxy, upstream, home):
    """In auto mode: its last text is the report, and nobody asks it to call a tool for that."""
    terminal.enter("please do AGENT")
    terminal.wait_for("Hello from the scripted upstream.")
    asked = [json.dumps(request["body"]["messages"]) for request in upstream.requests]
    assert "REPORT-OF-THE-AGENT" in asked[-1], asked[-1][-2000:]
    assert not any("handback-send-enforce" in messages for messages in asked)


@test
def the_context_in_numbers(terminal, proxy, upstream, home):
    """Many counts at a time, none of which fails, though this upstream cannot count."""
    terminal.enter("/context")
    terminal.wait_for("/131.1k tokens")
    terminal.wait_for("Free space")
    # A name that Claude Code knows: it has a window for it in a list of its own.
    terminal.press("\x1b")
    terminal.enter("/model claude-sonnet-4-20250514")
    terminal.wait_for("Set model to")
    terminal.enter("/context")
    terminal.wait_for("/131.1k tokens")
    assert upstream.unserved.count("/tokenize") > 10, upstream.unserved
    assert "count_tokens" not in proxy.log, proxy.log


ALIASES = """return { api = 1, aliases = {
  { "claude-big", upstream = "default" }, { "fast", upstream = "default" }, { "*", upstream = "default" },
} }"""


def main(names):
    with tempfile.TemporaryDirectory(prefix="sparkgap-terminal-") as homes:
        aliases = pathlib.Path(homes, "aliases.lua")
        aliases.write_text(ALIASES, encoding="utf-8")
        for function in TESTS:
            if names and function.__name__ not in names:
                continue
            upstream, home, began = Upstream(), f"{homes}/{function.__name__}", time.monotonic()
            silence = ["--open-after", "0", "--ping-every", "1", "--usage-every", "1", "--log-level", "debug"]
            with Sparkgap("serve", "--upstream", upstream.url, "--hooks", str(aliases), *silence) as proxy:
                terminal = Terminal(proxy, home)
                try:
                    function(terminal, proxy, upstream, home)
                except BaseException:
                    print(f"FAILED: {function.__name__}\n{proxy.log}", file=sys.stderr)
                    raise
                finally:
                    terminal.close()
            upstream.stop()
            print(f"  ok: {function.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"Claude Code in a terminal: {len(names) or len(TESTS)} passed")


if __name__ == "__main__":
    main(sys.argv[1:])
