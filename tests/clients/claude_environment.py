#!/usr/bin/env python3
"""The real Claude Code, headless, with all that `sparkgap claude` sets: the windows, the files, the tools, the lanes.

SPARKGAP and CLAUDE: the binaries.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from sparkgap import Sparkgap
from upstream import MODEL, WINDOW, Upstream

# What Claude Code says of its requests goes upstream, where it is recorded.
HOOKS = """return { api = 1, on_upstream_request = function(body, req)
  body.user = req.headers["x-claude-code-request-class"]
end }"""

TESTS = []


def test(window):
    """A test with an upstream of this window."""

    def add(function):
        TESTS.append((function, window))
        return function

    return add


class Claude:
    """`sparkgap claude` in a home of its own."""

    def __init__(self, url, home):
        self.home, self.work = home, pathlib.Path(home, "work")
        self.work.mkdir(parents=True)
        pathlib.Path(home, "bin").mkdir()
        pathlib.Path(home, "bin/claude").symlink_to(os.environ["CLAUDE"])
        self.environment = {
            "HOME": home,
            "PATH": f"{home}/bin:/usr/local/bin:/usr/bin:/bin",
            "DISABLE_AUTOUPDATER": "1",
            "SPARKGAP_URL": url,
        }

    def __call__(self, prompt, *arguments, keep=()):
        """Runs a prompt. Returns the result, and what was said on stderr."""
        done = subprocess.run(
            [os.environ["SPARKGAP"], "claude", "-p", prompt, "--output-format", "json", *arguments],
            env={**self.environment, **dict(keep)},
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout), done.stderr


def tools(request):
    return [tool["function"]["name"] for tool in request["body"].get("tools", [])]


def text(request):
    return json.dumps(request["body"]["messages"])


@test(WINDOW)
def every_choice_of_a_model_has_the_window(claude, upstream):
    for model in ("sonnet", "fable", "default"):
        result, _ = claude("please do THINK", "--model", model)
        windows = {name: usage["contextWindow"] for name, usage in result["modelUsage"].items()}
        assert windows == {MODEL: WINDOW}, (model, windows)


@test(65_536)
def four_files_at_once_leave_room(claude, upstream):
    for name in "abcd":
        lines = "".join(f"{i:05} some words that a tokenizer cuts into pieces\n" for i in range(1160))
        (claude.work / f"{name}.txt").write_text(lines, encoding="utf-8")
    result, _ = claude("please do READS", "--allowedTools", "Read")
    assert result["result"] == "Four files were read." and len(upstream.requests) == 2, result
    # In the model's tokens they have four times 16,000.
    assert len(text(upstream.requests[1])) // 4 < 65_536 // 8 * 5, "each takes at most an eighth of the window"


@test(WINDOW)
def all_tools_are_there_from_the_start(claude, upstream):
    """In a large window no tool comes late, so the beginning of the prompt stays. WebFetch does not ask claude.ai first."""
    result, said = claude("please do LATE", "--allowedTools", "WebFetch")
    assert result["subtype"] == "success" and "Unable to verify" not in result["result"], result
    declared = [tools(request) for request in upstream.requests]
    assert len(declared) == 2 and declared[0] == declared[1], declared
    assert "WebFetch" in declared[0] and "ToolSearch" not in declared[0], declared[0]
    assert "auto mode" not in said, said
    assert [request["body"].get("user") for request in upstream.requests] == ["main", "main"]


@test(65_536)
def a_small_window_keeps_tool_search(claude, upstream):
    claude("please do LATE", "--allowedTools", "WebFetch ToolSearch")
    declared = [tools(request) for request in upstream.requests]
    assert "WebFetch" not in declared[0] and "ToolSearch" in declared[0] and "WebFetch" in declared[-1], declared


@test(WINDOW)
def a_preference_of_the_person_counts(claude, upstream):
    claude("please do LATE", "--allowedTools", "WebFetch ToolSearch", keep={"ENABLE_TOOL_SEARCH": "true"})
    assert "ToolSearch" in tools(upstream.requests[0])


@test(40_000)
def a_window_too_small_for_auto_mode(claude, upstream):
    """The note says which setting does it, and Claude Code runs, whatever mode a person asks for."""
    result, said = claude("please do THINK", "--permission-mode", "auto")
    assert "auto mode is not offered (setting disableAutoMode): its check" in said, said
    assert "42" in result["result"], result


def main(names):
    with tempfile.TemporaryDirectory(prefix="sparkgap-environment-", ignore_cleanup_errors=True) as homes:
        hooks = pathlib.Path(homes, "hooks.lua")
        hooks.write_text(HOOKS, encoding="utf-8")
        for function, window in TESTS:
            if names and function.__name__ not in names:
                continue
            upstream, began = Upstream(window=window), time.monotonic()
            with Sparkgap("serve", "--upstream", upstream.url, "--hooks", str(hooks)) as proxy:
                try:
                    function(Claude(proxy.url, f"{homes}/{function.__name__}"), upstream)
                except BaseException:
                    print(f"FAILED: {function.__name__}\n{proxy.log}", file=sys.stderr)
                    raise
            upstream.stop()
            print(f"  ok: {function.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"Claude Code with the environment of sparkgap: {len(names) or len(TESTS)} passed")


if __name__ == "__main__":
    main(sys.argv[1:])
