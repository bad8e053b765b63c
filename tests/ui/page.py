"""The live page as a person sees it: see `run`. Prints a line for each test, and asserts no time."""

import json
import pathlib
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

from browser import Browser
from world import HOSTILE, HOSTILE_MODEL, MODEL, Box, People, Sparkgap

SHOTS = pathlib.Path(__file__).resolve().parents[2] / "target" / "ui"
VIEWS = ["boxes", "now", "conversations", "requests", "errors", "usage", "connect"]
ROWS = "#request-table tbody tr"
SHOWN = f"document.querySelectorAll('{ROWS}:not([hidden])').length"
ROWS_MAX = 1000


def show(browser, view):
    browser.run(f"location.hash = '#{view}'")
    browser.wait(f"!document.getElementById('view-{view}').hidden")


def live(browser, proxy):
    browser.open(f"{proxy.url}/ui")
    browser.wait("document.getElementById('link').textContent === 'live'")


def set_value(browser, field, value):
    browser.run(f"(() => {{ const it = document.getElementById('{field}'); it.value = {json.dumps(value)}; it.dispatchEvent(new Event('input', {{bubbles: true}})); }})()")


def check_clean(browser, proxy, *allowed):
    """No error in the console, nothing asked of another host, no name was run."""
    errors = [error for error in browser.errors if not any(word in error for word in allowed)]
    assert not errors, errors
    foreign = [url for url in browser.urls if not url.startswith((proxy.url, "data:", "about:"))]
    assert not foreign, foreign
    assert browser.run("window.hacked") is None
    browser.errors.clear()
    browser.urls.clear()


def views(browser, proxy):
    """A busy morning: every view has its facts."""
    people = [People(proxy, f"{name}f3a1c-7b2d-4e1a-9c55-0d2fa{name}", 9, size=14_000) for name in ["a1", "c3", "d9", "e4"]]
    people += [People(proxy, people[0].session, 6, size=5000, agent="agent-7", lane="subagent"),
               People(proxy, "07c19e-title", 12, size=300, lane="auxiliary", output=20, model="claude-haiku-5-5")]
    for person in people:
        person.start()
    assert proxy.ask([{"role": "user", "content": "please fail"}], "e4f3a1c") == 400
    live(browser, proxy)
    show(browser, "now")
    browser.wait("document.querySelectorAll('#now-table tbody tr').length >= 3")
    browser.wait("[...document.querySelectorAll('#now-table tbody tr')].some((tr) => /writing/.test(tr.innerText) && /first token after/.test(tr.innerText))")
    browser.shot(SHOTS / "now.png")
    for person in people:
        person.join()
    # Alone, so that no other cause of a lost prefix comes between.
    People(proxy, "b8f3a1c-7b2d-4e1a-9c55-0d2fab8", 9, size=14_000, change_at=5).run()
    show(browser, "boxes")
    browser.wait("document.querySelectorAll('#box-list article').length === 3")
    browser.wait("document.querySelectorAll('#box-list canvas').length === 3")
    text = browser.run("document.getElementById('box-list').innerText")
    assert all(name in text for name in ["spark-1", "spark-2", "studio", "well", "vllm", "qwen3-coder-480b (131k)", "cache in use"]), text
    browser.size(1200, 580)
    browser.wait("[...document.querySelectorAll('#box-list canvas')].every((it) => it.getBoundingClientRect().right < 1200)")
    browser.shot(SHOTS / "boxes.png")
    browser.size(1400, 900)
    show(browser, "conversations")
    browser.wait("document.querySelectorAll('#talk-list article').length === 7 && state.rows.length === 64")
    text = browser.run("document.getElementById('talk-list').innerText")
    assert "prefix lost at" in text and "system_prompt_changed" in text, text
    assert "of 131k" in text and "agent-7" in text, text
    assert browser.run("document.querySelectorAll('#talk-list .turns i.lost').length") >= 1
    browser.shot(SHOTS / "conversations.png")
    show(browser, "requests")
    browser.wait(f"{SHOWN} === 64")
    browser.size(1200, 640)
    browser.shot(SHOTS / "requests.png")
    browser.size(1400, 900)
    show(browser, "errors")
    browser.wait("document.querySelectorAll('#error-list .fault').length === 1")
    browser.shot(SHOTS / "errors.png")
    show(browser, "usage")
    browser.wait("document.querySelectorAll('#usage-table tbody tr').length === 2")
    text = browser.run("document.getElementById('usage-table').innerText")
    assert "127.0.0.1" in text and "claude-haiku-5-5" in text, text
    show(browser, "connect")
    text = browser.run("document.getElementById('connect-list').innerText")
    assert all(f"{proxy.url}/env.{end}" in text for end in ["sh", "fish", "json"]) and f"'{proxy.url}/env.ps1'" in text, text
    browser.shot(SHOTS / "connect.png")


