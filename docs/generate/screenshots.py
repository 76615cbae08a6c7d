"""The README's screenshots, from what `make demo` left in `out/`:

    python -m docs.generate.screenshots out

Writes docs/assets/{corpus-report,training-report,chat}.png with headless Chromium (tests/serving/browser.py). The
chat page is that of `ctllm serve` with the demo's last model, at a free port. Says each file and its size.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from ctllm_ray.serving.demo import QUESTION
from tests.serving.browser import Browser, Tab

REPOSITORY = Path(__file__).parents[2]
ASSETS = REPOSITORY / "docs/assets"
WIDTH, HEIGHT, CHAT_HEIGHT = 1200, 750, 420
COLORS = 128  # of the palette: text on plain colours needs no more
MOST_BYTES = 150_000


def main(root: str) -> None:
    """Takes all three."""
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        try:
            _take(browser, root, "clean", "corpus-report")
            _take(browser, root, "train", "training-report", "#curves")
            with _serving(root) as url:
                _take_chat(browser, url)
        finally:
            browser.close()


def _take(browser: Browser, root: str, section: str, name: str, from_element: str = "body") -> None:
    """A report, from one of its elements on."""
    page = Path(root, "tiny/1", section, "report.html").resolve()
    tab = Tab(browser, WIDTH, HEIGHT)
    tab.open(f"{page.as_uri()}?lang=en")
    tab.run(f"document.querySelector('{from_element}').scrollIntoView({{behavior: 'instant'}})")
    _save(tab, name)


def _take_chat(browser: Browser, url: str) -> None:
    """The demo's question, answered as in the demo: at temperature 0."""
    tab = Tab(browser, WIDTH, CHAT_HEIGHT)
    tab.open(f"{url}/?lang=en")
    tab.until("document.title !== 'ctllm'")
    cold = "const t = document.querySelector('#temperature'); t.value = 0"
    tab.run(f"(() => {{ {cold}; t.dispatchEvent(new Event('input', {{bubbles: true}})) }})()")
    tab.write("#text", QUESTION)
    tab.press("Enter")
    tab.until("document.querySelectorAll('.turn').length > 0 && !document.querySelector('.busy')")
    _save(tab, "chat")


def _save(tab: Tab, name: str) -> None:
    """The picture with a palette, which makes it a third as large. Raises where it is still too large."""
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "taken.png"
        tab.picture(taken)
        packed = io.BytesIO()
        Image.open(taken).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(
            packed, "PNG", optimize=True
        )
    if packed.tell() > MOST_BYTES:
        raise SystemExit(f"{name}: {packed.tell():,} bytes are more than {MOST_BYTES:,}")
    (ASSETS / f"{name}.png").write_bytes(packed.getvalue())
    print(f"{name}.png  {packed.tell():,} bytes")
    tab.close()


@contextmanager
def _serving(root: str) -> Iterator[str]:
    command = ["ctllm_ray", "serve", "jobs/recipes/tiny_dpo.yaml", f"root={root}", "serve.port=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().partition(" ")[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


if __name__ == "__main__":
    main(sys.argv[1])
