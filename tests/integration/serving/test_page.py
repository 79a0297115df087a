"""The page: whole, and closed to the network; in a browser a clip is dropped and its answers are seen."""

import csv
import json
import os
import re
import shutil
import time

import pytest

from data_prep.synth.clip import render_clip
from emofuse_jax.serving import load
from tests.support.server_process import run_server
from tests.unit.serving.test_predict import write_audio

pytest.importorskip("fastapi", reason="the server's libraries are not here: pip install '.[serve]'")

from fastapi.testclient import TestClient

from emofuse_jax.serving.http.app import make_app
from emofuse_jax.serving.http.page import PAGE_ROUTES
from emofuse_jax.serving.http.service import Limits

NO_BROWSER_REASON = "no browser: run tests/support/install_browser.sh"


def test_the_page_is_whole_and_asks_nothing_of_others(bundle_path):
    with TestClient(make_app(load(bundle_path), token="secret", limits=Limits(batch_sizes=(1,)))) as client:
        files = {name: client.get(name).raise_for_status() for name in PAGE_ROUTES}
        assert client.get("/v1/model").status_code == 401
    for name, response in files.items():
        assert "default-src 'none'" in response.headers["content-security-policy"], name
        assert not re.search(r"""["'(]\s*(https?:)?//\w""", response.text), name
    html = files["/"].text
    assert "Trained on <b>fake</b>: angry, happy, sad" in html
    assert 'id="token"' in html
    for linked_file in re.findall(r'(?:src|href)="(/[^"]+)"', html):
        assert linked_file in files
    assert not re.search(r"<script>|<style>|\son\w+=|\sstyle=", html)  # which its policy forbids
    ids = set(re.findall(r'id="(\w+)"', html))
    assert set(re.findall(r'\$\("(\w+)"\)', files["/page.js"].text)) <= ids


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason=NO_BROWSER_REASON)
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip(NO_BROWSER_REASON)
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=[*flags, "--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def video_path(tmp_path_factory):
    """A clip as the demo corpus has them, of two windows."""
    path = tmp_path_factory.mktemp("film") / "clip.mp4"
    path.write_bytes(render_clip(speaker=1, p=1, s_f=0, s_v=1, damage="", corpus_seed=0, seed=3))
    return str(path)


@pytest.fixture(scope="module")
def server(bundle_path):
    with run_server(f"--bundle={bundle_path}", "--decoders=1") as (port, *_):
        yield port


@pytest.fixture
def page(browser, server):
    context = browser.new_context(
        viewport={"width": 1100, "height": 900}, permissions=["camera", "microphone"]
    )
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.goto(f"http://127.0.0.1:{server}/")
    yield page
    context.close()


def screenshot(page, name: str) -> None:
    """Where EMOFUSE_SCREENSHOTS says, to be looked at."""
    if folder := os.environ.get("EMOFUSE_SCREENSHOTS"):
        page.screenshot(path=os.path.join(folder, f"{name}.png"), full_page=True)


def wait_until(page, expression: str, timeout_seconds: float = 60.0) -> None:
    """Waits for it; Playwright's own way evaluates strings, which the page's policy forbids."""
    deadline = time.monotonic() + timeout_seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def count_colours(page, selector: str) -> int:
    """How many colours a canvas has."""
    return page.evaluate(
        """(one) => { const c = document.querySelector(one), d = c.getContext('2d')
           .getImageData(0, 0, c.width, c.height).data, s = new Set();
           for (let i = 0; i < d.length; i += 4) s.add(d[i] + ',' + d[i+1] + ',' + d[i+2] + ',' + d[i+3]);
           return s.size; }""",
        selector,
    )


def test_a_clip_is_answered_and_shown(page, video_path, bundle_path, tmp_path):
    expected = load(bundle_path).predict(video_path)
    page.set_input_files("#file", video_path)
    wait_until(page, "document.getElementById('status').textContent === 'Done'")
    rows = page.locator("#table tr")
    assert rows.count() == len(expected) + 1 == 3
    label, percent = page.locator("#label").inner_text().rsplit(" ", 2)[:2]
    assert (label, int(percent)) == (expected[0].label, round(100 * expected[0].confidence))
    assert count_colours(page, "#timeline") > 8
    assert count_colours(page, "#sound") > 20
    wait_until(page, "document.getElementById('video').videoWidth > 0")
    page.wait_for_timeout(300)
    assert count_colours(page, "#box") > 2  # the face's frame
    screenshot(page, "light")
    for format in ("csv", "json"):
        with page.expect_download() as download:
            page.click(f"#{format}")
        path = tmp_path / format
        download.value.save_as(path)
        assert download.value.suggested_filename == f"clip.{format}"
        with open(path, newline="") as file:
            saved_windows = list(csv.DictReader(file)) if format == "csv" else json.load(file)["windows"]
        assert [row["label"] for row in saved_windows] == [window.label for window in expected]
        assert [float(row["start"]) for row in saved_windows] == [window.start for window in expected]
    assert page.faults == []


def test_it_works_by_keyboard_in_the_dark_and_on_a_phone(page, video_path, bundle_path):
    last_start = load(bundle_path).predict(video_path)[-1].start
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 360, "height": 740})
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.set_input_files("#file", video_path)
    wait_until(page, "document.getElementById('status').textContent === 'Done'")
    wait_until(page, "document.getElementById('video').videoWidth > 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.focus("#timeline")
    page.keyboard.press("End")
    wait_until(page, f"document.getElementById('when').textContent.startsWith('{last_start:.1f}')")
    page.keyboard.press("Home")
    wait_until(page, "document.getElementById('when').textContent.startsWith('0.0')")
    assert "seconds" in page.get_attribute("#timeline", "aria-valuetext")
    screenshot(page, "dark")
    assert page.faults == []


def test_what_can_not_be_used_is_reported(page, tmp_path):
    (tmp_path / "words.mp4").write_text("no film")
    page.set_input_files("#file", str(tmp_path / "words.mp4"))
    page.wait_for_selector("#status.alarm")
    assert "not a media file" in page.inner_text("#status")
    page.set_input_files("#file", write_audio(tmp_path / "voice.wav", 1.2))  # and the next clip is answered
    wait_until(page, "document.getElementById('status').textContent === 'Done'")
    assert "voice" in page.inner_text("#weights")


def test_the_webcam_is_answered_live(page):
    """Chromium's own fake camera and microphone: a pattern without a face, and beeps."""
    page.click("#camera")
    page.wait_for_selector("#table tr:nth-child(3)", state="attached", timeout=30_000)
    screenshot(page, "live")
    start_time = time.monotonic()
    page.click("#stop")
    page.wait_for_selector("#camera:visible", timeout=20_000)
    assert time.monotonic() - start_time < 20
    assert "1.6 to 3.2 s" in page.inner_text("#when") or page.locator("#table tr").count() > 3
    assert page.faults == []
