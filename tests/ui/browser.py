"""A headless Chromium, driven over its DevTools protocol. Only the standard library."""

import base64
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time


class WebSocket:
    """As much of RFC 6455 as the DevTools protocol needs: text frames, both ways."""

    def __init__(self, url):
        host, port, path = re.match(r"ws://([^:/]+):(\d+)(/.*)", url).groups()
        self.socket = socket.create_connection((host, int(port)))
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        self.socket.sendall(head.encode())
        self.file = self.socket.makefile("rb")
        assert b"101" in self.file.readline()
        while self.file.readline() != b"\r\n":
            pass

    def send(self, text):
        data = text.encode()
        size = len(data)
        length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + struct.pack(">H", size) if size < 65536 else bytes([0xFF]) + struct.pack(">Q", size)
        # The mask may be zero: it is for proxies, and there are none.
        self.socket.sendall(b"\x81" + length + b"\0\0\0\0" + data)

    def receive(self):
        text = b""
        while True:
            first, size = self.file.read(2)
            if size == 126:
                size = struct.unpack(">H", self.file.read(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self.file.read(8))[0]
            text += self.file.read(size)
            if first & 0x80:
                return text.decode()


class Browser:
    """One page in one browser. `errors` collects errors of the console, `urls` every URL that was asked for."""

    def __init__(self):
        self.folder = tempfile.mkdtemp()
        command = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        assert command, "chromium is missing"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
                     "--remote-debugging-port=0", f"--user-data-dir={self.folder}", "about:blank"]
        self.process = subprocess.Popen([command, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for line in self.process.stderr:
            found = re.search(r"DevTools listening on (ws://\S+)", line)
            if found:
                break
        self.next, self.errors, self.urls, self.statuses = 0, [], [], []
        self.socket = WebSocket(found.group(1))
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Network", "Log"]:
            self.call(f"{domain}.enable")
        self.size(1400, 900)

    def call(self, method, **parameters):
        self.next += 1
        message = {"id": self.next, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.receive())
            if answer.get("id") == self.next:
                assert "error" not in answer, f"{method}: {answer}"
                return answer["result"]
            self.notice(answer)

    def notice(self, event):
        name, facts = event.get("method"), event.get("params", {})
        if name == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(facts["exceptionDetails"])[:600])
        elif name == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(facts["args"])[:600])
        elif name == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")
        elif name == "Network.requestWillBeSent":
            self.urls.append(facts["request"]["url"])

    def size(self, width, height, scale=1):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 500)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script):
        """The value of an expression, which may be a promise."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{script}: {answer}"
        return answer["result"].get("value")

    def wait(self, script, seconds=40):
        """Waits until an expression is true."""
        until = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < until, f"never true: {script}\n{self.run('document.body.innerText')[:3000]}\n{self.errors}"
            time.sleep(0.05)
        return value

    def key(self, name, code=0, text=None):
        facts = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        if text:
            facts["text"] = text
        self.call("Input.dispatchKeyEvent", type="keyDown", **facts)
        self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def shot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def end(self):
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)
