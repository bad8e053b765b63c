#!/usr/bin/env python3
"""The first start of Claude Code ever, in a terminal, with a fresh home and no network: by the line that `sparkgap demo`
prints, and by `eval "$(sparkgap env)" && claude`.

SPARKGAP and CLAUDE: the binaries. All of it runs in a network of its own that has only loopback, where this machine allows
that; a client that wanted to log in somewhere would end there.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

from claude_terminal import PATIENCE, Terminal, squeezed

ALONE = "SPARKGAP_TEST_IS_ALONE"


def alone():
    """Runs this program again in a network of its own. Returns its exit code, or None where that is not allowed."""
    for options in (["--net"], ["--net", "--map-root-user"]):
        unshare = ["unshare", *options, "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        try:
            possible = subprocess.run([*unshare, "true"], capture_output=True, timeout=30, check=False).returncode == 0
        except FileNotFoundError:
            possible = False
        if possible:
            command = [*unshare, sys.executable, *sys.argv]
            return subprocess.run(command, env={**os.environ, ALONE: "1"}, timeout=280, check=False).returncode
    print("  NOT IN A NETWORK OF ITS OWN: unshare is not allowed here; a proxy that is not there stands for it", flush=True)
    return None


class Demo:
    """A running demo, and the line that it prints."""

    def __init__(self):
        command = [os.environ["SPARKGAP"], "demo", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command, env={}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said, self.log = [], ""
        for text in self.process.stdout:
            self.said.append(text.rstrip("\n"))
            if text.endswith(" claude\n"):
                break
        self.line = self.said[-1].strip()
        assert self.said[0].startswith("sparkgap listens on http://"), self.said
        self.url = self.said[0].split()[-1]
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        self.log = self.process.stderr.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(40) == 0
        self.reader.join(40)


class FirstStart(Terminal):
    """A client that has never been started before."""

    def __init__(self, line, home):  # pylint: disable=super-init-not-called
        work, programs = pathlib.Path(home, "work"), pathlib.Path(home, "bin")
        work.mkdir(parents=True)
        programs.mkdir()
        # Nothing is known but that the folder is trusted: that question jumps back to its "No" by itself.
        known = {"projects": {str(work): {"hasTrustDialogAccepted": True}}}
        pathlib.Path(home, ".claude.json").write_text(json.dumps(known), encoding="utf-8")
        (programs / "claude").symlink_to(os.environ["CLAUDE"])
        (programs / "sparkgap").symlink_to(os.environ["SPARKGAP"])
        environment = {
            "HOME": home,
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "DISABLE_AUTOUPDATER": "1",
        }
        if ALONE not in os.environ:
            environment.update(HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="127.0.0.1,localhost")
        self.start(["/bin/sh", "-c", line], environment, work)
        self.wait_for("Choose the text style")
        self.press("\r")
        self.wait_for("Press Enter to continue")
        self.press("\r")

    def wait_for(self, text):
        """Waits until this is drawn, now or before: each text comes once, and the animation beside it moves all places."""
        wanted = squeezed(text)
        with self.grown:
            done = self.grown.wait_for(lambda: wanted in self.drawn or self.process.poll() is not None, PATIENCE)
            assert done and wanted in self.drawn, f"not drawn: {text}, but:\n{self.drawn}"

    def close(self):
        """Ends the shell and the client, which is its child."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        os.close(self.master)

    def works(self):
        """The demo's tool call is made and answered, with nobody asked to log in or to choose a key."""
        self.wait_for("auto mode on")
        self.enter("Say hello")
        self.wait_for("Hello from sparkgap")
        for text in ("Unable to connect", "log in", "/login", "custom API key", "can't check actions"):
            assert text.replace(" ", "") not in self.drawn, f"{text}:\n{self.drawn}"


def main():
    with tempfile.TemporaryDirectory(prefix="sparkgap-first-", ignore_cleanup_errors=True) as homes:
        for name in ("evaluated", "printed"):
            with Demo() as demo:
                lines = {
                    "printed": demo.line,
                    "evaluated": f'eval "$(sparkgap env --remote {demo.url})" && exec claude',
                }
                terminal = FirstStart(lines[name], f"{homes}/{name}")
                try:
                    terminal.works()
                finally:
                    terminal.close()
            # The whole environment was there: the model by its own name, and auto mode's check by a model here.
            assert " demo -> default/demo " in demo.log, demo.log
            print(f"  ok: the first start, {name}", flush=True)
    print("The first start of Claude Code: 2 passed")


if __name__ == "__main__":
    code = None if ALONE in os.environ else alone()
    if code is None:
        main()
    else:
        sys.exit(code)
