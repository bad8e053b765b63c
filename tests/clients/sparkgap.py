"""Starts the sparkgap that is to be tested, and ends it. SPARKGAP: the binary.

As a program: `sparkgap.py COMMAND...` runs a command with SPARKGAP_URL and UPSTREAM_RECORD in its environment.
"""

import os
import re
import subprocess
import sys
import tempfile
import threading

from upstream import Upstream


class Sparkgap:
    """A running proxy: `url` is its base URL, `log` what it wrote to stderr. Use it in a `with`."""

    def __init__(self, *arguments, key=None):
        command = [os.environ["SPARKGAP"], *arguments, "--listen", "127.0.0.1:0"]
        environment = {"SPARKGAP_UPSTREAM_KEY": key} if key else {}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.log = ""
        self.url = ""
        self.ready = threading.Event()
        self.grown = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()
        assert self.ready.wait(30), f"sparkgap does not listen:\n{self.log}"

    def read(self):
        for line in self.process.stderr:
            with self.grown:
                self.log += line
                self.grown.notify_all()
            found = re.search(r" listens on (http://\S+)", line)
            self.url = found.group(1) if found else self.url
            # Once it has asked the upstream too: the first request then finds everything known.
            if self.url and "upstream default" in self.log:
                self.ready.set()

    def wait_for(self, text):
        """Waits until this is in the log."""
        with self.grown:
            assert self.grown.wait_for(lambda: text in self.log, 60), f"no '{text}' in:\n{self.log}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(40) == 0, f"a bad end:\n{self.log}"
        assert "ERROR" not in self.log and "panicked" not in self.log, self.log


def main(command):
    """Runs a command beside a proxy in front of the scripted upstream, which it finds in its environment."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as record:
        upstream = Upstream(record.name)
        with Sparkgap("serve", "--upstream", upstream.url) as proxy:
            environment = {**os.environ, "SPARKGAP_URL": proxy.url, "UPSTREAM_RECORD": record.name}
            return subprocess.run(command, env=environment, timeout=300, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