def filters(browser, _):
    """Filters of the requests, alone and together."""
    show(browser, "requests")
    for field, value, expected in [
        ("f-outcome", "error", "=== 1"), ("f-outcome", "lost", ">= 1"), ("f-outcome", "cancelled", "=== 0"), ("f-outcome", "", "=== 64"),
        ("f-text", "HAIKU", "=== 12"), ("f-text", "agent-7", "=== 6"), ("f-text", "nothing has this", "=== 0"), ("f-text", "", "=== 64"),
        ("f-slow", "60000", "=== 0"), ("f-slow", "0", "=== 64"), ("f-box", "studio", "< 64"),
    ]:
        set_value(browser, field, value)
        browser.wait(f"{SHOWN} {expected}")
    boxes = browser.run(f"[...document.querySelectorAll('{ROWS}:not([hidden])')].every((tr) => tr.row.upstream === 'studio')")
    assert boxes
    set_value(browser, "f-box", "")
    browser.wait("document.getElementById('f-count').textContent === '64 of 64'")


def waterfall(browser, _):
    """One request: its phases one after the other, its tokens, and why its prefix was lost."""
    set_value(browser, "f-outcome", "lost")
    browser.run(f"document.querySelector('{ROWS}:not([hidden])').click()")
    browser.wait("document.getElementById('detail').open")
    text = browser.run("document.getElementById('detail').innerText")
    assert "reading the prompt" in text and "writing the answer" in text and "system_prompt_changed" in text, text
    marks = browser.run("[...document.querySelectorAll('#detail .track i')].map((i) => [i.offsetLeft, i.offsetLeft + i.offsetWidth, i.parentNode.offsetWidth])")
    assert len(marks) >= 2 and all(end <= width + 3 for _, end, width in marks), marks
    assert all(after[0] >= before[1] - 4 for before, after in zip(marks, marks[1:])), marks
    browser.shot(SHOTS / "request.png")
    browser.run("document.getElementById('detail').close()")
    set_value(browser, "f-outcome", "")


def looks(browser, _):
    """Light and dark, and a phone: nothing is wider than the screen."""
    backgrounds = set()
    for scheme in ["dark", "light"]:
        browser.scheme(scheme)
        backgrounds.add(browser.run("getComputedStyle(document.body).backgroundColor"))
        show(browser, "boxes")
        browser.wait("document.querySelectorAll('#box-list canvas').length === 3")
        browser.shot(SHOTS / f"boxes-{scheme}.png")
    assert len(backgrounds) == 2, backgrounds
    browser.size(390, 844, 2)
    for view in VIEWS:
        show(browser, view)
        browser.wait("document.documentElement.scrollWidth <= 390")
        wide = browser.run("[...document.querySelectorAll('main *')].filter((it) => it.getBoundingClientRect().right > 391 && !it.closest('.turns, .chart, td, pre')).map((it) => it.outerHTML.slice(0, 90))")
        assert not wide, (view, wide)
        browser.shot(SHOTS / f"{view}-390.png")
    browser.size(1400, 900)


