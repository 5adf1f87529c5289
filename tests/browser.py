"""Headless Chromium, by its DevTools protocol over two pipes: no package is needed."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


_PATIENCE = 60  # seconds


def find():
    """The path of a browser; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def started(profile):
    """A `Browser`, with its profile in a new directory."""
    os.makedirs(profile)
    ours, theirs = os.pipe(), os.pipe()  # to the browser, and from it

    def place():
        # The browser reads at 3 and writes at 4; both are copied before either is
        # replaced.
        copies = [fcntl.fcntl(one, fcntl.F_DUPFD, 20) for one in (ours[0], theirs[1])]
        os.dup2(copies[0], 3)
        os.dup2(copies[1], 4)

    process = subprocess.Popen(
        [find(), *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=place,
    )
    os.close(ours[0])
    os.close(theirs[1])
    with open(ours[1], "wb", buffering=0) as to, open(theirs[0], "rb") as back:
        try:
            browser = Browser(to, back)
            yield browser
            browser.close()
            process.wait(_PATIENCE)
        finally:
            process.kill()
            process.wait()


class Browser:
    """One tab of a browser."""

    def __init__(self, to, back):
        self._to, self._back, self._count, self._session = to, back, 0, None
        self.requests = []  # addresses that pages asked for
        self._buffer = b""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        self.call("Network.enable")

    def call(self, method, **parameters):
        """Sends a command; returns its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, address, width, height, *, dark=False):
        """Opens a page on a screen of a size, as on a phone where it is narrow."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width < 600 else 1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.requests.clear()
        self.call("Page.navigate", url=address)
        self.run("new Promise(done => document.readyState == 'complete' ? done() "
                 ": addEventListener('load', done))")  # fmt: skip

    def close(self):
        self._session = None
        self.call("Browser.close")

    def run(self, script):
        """The value of an expression in the page; of a promise, what it comes to."""
        found = self.call(
            "Runtime.evaluate",
            expression=script,
            returnByValue=True,
            awaitPromise=True,
        )
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def picture(self):
        """The whole page, bytes of a .png file."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def _read(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._back], [], [], _PATIENCE)
            more = os.read(self._back.fileno(), 1 << 20) if ready else b""
            if not more:
                raise RuntimeError(f"The browser ended, or slept {_PATIENCE} s")
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(message)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message
