"""Looks at the built site in a headless Chromium: errors, missing files, pages that are too wide.

    python tools/look.py                          # every page, on a wide and a narrow screen
    python tools/look.py --pictures runs/look     # and pictures of each, light and dark

It follows the links of the start page to all other pages. A page fails if it writes an error to the
console, if something that it loads is missing or comes from elsewhere, or if it has to be scrolled
sideways on a narrow screen. The browser is driven through a pair of pipes by its DevTools protocol.
"""

import argparse
import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

SITE = Path(__file__).parent.parent / "docs" / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = 1400, 420
#: The status where no browser is found.
NO_BROWSER = 3


class Browser:
    """A headless Chromium, which answers commands of the DevTools protocol."""

    def __init__(self, path: str, folder: str):
        # The browser reads from descriptor 3 and writes to 4; ours stay out of their way.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (*os.pipe(), *os.pipe())]
        reads, self.commands, self.events, writes = ends
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        self.process = subprocess.Popen(
            [path, *flags, f"--user-data-dir={folder}", "about:blank"],
            preexec_fn=lambda: (os.dup2(reads, 3), os.dup2(writes, 4)),
            pass_fds=(3, 4),
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self.numbers = itertools.count(1)
        self.buffer = b""
        self.seen: list[dict[str, Any]] = []
        self.session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        found = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def read(self) -> dict[str, Any]:
        """The next message of the browser."""
        while b"\0" not in self.buffer:
            more = os.read(self.events, 1 << 20)
            if not more:
                raise RuntimeError("the browser has closed its pipe")
            self.buffer += more
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def send(self, method: str, **values: Any) -> dict[str, Any]:
        """Sends a command and returns its result; events that come before it are kept."""
        message = {"id": next(self.numbers), "method": method, "params": values}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            found = self.read()
            if found.get("id") == message["id"]:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']['message']}")
                return found["result"]
            self.seen.append(found)

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript on the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    def screen(self, width: int, scheme: str) -> None:
        """Sets the width of the screen and the colours that its owner prefers."""
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def open(self, address: str) -> list[str]:
        """Opens a page, waits until it has loaded, and returns its complaints."""
        self.seen.clear()
        self.send("Page.navigate", url=address)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.seen):
            self.seen.append(self.read())
        self.value("0")  # scripts that wait for the load have run
        return [text for event in self.seen for text in complaints(event)]

    def picture(self, path: Path) -> None:
        """Writes a picture of the upper part of the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # Colours that change slowly have changed after this.
        wait = "new Promise(done => setTimeout(done, 400))"
        self.send("Runtime.evaluate", expression=wait, awaitPromise=True)
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


def complaints(event: dict[str, Any]) -> list[str]:
    """The fault that an event speaks of, in a list of at most one text."""
    values = event.get("params", {})
    match event.get("method"):
        case "Runtime.exceptionThrown":
            return [values["exceptionDetails"].get("text", "an exception")]
        case "Runtime.consoleAPICalled" if values["type"] == "error":
            return [" ".join(str(part.get("value", part)) for part in values["args"])]
        case "Log.entryAdded" if values["entry"]["level"] == "error":
            return [f"{values['entry']['text']} {values['entry'].get('url', '')}"]
        case "Network.loadingFailed" if not values.get("canceled"):
            return [f"{values['type']} not loaded: {values['errorText']}"]
        case "Network.requestWillBeSent":
            address = values["request"]["url"]
            return [] if address.startswith(("file:", "data:", "blob:")) else [f"loads {address}"]
    return []


def look(browser: Browser, site: Path, pictures: Path | None) -> int:
    """Opens all pages that the start page leads to; prints and counts what is wrong."""
    waiting, known, wrong = [(site / "index.html").as_uri()], set(), 0
    while waiting:
        address = waiting.pop()
        if address in known:
            continue
        known.add(address)
        name = address.removeprefix(site.as_uri() + "/").removesuffix(".html")
        browser.screen(WIDE, "light")
        texts = browser.open(address)
        links = browser.value("[...document.querySelectorAll('a[href]')].map(a => a.href)")
        here = [urldefrag(link).url for link in links]
        waiting += [at for at in here if at.startswith(site.as_uri()) and at.endswith(".html")]
        for width, scheme in itertools.product((WIDE, NARROW), ("light", "dark")):
            browser.screen(width, scheme)
            if scheme == "light":
                wide = browser.value("document.documentElement.scrollWidth")
                texts += [f"{wide} pixels wide on {width}"] if wide > width else []
            if pictures:
                browser.open(address)
                browser.picture(pictures / f"{name.replace('/', '_')}_{width}_{scheme}.png")
        for text in dict.fromkeys(texts):
            print(f"{name}: {text}")
        wrong += bool(texts)
    print(f"{len(known)} pages opened, {wrong} with something wrong")
    return wrong


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--site", type=Path, default=SITE, help="the folder of the built site")
    options.add_argument("--pictures", type=Path, help="a folder for pictures of all pages")
    chosen = options.parse_args()
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        print(f"no browser found (tried {', '.join(BROWSERS)}): nothing was looked at")
        return NO_BROWSER
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(path, folder)
        try:
            return min(1, look(browser, chosen.site.resolve(), chosen.pictures))
        finally:
            browser.process.terminate()
            browser.process.wait()


if __name__ == "__main__":
    sys.exit(main())
