#!/usr/bin/env python3
"""`sparkgap claude` with the real Claude Code, whose settings files lead elsewhere: nothing goes there.

SPARKGAP and CLAUDE: the binaries. The other server is one that counts what reaches it.
"""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

from sparkgap import Sparkgap
from upstream import Upstream

KEY = "sk-our-lan"


class Elsewhere:
    """The server of somebody else."""

    def __init__(self):
        heads = self.heads = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                heads.append(f"{self.command} {self.path} {self.headers}")
                self.send_response(400)
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_POST = do_HEAD = do_CONNECT = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def cases(url):
    """Name, file below the home, its content."""
    other = {"env": {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": "sk-other", "ANTHROPIC_API_KEY": "sk-other-2"}}
    bedrock = {
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "ANTHROPIC_BEDROCK_BASE_URL": url,
        "AWS_BEARER_TOKEN_BEDROCK": "sk-other",
        "AWS_REGION": "us-east-1",
    }
    return [
        ("of the person", ".claude/settings.json", other),
        ("of the project", "work/.claude/settings.json", other),
        ("of the project, local", "work/.claude/settings.local.json", other),
        ("another key only", ".claude/settings.json", {"env": {"ANTHROPIC_AUTH_TOKEN": "sk-other"}}),
        ("a program that gives a key", ".claude/settings.json", {"apiKeyHelper": "echo sk-other"}),
        ("another provider", ".claude/settings.json", {"env": bedrock}),
        ("a proxy", ".claude/settings.json", {"env": {"HTTP_PROXY": url, "http_proxy": url}}),
    ]


def run(home, environment, *arguments, program="sparkgap"):
    """Runs a command of sparkgap, or another program, in a home, with `claude` on the path."""
    home = pathlib.Path(home)
    (home / "bin").mkdir(exist_ok=True)
    if not (home / "bin/claude").exists():
        (home / "bin/claude").symlink_to(os.environ["CLAUDE"])
    basic = {
        "HOME": str(home),
        "PATH": f"{home}/bin:/usr/local/bin:/usr/bin:/bin",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    return subprocess.run(
        [os.environ["SPARKGAP"] if program == "sparkgap" else program, *arguments],
        env={**basic, **environment},
        cwd=home / "work",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def check(name, home, proxy, elsewhere, environment=(), arguments=()):
    done = run(home, {"SPARKGAP_URL": proxy.url, "SPARKGAP_API_KEY": KEY, **dict(environment)}, "claude", *arguments, "-p", "please do THINK")
    assert "42" in done.stdout and done.returncode == 0, (name, done)
    assert not elsewhere.heads, (name, elsewhere.heads)
    print(f"  ok: {name}", flush=True)


def without_program(homes, proxy, elsewhere):
    """The forms of /env for a machine that has no sparkgap, and the settings file that sparkgap writes."""
    prompt = "-p 'please do THINK'"
    get = f"curl -fsS -H 'x-api-key: {KEY}' {proxy.url}"
    other = json.dumps({"env": {"ANTHROPIC_BASE_URL": elsewhere.url, "ANTHROPIC_AUTH_TOKEN": "sk-other"}, "apiKeyHelper": "echo sk-other"})
    sparkgap = f"SPARKGAP_URL={proxy.url} SPARKGAP_API_KEY={KEY} {os.environ['SPARKGAP']}"
    for name, settings, script in (
        ("the script of /env.sh", None, f'eval "$({get}/env.sh || echo false)" && claude {prompt}'),
        ("the settings of /env.json", other, f"{get}/env.json -o box.json && claude --settings box.json {prompt}"),
        ("the settings file that sparkgap writes", other, f"{sparkgap} claude --settings >&2 && claude {prompt}"),
    ):
        home = pathlib.Path(homes, name.replace("/", " "))
        (home / "work").mkdir(parents=True)
        if settings:
            (home / ".claude").mkdir()
            (home / ".claude/settings.json").write_text(settings, encoding="utf-8")
        done = run(home, {}, "-c", script, program="/bin/sh")
        assert "42" in done.stdout and done.returncode == 0, (name, done)
        assert not elsewhere.heads, (name, elsewhere.heads)
        print(f"  ok: {name}", flush=True)
    # An error is a script that leads nowhere, even where `claude` runs behind it: nothing reaches another server.
    failing = f'eval "$(curl -s {proxy.url}/env.sh)"; echo "$ANTHROPIC_BASE_URL"'
    done = run(home, {}, "-c", failing, program="/bin/sh")
    assert done.stdout == "https://sparkgap-gave-no-environment.invalid\n" and "key is missing" in done.stderr, done


def main():
    elsewhere = Elsewhere()
    upstream = Upstream()
    with tempfile.TemporaryDirectory(prefix="sparkgap-settings-", ignore_cleanup_errors=True) as homes:
        keys = pathlib.Path(homes, "keys")
        keys.write_text(f"{KEY} anna\n", encoding="utf-8")
        with Sparkgap("serve", "--upstream", upstream.url, "--api-key-file", str(keys)) as proxy:
            for i, (name, file, content) in enumerate(cases(elsewhere.url)):
                home = pathlib.Path(homes, str(i))
                (home / "work").mkdir(parents=True)
                (home / file).parent.mkdir(parents=True, exist_ok=True)
                (home / file).write_text(json.dumps(content), encoding="utf-8")
                check(f"settings {name}", home, proxy, elsewhere)
            home = pathlib.Path(homes, "plain")
            (home / "work").mkdir(parents=True)
            own = json.dumps({"env": {"ANTHROPIC_BASE_URL": elsewhere.url}})
            check("the person's own --settings", home, proxy, elsewhere, arguments=["--settings", own])
            for name, environment in (
                ("another provider", {"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_BEDROCK_BASE_URL": elsewhere.url}),
                ("a socket", {"ANTHROPIC_UNIX_SOCKET": "/nowhere"}),
                ("a proxy", {"HTTP_PROXY": elsewhere.url, "http_proxy": elsewhere.url}),
                ("another key", {"ANTHROPIC_API_KEY": "sk-other"}),
            ):
                check(f"{name} in the environment", home, proxy, elsewhere, environment=environment)
            without_program(homes, proxy, elsewhere)
            # The same file beats an evaluated environment: it is refused.
            done = run(pathlib.Path(homes, "0"), {"SPARKGAP_URL": proxy.url, "SPARKGAP_API_KEY": KEY}, "env")
            assert done.returncode == 1 and done.stdout == "false\n" and "settings.json" in done.stderr, done
            assert "ANTHROPIC_BASE_URL" in done.stderr, done
    upstream.stop()
    elsewhere.server.shutdown()
    print("Claude Code's settings files: all passed")


if __name__ == "__main__":
    sys.exit(main())