def keyboard(browser, _):
    """Without a mouse: to a view, to a row, into a request and back."""
    show(browser, "boxes")
    browser.run("document.querySelector('.brand').focus()")
    for _ in range(4):
        browser.key("Tab", 9)
    assert browser.run("document.activeElement.hash") == "#requests"
    browser.key("Enter", 13, "\r")
    browser.wait("!document.getElementById('view-requests').hidden")
    for _ in range(40):
        browser.key("Tab", 9)
        if browser.run("document.activeElement.matches('tr')"):
            break
    assert browser.run("document.activeElement.matches('tr')")
    browser.key("ArrowDown", 40)
    browser.key("ArrowDown", 40)
    assert browser.run("document.activeElement.rowIndex") == 3
    browser.key("Enter", 13, "\r")
    browser.wait("document.getElementById('detail').open")
    browser.key("Escape", 27)
    browser.wait("!document.getElementById('detail').open")
    assert browser.run("document.activeElement.rowIndex") == 3, "the focus returns to the row"


def hostile(browser, proxy):
    """Names that would be run if they were not inserted as text."""
    messages = [{"role": "user", "content": "please fail"}]
    proxy.ask(messages, HOSTILE, model=HOSTILE_MODEL, agent=HOSTILE)
    proxy.ask([{"role": "user", "content": "hello " * 50}], HOSTILE, model=HOSTILE_MODEL, agent=HOSTILE)
    for view in VIEWS:
        show(browser, view)
        browser.wait("!document.querySelector('main script, main img, main b[onmouseover]')")
    show(browser, "requests")
    set_value(browser, "f-text", "<b onmouseover")
    browser.wait(f"{SHOWN} === 2")
    for _ in range(2):
        assert HOSTILE_MODEL in browser.run(f"document.querySelector('{ROWS}:not([hidden])').textContent")
    browser.run(f"[...document.querySelectorAll('{ROWS}:not([hidden])')].find((tr) => tr.row.error).click()")
    browser.wait("document.getElementById('detail').open")
    text = browser.run("document.getElementById('detail').textContent")
    assert HOSTILE in text and "no such adapter" in text, text
    assert not browser.run("document.querySelector('#detail script, #detail img')")
    browser.run("document.getElementById('detail').close()")
    set_value(browser, "f-text", "")


def many(browser, proxy):
    """1,000 rows, and then 50 new ones a second: the page has the newest 1,000, and still answers."""
    asked = [0]
    lock = threading.Lock()

    def ask(until, pause):
        while True:
            with lock:
                if asked[0] >= until:
                    return
                asked[0] += 1
            proxy.ask([{"role": "user", "content": "hello"}], "many", output=10)
            time.sleep(pause)

    def run(until, pause):
        threads = [threading.Thread(target=ask, args=(until, pause)) for _ in range(10)]
        for thread in threads:
            thread.start()
        return threads

    for thread in run(1050, 0):
        thread.join()
    show(browser, "requests")
    browser.wait(f"document.querySelectorAll('{ROWS}').length === {ROWS_MAX}")
    browser.run("(() => { let last = performance.now(); window.frames_ = []; const tick = (now) => { frames_.push(now - last); last = now; requestAnimationFrame(tick); }; requestAnimationFrame(tick); })()")
    # 10 threads with 0.2 s between two requests: about 50 a second.
    threads = run(1050 + 400, 0.2)
    while any(thread.is_alive() for thread in threads):
        for view in ["conversations", "boxes", "requests"]:
            show(browser, view)
        set_value(browser, "f-text", "man")
        set_value(browser, "f-text", "")
    browser.wait(f"document.querySelectorAll('{ROWS}').length === {ROWS_MAX}")
    browser.wait(f"document.querySelector('{ROWS}').row.number >= 1450 && state.rows.length === {ROWS_MAX}")
    frames = sorted(browser.run("frames_"))
    print(f"  {len(frames)} frames, half within {frames[len(frames) // 2]:.0f} ms, 99 of 100 within {frames[len(frames) * 99 // 100]:.0f} ms, the longest {frames[-1]:.0f} ms")
    browser.shot(SHOTS / "many.png")


