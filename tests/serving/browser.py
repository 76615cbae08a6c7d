"""Headless Chromium for tests: real keys, real clicks, pictures, and what the page asked of whom.

Over a pipe with Chromium's own protocol (https://chromedevtools.github.io/devtools-protocol/): no driver, no
package, no port. One browser serves a whole module; each tab has a storage of its own, so nothing is
remembered between tests.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT_S = 30.0
SHIFT = 8  # of the protocol's `modifiers`
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, "")}


class Browser:
    """Chromium and the pipe to it. `close` ends it."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        theirs_in, self._out = _pipe()
        self._in, theirs_out = _pipe()
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
        ]
        flags += [
            "--disable-features=IsolateSandboxedIframes"
        ]  # their requests are told with those of the tab
        flags += [
            "--hide-scrollbars",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]
        command = ["bash", "-c", f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}', CHROMIUM, *flags]
        self._process = subprocess.Popen(
            command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest, self._asked = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of one call; events that come meanwhile are kept."""
        self._asked += 1
        asked = {"id": self._asked, "method": method, "params": parameters} | (
            {"sessionId": session} if session else {}
        )
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        while (message := self._next()).get("id") != self._asked:
            self.events.append(message)
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], WAIT_S)[0], "Chromium is silent"
            came = os.read(self._in, 1 << 20)
            assert came, "Chromium is gone"
            self._rest += came
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        os.close(self._out)  # it ends when the pipe does
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        os.close(self._in)


class Tab:
    """A tab with a storage of its own."""

    def __init__(self, browser: Browser, width: int = 1280, height: int = 800) -> None:
        self._browser = browser
        context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        self._context = context
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def close(self) -> None:
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    def size(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def scheme(self, name: str) -> None:
        """The system prefers `light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The plain value of an expression, awaited where it is a promise."""
        done = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script: str) -> Any:
        """The first true value of an expression."""
        end = time.monotonic() + WAIT_S
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}\n{self.run('document.body.innerText')}"
            time.sleep(0.02)
        return value

    def text(self, selector: str) -> str:
        """What is seen of an element."""
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def shows(self, selector: str, text: str) -> None:
        """Waits until an element shows a text."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.until(f"{element}?.checkVisibility() && {element}.innerText.includes({json.dumps(text)})")

    def click(self, selector: str) -> None:
        """A click of the mouse in the middle of an element."""
        what = json.dumps(selector)
        self.until(f"document.querySelector({what})?.checkVisibility()")
        box = self.run(
            f"(() => {{ const e = document.querySelector({what}); e.scrollIntoView({{block: 'nearest'}});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def write(self, selector: str, text: str) -> None:
        """Text typed in place of what was in a field."""
        self.run(
            f"(() => "
            f"{{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select(); }})()"
        )
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0, code: int = 0) -> None:
        """A key; `code` in place of its own, as an input method sends it."""
        own, text = KEYS[key]
        fields = {"key": key, "code": key, "windowsVirtualKeyCode": code or own, "modifiers": modifiers}
        self.call(
            "Input.dispatchKeyEvent",
            type="keyDown",
            **fields,
            **({"text": text} if text and not code else {}),
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def wheel(self, x: int, y: int, down: int) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=down)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def events(self, *methods: str) -> list[dict[str, Any]]:
        """What was told of this tab so far."""
        mine = (e for e in self._browser.events if e.get("sessionId") == self._session)
        return [event["params"] for event in mine if event["method"] in methods]

    def complaints(self) -> list[str]:
        """Errors of scripts and of the content security policy, without statuses of answers."""
        thrown = [e["exceptionDetails"]["text"] for e in self.events("Runtime.exceptionThrown")]
        logged = [
            e["entry"]["text"] for e in self.events("Log.entryAdded") if e["entry"]["source"] != "network"
        ]
        printed = [str(e["args"]) for e in self.events("Runtime.consoleAPICalled")]
        return thrown + logged + printed


def _pipe() -> tuple[int, int]:
    """A pipe with numbers well above those that Chromium expects it at."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
