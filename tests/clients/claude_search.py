#!/usr/bin/env python3
"""Claude Code's WebSearch through sparkgap to a scripted SearXNG: no model is asked, and the client shows the results.

SPARKGAP and CLAUDE: the binaries.
"""

import pathlib
import tempfile
from urllib.parse import parse_qs, urlsplit

from claude_code import Claude, chats
from server import Handler, serve
from sparkgap import Sparkgap
from upstream import Upstream

RESULTS = [
    {"url": "https://rust-lang.org/", "title": "Rust Programming Language", "content": "Reliable and efficient software.", "engine": "brave"},
    {"url": "https://blog.rust-lang.org/edition", "title": "The edition of 2027", "content": "A new edition.", "publishedDate": "2026-11-02T00:00:00"},
]


class Searxng(Handler):
    """Answers in SearXNG's JSON format."""

    asked = []

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)
        self.asked.append(query)
        self.whole(200, {"query": query["q"][0], "results": RESULTS, "answers": [], "unresponsive_engines": []})


def main():
    searxng = serve(Searxng)
    with tempfile.TemporaryDirectory(prefix="sparkgap-search-") as home:
        hooks = pathlib.Path(home, "search.lua")
        hooks.write_text(f'return {{ search = {{ searxng = "{searxng}" }} }}')
        upstream = Upstream()
        with Sparkgap("serve", "--upstream", upstream.url, "--hooks", str(hooks)) as proxy:
            claude = Claude(proxy, home)
            run = claude("please do SEARCH", "--allowedTools", "WebSearch", keep="ENABLE_TOOL_SEARCH=false")
            run.ended_well("rust-lang.org")
        result = run.tool_results()[0]
        upstream.stop()
    for expected in ["Rust Programming Language", "https://blog.rust-lang.org/edition", "Reliable and efficient software."]:
        assert expected in result, result
    told = [event["tool_use_result"] for event in run.events if "tool_use_result" in event]
    hits = [part["content"] for part in told[0]["results"] if isinstance(part, dict)]
    assert [[hit["url"] for hit in found] for found in hits] == [[entry["url"] for entry in RESULTS]], told
    assert [query["q"] for query in Searxng.asked] == [["sparkgap"]] and Searxng.asked[0]["format"] == ["json"], Searxng.asked
    # The model was asked for the call and for the text behind its result, and for nothing else.
    assert len(chats(upstream)) == 2, chats(upstream)
    print(f"Claude Code's web search: passed ({told[0]['durationSeconds']:.2f} s)")


if __name__ == "__main__":
    main()