def crowd(browser, proxy):
    """Eight may look; the next is told so, and gets in once one of them has left."""
    browser.open("about:blank")
    streams = []
    for _ in range(8):
        streams.append(urllib.request.urlopen(f"{proxy.url}/ui/events", timeout=60))
        assert streams[-1].readline().startswith(b"data: {")
    try:
        urllib.request.urlopen(f"{proxy.url}/ui/events", timeout=60)
        raise AssertionError("the ninth gets in")
    except urllib.error.HTTPError as error:
        assert error.code == 503 and "8 browsers" in json.load(error)["error"]["message"]
    browser.open(f"{proxy.url}/ui")
    browser.wait("/8 browsers look/.test(document.getElementById('link').textContent)")
    for stream in streams:
        stream.close()
    browser.wait("document.getElementById('link').textContent === 'live'")


def restart(browser, boxes):
    """The server starts anew at its address: the page finds it, and drops the rows of the old one."""
    proxy = Sparkgap(boxes)
    for _ in range(3):
        proxy.ask([{"role": "user", "content": "hello"}], "before", output=10)
    live(browser, proxy)
    show(browser, "requests")
    browser.wait(f"{SHOWN} === 3")
    proxy.end()
    browser.wait("/connection lost/.test(document.getElementById('link').textContent)")
    again = Sparkgap(boxes, listen=proxy.url.removeprefix("http://"))
    again.ask([{"role": "user", "content": "hello"}], "after", output=10)
    browser.wait(f"{SHOWN} === 1 && document.querySelector('{ROWS}').row.session === 'after'")
    check_clean(browser, again, "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED")
    again.end()


def keys(browser, boxes):
    """A server with keys: a wrong one, a right one, and one that ends while the page is open."""
    proxy = Sparkgap(boxes, keys="sk-0123456789abcdefghijklmn anna\nsk-another89abcdefghijklmno ben\n")
    proxy.ask([{"role": "user", "content": "hello"}], "mine", key="sk-0123456789abcdefghijklmn", output=10)
    browser.open(f"{proxy.url}/ui")
    browser.wait("!document.getElementById('login').hidden")
    assert not browser.run("document.body.innerText.includes('anna')")
    browser.wait("document.activeElement.id === 'key'")
    browser.type("sk-wrong-wrong-wrong-wrong-")
    browser.key("Enter", 13, "\r")
    browser.wait("/not valid/.test(document.getElementById('login-error').textContent)")
    browser.run("document.getElementById('key').select()")
    browser.type("sk-0123456789abcdefghijklmn")
    browser.shot(SHOTS / "login.png")
    browser.key("Enter", 13, "\r")
    browser.wait("document.getElementById('link').textContent === 'live'")
    show(browser, "requests")
    browser.wait(f"{SHOWN} === 1 && document.querySelector('{ROWS}').innerText.includes('anna')")
    assert browser.run("document.cookie") == "", "scripts cannot read the cookie"
    cookies = browser.call("Network.getCookies")["cookies"]
    assert [(it["path"], it["httpOnly"], it["sameSite"]) for it in cookies] == [("/ui", True, "Strict")], cookies
    assert "0123456789abcdef" not in cookies[0]["value"], "the cookie does not hold the key"
    # A reload of the page keeps the session; the end of the key ends it.
    live(browser, proxy)
    proxy.write_keys("sk-another89abcdefghijklmno ben\n")
    proxy.process.send_signal(signal.SIGHUP)
    browser.wait("!document.getElementById('login').hidden")
    assert not browser.run("document.body.innerText.includes('anna')")
    browser.type("sk-another89abcdefghijklmno")
    browser.key("Enter", 13, "\r")
    browser.wait("document.getElementById('link').textContent === 'live'")
    browser.run("document.getElementById('logout').click()")
    browser.wait("!document.getElementById('login').hidden")
    assert not browser.call("Network.getCookies")["cookies"]
    check_clean(browser, proxy, "401")
    proxy.end()


def press_tab_until(browser, script):
    for _ in range(60):
        browser.key("Tab", 9)
        if browser.run(script):
            return
    raise AssertionError(f"Tab does not lead to: {script}")


def part(browser, title):
    """Opens a part of a recording with the keyboard alone, and returns its text when it is there."""
    here = f"document.activeElement.matches('#detail summary') && document.activeElement.textContent === {json.dumps(title)}"
    press_tab_until(browser, here)
    browser.key("Enter", 13, "\r")
    details = f"[...document.querySelectorAll('#detail details')].find((it) => it.firstChild.textContent === {json.dumps(title)})"
    shown = f"[...{details}.children].slice(1).map((it) => it.textContent).join('')"
    browser.wait(f"{details}.open && {shown} && {shown} !== 'loading'")
    return browser.run(shown)


def recorded(browser, boxes):
    """A recorded request: each of its parts with the keyboard alone, and a body that would be run if it were not text."""
    hook = "on_request = function(req) req.body.temperature = 0.5 end"
    proxy = Sparkgap(boxes, record="all", lua=hook)
    bad = "</script><img src=x onerror=window.hacked=1>\u202eleft\u200b \0"
    messages = [{"role": "user", "content": bad}]
    proxy.ask(messages, "recorded", output=10)
    messages += [{"role": "assistant", "content": "word"}, {"role": "user", "content": "one line " * 120_000 + bad}]
    proxy.ask(messages, "recorded", output=10)
    live(browser, proxy)
    show(browser, "requests")
    browser.wait(f"{SHOWN} === 2")
    browser.run("document.getElementById('f-slow').focus()")
    press_tab_until(browser, "document.activeElement.matches('tr')")
    browser.key("ArrowDown", 40)
    browser.key("Enter", 13, "\r")
    browser.wait("document.getElementById('detail').open")
    text = part(browser, "Client's body")
    assert "</script><img src=x onerror=window.hacked=1>\\u202eleft\\u200b \\u0000" in text, text
    assert part(browser, "Changes by hooks") == "+ temperature: 0.5\n"
    text = part(browser, "Upstream's body")
    assert "sent to fast after" in text and f'"model": "{MODEL}"' in text, text
    assert "nothing to compare with" in part(browser, "Difference to the turn before")
    assert " ms  data: {" in part(browser, "Upstream's answer")
    assert "event: message_stop" in part(browser, "Client's answer")
    assert not browser.run("document.querySelector('#detail script, #detail img')")
    # A long text scrolls in its own box, which the keyboard reaches.
    press_tab_until(browser, "document.activeElement.matches('#detail button[aria-label=Close]')")
    browser.key("Enter", 13, "\r")
    browser.wait("!document.getElementById('detail').open")
    browser.key("ArrowUp", 38)
    browser.key("Enter", 13, "\r")
    browser.wait("document.getElementById('detail').open")
    text = part(browser, "Difference to the turn before")
    assert "+       \"role\": \"assistant\"" in text and "only the first" in text, text[:3000]
    assert browser.run("document.querySelectorAll('#detail .added').length") >= 4
    text = part(browser, "Client's body")
    assert "only the first 2621" in text and "bytes are shown: `sparkgap show req_" in text, text[:300]
    boxes_ = browser.run("[...document.querySelectorAll('#detail pre')].map((it) => [it.scrollHeight > it.clientHeight, it.clientHeight <= 560, it.scrollWidth <= it.clientWidth])")
    assert len(boxes_) == 2 and all(all(it) for it in boxes_), boxes_
    press_tab_until(browser, "document.activeElement.matches('#detail pre')")
    browser.key("PageDown", 34)
    browser.wait("document.activeElement.scrollTop > 0")
    for scheme in ["dark", "light"]:
        browser.scheme(scheme)
        browser.shot(SHOTS / f"recorded-{scheme}.png")
    browser.size(390, 844, 2)
    browser.wait("document.getElementById('detail').scrollWidth <= document.getElementById('detail').clientWidth")
    browser.run("document.querySelector('#detail details[open] summary').scrollIntoView()")
    browser.shot(SHOTS / "recorded-390.png")
    browser.size(1400, 900)
    browser.key("Escape", 27)
    browser.wait("!document.getElementById('detail').open")
    check_clean(browser, proxy)
    proxy.end()


def unrecorded(browser, boxes):
    """A request that was not recorded: the page says what would have recorded it. A key that ends while a part is opened."""
    proxy = Sparkgap(boxes, record="errors", keys="sk-0123456789abcdefghijklmn anna\nsk-another89abcdefghijklmno ben\n")
    for key, content in [("sk-0123456789abcdefghijklmn", "hello"), ("sk-another89abcdefghijklmno", "please fail"), ("sk-0123456789abcdefghijklmn", "please fail")]:
        proxy.ask([{"role": "user", "content": content}], "mine", key=key, output=10)
    browser.open(f"{proxy.url}/ui#requests")
    browser.wait("!document.getElementById('login').hidden && document.activeElement.id === 'key'")
    browser.type("sk-0123456789abcdefghijklmn")
    browser.key("Enter", 13, "\r")
    browser.wait(f"{SHOWN} === 3")
    for row, expected in [(3, "only those that fail are"), (2, "another client's")]:
        browser.run(f"document.querySelector('{ROWS}:nth-child({row})').click()")
        browser.wait("document.getElementById('detail').open")
        browser.run("document.querySelector('#detail summary').focus()")
        browser.run("document.querySelector('#detail summary').click()")
        browser.wait(f"document.querySelector('#detail details').textContent.includes({json.dumps(expected)})")
        if row == 3:
            browser.shot(SHOTS / "unrecorded.png")
        browser.key("Escape", 27)
        browser.wait("!document.getElementById('detail').open")
    browser.run(f"document.querySelector('{ROWS}').click()")
    browser.run("document.querySelectorAll('#detail summary')[4].click()")
    browser.wait("/no such adapter/.test(document.querySelectorAll('#detail details')[4].textContent)")
    # Without its events the page learns only from the part that its session has ended.
    browser.run("stop.abort()")
    proxy.write_keys("sk-another89abcdefghijklmno ben\n")
    proxy.process.send_signal(signal.SIGHUP)
    proxy.wait_for("keys of clients loaded: 1")
    browser.run("document.querySelectorAll('#detail summary')[0].click()")
    browser.wait("!document.getElementById('login').hidden && !document.getElementById('detail').open")
    assert not browser.run("document.body.textContent.includes('adapter')"), "the texts have gone with the session"
    check_clean(browser, proxy, "401", "403", "404")
    proxy.end()


def main():
    SHOTS.mkdir(parents=True, exist_ok=True)
    boxes = {"spark-1": Box(), "spark-2": Box(read=4200, write=70), "studio": Box(read=1500, write=35)}
    fast = {"fast": Box(read=0, write=0)}
    browser = Browser()
    proxy, quick = Sparkgap(boxes), Sparkgap(fast, places=32)
    try:
        for test, server, allowed in [(views, proxy, ()), (filters, proxy, ()), (waterfall, proxy, ()), (looks, proxy, ()), (keyboard, proxy, ()), (hostile, proxy, ())]:
            test(browser, server)
            check_clean(browser, server, *allowed)
            print(f"ok: {test.__doc__}", flush=True)
        live(browser, quick)
        for test, allowed in [(many, ()), (crowd, ("503",))]:
            browser.urls.clear()
            test(browser, quick)
            check_clean(browser, quick, *allowed)
            print(f"ok: {test.__doc__}", flush=True)
        for test in [restart, keys, recorded, unrecorded]:
            browser.open("about:blank")
            browser.urls.clear()
            test(browser, fast)
            print(f"ok: {test.__doc__}", flush=True)
    finally:
        browser.end()
        failed = sys.exc_info()[0]
        for server in [proxy, quick]:
            if failed:
                server.process.kill()
            else:
                server.end()


main()
