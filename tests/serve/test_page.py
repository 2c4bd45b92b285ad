"""The page in a real Chromium, over the bundled model: ask, slide, correct, undo, reload, export, calibrate; no error, no foreign
request.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from concept_cam.collection.corrections import Correction, Corrections
from concept_cam.commands.example import EXAMPLE_SIZE, FISH
from concept_cam.core.regions import decode_rle
from concept_cam.demo.worlds import WORLDS

pytestmark = pytest.mark.browser

FORKED = "#p=forked.png&q=%5B%22a+forked+tail+fin%22%2C%22a+rounded+tail+fin%22%5D"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    downloads = tmp_path_factory.mktemp("downloads")
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1400,950",
    ):  # fmt: skip
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as started:
        started.downloads = downloads
        yield started


@pytest.fixture(scope="module")
def served(bundled: Any, fish_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """The app on a real socket: its address and its desk; pictures are encoded once for all tests."""
    from concept_cam.serve import server
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery

    desk = Desk(bundled, open_gallery(str(fish_folder)), corrections=tmp_path_factory.mktemp("kept") / "corrections.sqlite")
    desk.warm_up()
    listener, address = server.bind(server.Address("127.0.0.1", 0))
    made = server.make_server(desk, address)
    thread = threading.Thread(target=made.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not made.started:
        time.sleep(0.01)
    yield address.url, desk
    made.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def page(browser: Any, served: tuple[str, Any], tmp_path: Path) -> Iterator[Any]:
    """The page with a question and no corrections; afterwards no error and no foreign request may be in the browser's log."""
    url, desk = served
    desk.corrections = Corrections(tmp_path / "corrections.sqlite")
    browser.get_log("browser"), browser.get_log("performance")
    browser.desk, browser.url = desk, url
    open_page(browser, FORKED)
    yield browser
    errors = [
        entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE" and not getattr(browser, "expected_errors", False)
    ]
    assert errors == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    hosts = {
        urlsplit(event["params"]["request"]["url"]).netloc
        for event in asked
        if event["method"] == "Network.requestWillBeSent" and event["params"]["request"]["url"].startswith(("http", "ws"))
    }
    assert hosts <= {urlsplit(url).netloc}
    browser.expected_errors = False


def open_page(browser: Any, hash_: str) -> None:
    browser.get("about:blank")
    browser.get(browser.url + hash_)
    wait(browser, "return document.documentElement.dataset.ready == 'yes' && document.getElementById('call').textContent != ''", 60)


def wait(browser: Any, script: str, seconds: float = 20) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, 0.05).until(lambda driver: driver.execute_script(script))


def text(browser: Any, id_: str) -> str:
    return browser.execute_script("return document.getElementById(arguments[0]).textContent", id_)


def slide(browser: Any, id_: str, value: float) -> None:
    script = "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input', {bubbles: true}))"
    browser.execute_script(script, id_, value)


def key(browser: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    browser.execute_script("document.activeElement.blur()")
    ActionChains(browser).send_keys(*keys).perform()


def view(browser: Any, script: str) -> Any:
    """Runs a script that sees the page's ``view``."""
    return browser.execute_async_script(
        f"const done = arguments[arguments.length - 1]; import('/page/app.js').then(({{view}}) => done((() => {{ {script} }})()))"
    )


def drag(browser: Any, points: list[tuple[float, float]]) -> None:
    """Drags over the picture of the active question, in its original pixels."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    box = browser.execute_script(
        "const b = document.querySelector('.panel.active canvas').getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
    )
    scale = min(box[2] / 512, box[3] / 384)
    left, top = box[0] + (box[2] - 512 * scale) / 2, box[1] + (box[3] - 384 * scale) / 2
    actions = ActionBuilder(browser, duration=20)
    for number, (x, y) in enumerate(points):
        actions.pointer_action.move_to_location(int(left + x * scale), int(top + y * scale))
        if number == 0:
            actions.pointer_action.pointer_down()
    actions.pointer_action.pointer_up()
    actions.perform()
    assert ActionChains is not None


def saved(browser: Any) -> None:
    wait(browser, "return document.getElementById('saved').textContent == 'all saved'")


# ----------------------------------------------------------------------------------------------------------------- look


def test_ask_with_the_keyboard_and_share(page: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    open_page(page, "")
    key(page, "/")
    ActionChains(page).send_keys("a forked tail fin", Keys.ENTER).perform()
    wait(page, "return document.getElementById('call').textContent.includes('score')")
    page.find_element("id", "contrast").send_keys("a rounded tail fin" + Keys.ENTER)
    wait(page, "return document.getElementById('call').textContent.includes('probability')")
    key(page, Keys.ARROW_RIGHT)
    wait(page, "return document.getElementById('call').textContent.startsWith('a rounded tail fin')")
    address = page.execute_script("return location.hash")
    assert "p=rounded.png" in address
    open_page(page, address)
    assert text(page, "call").startswith("a rounded tail fin")
    assert page.find_element("id", "target").get_attribute("value") == "a forked tail fin"


def test_what_an_address_names_and_is_not_here_is_said(page: Any) -> None:
    """A question of a pack that this server does not have was passed over, and another one was answered in its place."""
    open_page(page, "#p=gone.png&q=mine:tail&q=fish:caudal_fin_shape&taught=barbs&mix=0.5")
    assert "the character mine:tail that the address asks for" in text(page, "message")
    assert "“barbs” was not taught here" in text(page, "message")
    assert "The picture gone.png is not here." in text(page, "message")
    assert page.find_element("id", "character").get_attribute("value") == "caudal_fin_shape"


def test_the_page_draws_the_packages_own_map(page: Any) -> None:
    """Scores, interpolation and outline in the browser against the package, at several strengths."""
    desk = page.desk
    path = next(entry.path for entry in desk.gallery.entries if entry.source == "forked.png")
    for gamma in (1.0, 0.3, 1.7):
        slide(page, "gamma", gamma)
        wait(page, f"return document.getElementById('gamma-out').textContent == '{gamma:.2f}'")
        time.sleep(0.3)
        found = desk.localizer.locate(path, "a forked tail fin", ["a rounded tail fin"], gamma=gamma)
        grid, values, limit = view(
            page, "const p = view.panels[0]; return [[...p.grid].map(v => Number.isNaN(v) ? null : v), [...p.values], p.limit]"
        )
        mine = np.array([np.nan if value is None else value for value in grid], np.float32).reshape(found.scores.shape)
        assert np.allclose(mine, found.scores, atol=2e-5, equal_nan=True)
        assert np.allclose(np.array(values, np.float32).reshape(384, 512), found.heatmap, atol=2e-4)
        assert limit == pytest.approx(found.threshold("half-max"), abs=1e-5)


def test_a_place_in_the_words_is_told_and_the_map_keeps_to_it(page: Any) -> None:
    open_page(page, "#p=forked.png&q=%5B%22the+left+eye+of+a+fish%22%2C%22the+background%22%5D")
    desk = page.desk
    path = next(entry.path for entry in desk.gallery.entries if entry.source == "forked.png")
    found = desk.localizer.locate(path, "the left eye of a fish", ["the background"])
    told = text(page, "told")
    assert ("cannot be told" in told) != found.place.resolved
    assert found.place.reason in told
    found = desk.localizer.locate(path, "the last dorsal fin of a fish", ["a fish", "the background"])
    open_page(page, "#p=forked.png&q=%5B%22the+last+dorsal+fin+of+a+fish%22%2C%22a+fish%22%2C%22the+background%22%5D")
    assert found.place.reason in text(page, "told")
    grid, values = view(
        page, "const p = view.panels[0]; return [[...p.grid], [...p.values]].map(l => l.map(v => Number.isNaN(v) ? null : v))"
    )
    mine = np.array([np.nan if value is None else value for value in grid], np.float32).reshape(found.scores.shape)
    assert np.allclose(mine, found.scores, atol=2e-5, equal_nan=True)
    drawn = np.array([np.nan if value is None else value for value in values], np.float32).reshape(384, 512)
    np.testing.assert_array_equal(np.isnan(drawn), np.isnan(found.heatmap))


def test_sliders_are_live_and_the_scale_stays(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    reach = page.find_element("id", "reach").get_attribute("value")
    regions = text(page, "regions")
    slide(page, "threshold", 0.1)
    wait(page, f"return document.getElementById('regions').textContent != {json.dumps(regions)}")
    slide(page, "opacity", 20)
    assert text(page, "opacity-out") == "20 %"
    took = page.execute_async_script(
        "const done = arguments[0], s = document.getElementById('gamma'), times = []; let n = 0;"
        "function next() { const t = performance.now(); s.value = (n % 20) / 10; s.dispatchEvent(new Event('input', {bubbles: true}));"
        "requestAnimationFrame(() => setTimeout(() => { times.push(performance.now() - t); ++n < 15 ? next() : done(times) })) } next()"
    )
    assert min(took) < 100, took  # The quickest: what other programs take from the processor is not the page's.
    key(page, Keys.ARROW_RIGHT)
    wait(page, "return document.getElementById('place').textContent.includes('rounded')")
    assert page.find_element("id", "reach").get_attribute("value") == reach


def test_several_targets_side_by_side(page: Any) -> None:
    open_page(page, FORKED + "&q=fish:parts%3Dhead&q=fish:caudal_fin_shape")
    assert page.execute_script("return document.querySelectorAll('.panel canvas').length") == 3
    wait(page, "return document.querySelectorAll('.tab').length == 3")
    page.find_elements("css selector", ".tab button")[2].click()
    wait(page, "return document.getElementById('call').textContent.startsWith('head')")
    assert page.find_element("id", "state").get_attribute("value") == "head"
    page.find_elements("css selector", ".tab button")[3].click()
    wait(page, "return document.querySelectorAll('.tab').length == 2")


# -------------------------------------------------------------------------------------------------------------- correct


def test_correct_undo_and_reload(page: Any) -> None:
    page.find_element("id", "person").clear()
    page.find_element("id", "person").send_keys("Ada")
    key(page, "a")
    saved(page)
    assert page.desk.corrections.standing()[0].verdict == "accept"
    key(page, "2")
    wait(page, "return document.getElementById('standing').textContent.includes('rather a rounded tail fin')")
    saved(page)
    key(page, "z")
    wait(page, "return document.getElementById('standing').textContent.startsWith('Ada: right')")
    open_page(page, FORKED)
    wait(page, "return document.getElementById('standing').textContent.startsWith('Ada: right')")
    assert page.find_element("css selector", "[data-verdict=accept]").get_attribute("aria-pressed") == "true"
    assert page.execute_script("return document.querySelectorAll('#strip .done').length") == 1
    key(page, "z")
    wait(page, "return document.getElementById('standing').textContent.startsWith('Nobody')")
    assert page.desk.corrections.standing() == []
    assert len(page.desk.corrections.all()) == 4  # Nothing is ever overwritten.


def test_brush_erase_box_and_clicks(page: Any) -> None:
    key(page, "b")
    drag(page, [(300, 300), (340, 300), (380, 300)])
    saved(page)
    mask = decode_rle(page.desk.corrections.standing()[0].mask)
    assert mask[300, 310:370].all()
    start = mask.sum()
    key(page, "e")
    drag(page, [(340, 280), (340, 320)])
    saved(page)
    wait(page, "return true")
    erased = decode_rle(page.desk.corrections.standing()[0].mask)
    assert not erased[300, 340]
    assert erased.sum() < start
    key(page, "r")
    drag(page, [(200, 150), (260, 190)])
    saved(page)
    (box,) = page.desk.corrections.standing()[0].boxes
    assert np.allclose(box, (200, 150, 260, 190), atol=2)
    drag(page, [(230, 170), (250, 180)])  # Inside the box: it moves.
    saved(page)
    (moved,) = page.desk.corrections.standing()[0].boxes
    assert np.allclose(np.subtract(moved, box), (20, 10, 20, 10), atol=2)
    key(page, "+")
    drag(page, [(100, 120)])
    saved(page)
    key(page, "-")
    drag(page, [(400, 120)])
    saved(page)
    assert [click[2] for click in page.desk.corrections.standing()[0].clicks] == [1, -1]
    key(page, "z")
    wait(page, "return !document.getElementById('standing').textContent.includes('2 clicks')")
    open_page(page, FORKED)
    assert view(page, "return [...view.marks.values()].some(m => m.mask && m.boxes.length == 1 && m.clicks.length == 1)")
    # What is left out of a correction stays: that nothing is left has to be said.
    page.find_element("id", "clear").click()
    saved(page)
    wait(page, "return true")
    (row,) = page.desk.corrections.standing()
    assert (row.mask, row.boxes, row.clicks) == (None, (), ())


def test_a_tick_stands_for_a_verdict_or_a_region(page: Any) -> None:
    ticks = "return document.querySelectorAll('#strip .done').length"
    page.find_element("id", "clear").click()  # There is nothing to clear, so nothing is written.
    key(page, "+")
    drag(page, [(100, 120)])
    saved(page)
    (row,) = page.desk.corrections.all()
    assert len(row.clicks) == 1
    assert "no verdict yet (1 click)" in text(page, "standing")
    assert page.execute_script(ticks) == 0
    key(page, "a")
    wait(page, f"{ticks} == 1")
    key(page, "z")
    wait(page, f"{ticks} == 0")
    open_page(page, FORKED)
    assert page.execute_script(ticks) == 0


def test_the_keyboard_draws_too(page: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.querySelector('.panel canvas').focus()")
    ActionChains(page).send_keys("r", Keys.ARROW_RIGHT, Keys.ENTER).perform()
    ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN).key_up(Keys.SHIFT).send_keys(Keys.ENTER).perform()
    saved(page)
    (box,) = page.desk.corrections.standing()[0].boxes
    assert box[2] - box[0] == pytest.approx(512 / 12, abs=2)
    label = page.execute_script("return document.querySelector('.panel canvas').getAttribute('aria-label')")
    assert "a forked tail fin" in label
    assert "Highest point" in label


@pytest.fixture
def second_tab(page: Any) -> Iterator[tuple[Any, str]]:
    """The page in two tabs, the second in front; with the handle of the first."""
    first = page.current_window_handle
    page.switch_to.new_window("tab")
    second = page.current_window_handle
    yield page, first
    page.switch_to.window(second)
    page.close()
    page.switch_to.window(first)


NO_NEWS = """
    window.setInterval = () => 0;
    document.addEventListener('visibilitychange', event => event.stopImmediatePropagation(), true);
"""
"""A tab asks for news every few seconds and when it comes to the front; with this it does not, and knows what it knew when it opened."""


@pytest.mark.parametrize("kept", ["theirs", "mine"])
def test_a_tab_that_knows_nothing_of_a_correction_is_told_before_it_writes(second_tab: tuple[Any, str], kept: str) -> None:
    page, first = second_tab
    second = page.current_window_handle
    page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NO_NEWS})
    open_page(page, FORKED)
    page.switch_to.window(first)
    key(page, "a")
    saved(page)
    page.switch_to.window(second)
    assert text(page, "standing").startswith("Nobody")
    page.expected_errors = True  # Chromium logs the answer 409.
    key(page, "x")
    wait(page, "return document.getElementById('conflict-box').open")
    assert "Theirs: right; yours: wrong." in text(page, "conflict-text")
    assert [item.verdict for item in page.desk.corrections.standing()] == ["accept"]
    page.find_element("css selector", f"#conflict-box [value={kept}]").click()
    standing = {"theirs": "right", "mine": "wrong"}[kept]
    wait(page, f"return document.getElementById('standing').textContent.includes('{standing}')")
    saved(page)
    assert [item.verdict for item in page.desk.corrections.standing()] == [{"theirs": "accept", "mine": "reject"}[kept]]
    assert [item.verdict for item in page.desk.corrections.all()] == ["accept", "reject"][: 1 if kept == "theirs" else 2]


def test_a_tab_sees_what_another_one_wrote(second_tab: tuple[Any, str]) -> None:
    page, first = second_tab
    second = page.current_window_handle
    open_page(page, FORKED)
    assert text(page, "standing").startswith("Nobody")
    page.switch_to.window(first)
    key(page, "a")
    saved(page)
    page.switch_to.window(second)
    wait(page, "return document.getElementById('standing').textContent.includes('right')")  # Within four seconds, without a reload.
    key(page, "x")
    saved(page)
    assert not page.execute_script("return document.getElementById('conflict-box').open")
    assert [item.verdict for item in page.desk.corrections.standing()] == ["reject"]
    page.switch_to.window(first)
    wait(page, "return document.getElementById('standing').textContent.includes('wrong')")


def offline(page: Any, away: bool) -> None:
    speed = 0 if away else -1
    page.execute_cdp_cmd(
        "Network.emulateNetworkConditions", {"offline": away, "latency": 0, "downloadThroughput": speed, "uploadThroughput": speed}
    )


def test_what_could_not_be_sent_is_sent_again(page: Any) -> None:
    page.expected_errors = True
    page.execute_cdp_cmd("Network.enable", {})
    offline(page, True)
    key(page, "a")
    wait(page, "return document.getElementById('saved').textContent == 'not saved yet'")
    assert page.desk.corrections.standing() == []
    offline(page, False)
    saved(page)
    assert [item.verdict for item in page.desk.corrections.standing()] == ["accept"]


def test_what_waits_is_sent_in_order_and_can_be_taken_back(page: Any) -> None:
    """The older of two corrections that wait never ends up on top, and undo takes back the one that was not sent."""
    page.expected_errors = True
    page.execute_cdp_cmd("Network.enable", {})
    offline(page, True)
    key(page, "x")
    wait(page, "return document.getElementById('saved').textContent == 'not saved yet'")
    key(page, "z")
    wait(page, "return document.getElementById('saved').textContent == ''")
    key(page, "u")
    wait(page, "return document.getElementById('saved').textContent == 'not saved yet'")
    offline(page, False)
    key(page, "a")
    saved(page)
    assert [item.verdict for item in page.desk.corrections.all()] == ["cannot_tell", "accept"]
    assert text(page, "call").startswith("a forked tail fin")  # The answer stayed while the server was away.


def test_what_waits_for_one_folder_is_not_sent_to_another(page: Any) -> None:
    page.expected_errors = True
    page.execute_cdp_cmd("Network.enable", {})
    offline(page, True)
    key(page, "x")
    wait(page, "return document.getElementById('saved').textContent == 'not saved yet'")
    page.get("about:blank")
    offline(page, False)
    kept = page.desk.corrections
    page.desk.corrections = Corrections(kept.path.parent / "another.sqlite")
    open_page(page, FORKED)
    time.sleep(1)
    assert page.desk.corrections.all() == []
    page.desk.corrections = kept
    # Back at the first folder it is sent, as soon as no other tab can be about to send it.
    older = "const l = JSON.parse(localStorage[k]); l.forEach(i => { i.at -= 20000 }); localStorage[k] = JSON.stringify(l)"
    page.execute_script(f"const k = 'concept-cam-unsent'; {older}")
    open_page(page, FORKED)
    wait(page, "return document.getElementById('standing').textContent.includes('wrong')")
    assert [item.verdict for item in kept.all()] == ["reject"]


def test_a_stroke_right_after_a_verdict_keeps_it(page: Any) -> None:
    """The stroke is drawn before the server has answered the verdict."""
    page.execute_cdp_cmd("Network.enable", {})
    page.execute_cdp_cmd(
        "Network.emulateNetworkConditions", {"offline": False, "latency": 3000, "downloadThroughput": -1, "uploadThroughput": -1}
    )
    key(page, "a", "b")
    drag(page, [(300, 300), (340, 300)])
    assert text(page, "saved") == "saving …"
    offline(page, False)
    saved(page)
    (standing,) = page.desk.corrections.standing()
    assert (standing.verdict, standing.mask is not None) == ("accept", True)
    assert len(page.desk.corrections.all()) == 2


def test_a_pack_calls_nothing_on_pictures_of_other_things(page: Any) -> None:
    open_page(page, "#p=forked.png&q=lepidoptera:parts%3Dfore_wing&q=fish:parts%3Dhead")
    assert text(page, "call").startswith("fore wing? (no call)")
    assert "does not show what the trait pack is about" in text(page, "because")
    heard = "return document.querySelector('.panel.active canvas').getAttribute('aria-label')"
    assert ": fore wing? (no call)" in page.execute_script(heard)
    assert text(page, "spoken").startswith("fore wing? (no call)")
    page.find_elements("css selector", ".tab button")[2].click()
    wait(page, "return document.getElementById('call').textContent.startsWith('head is here')")
    assert not page.find_element("id", "because").is_displayed()


def test_the_caption_doubts_what_is_not_called(page: Any) -> None:
    """It named the likeliest state as if it were the call; a state that somebody asks for is a question and no claim."""
    captions = "return [...document.querySelectorAll('.panel .title')].map(title => title.textContent)"
    open_page(page, "#p=forked.png&q=lepidoptera:wing_pattern&q=lepidoptera:wing_pattern%3Dspotted&q=fish:caudal_fin_shape")
    wait(page, captions.replace("return", "return 3 ==") + ".filter(text => text.includes(': ')).length")
    guessed, chosen, called = page.execute_script(captions)
    assert guessed == f"wing pattern: {text(page, 'call').split('?')[0]}?"
    assert chosen == "wing pattern: spotted"
    assert called == "caudal fin shape: forked"


def test_what_is_right_is_said_where_no_call_was_made(page: Any) -> None:
    """Who agreed with "no call" and pressed "Right" had the likeliest state kept as the call, which every export then made."""
    right = "return document.querySelector('[data-verdict=accept] span').textContent"
    assert page.execute_script(right) == "Right"
    open_page(page, "#p=forked.png&q=lepidoptera:parts%3Dfore_wing&q=lepidoptera:wing_pattern")
    assert page.execute_script(right) == "It is here"
    page.find_elements("css selector", ".tab button")[2].click()
    wait(page, "return document.getElementById('call').textContent.includes('(no call)')")
    state = text(page, "call").split("?")[0]
    assert page.execute_script(right) == f"It is {state}"
    key(page, "a")
    saved(page)
    assert f"it is {state}," in text(page, "standing")
    # What somebody said of another call is told as it was said.
    other = next(name for name in ("banded", "spotted") if name != state)
    base = {"source": "forked.png", "pack": "lepidoptera", "character": "wing_pattern", "kind": "pattern"}
    page.desk.corrections.add(Correction(id="other", called=other, verdict="accept", abstained_because="no_host", person="Ada", **base))
    words = "%5B%22a+forked+tail+fin%22%2C%22a+rounded+tail+fin%22%5D"
    open_page(page, f"#p=forked.png&q=lepidoptera:wing_pattern&q={words}&a=1")
    page.find_element("id", "add").click()
    page.find_elements("css selector", ".tab button")[0].click()
    assert text(page, "standing").startswith(f"Ada: it is {other},")
    assert page.execute_script(right) == f"It is {state}"
    page.find_elements("css selector", ".tab button")[4].click()  # A question that is still to be typed.
    assert page.execute_script(right) == "Right"


def test_what_stands_first_agrees_with_the_verdict(page: Any) -> None:
    """Odds among what was named are near one for things that are not there; the call may not say that they are."""
    open_page(page, "#p=forked.png&q=%5B%22a+cup+of+coffee%22%2C%22a+bicycle%22%5D&q=fish:parts%3Dhead")
    unfound = page.execute_script("return document.querySelector('#trust b').textContent")
    assert unfound in ("absent", "not about the prompt")
    said = text(page, "call")
    assert re.search(rf"\? \((a cup of coffee: )?{unfound}\)", said)
    assert "odds among what was named" in said or "score" in said
    heard = page.execute_script("return document.querySelector('.panel.active canvas').getAttribute('aria-label')")
    for telling in (heard, text(page, "spoken")):
        assert f"{unfound})" in telling, "what is heard is what is seen"
    page.find_elements("css selector", ".tab button")[2].click()
    wait(page, "return document.getElementById('call').textContent.startsWith('head is here')")
    assert "odds among" not in text(page, "call")


def test_states_that_are_likely_together_are_named(page: Any) -> None:
    """Two ways to say one thing share its probability."""
    words = "%5B%22a+forked+tail+fin%22%2C%22a+forked+caudal+fin%22%2C%22a+rounded+tail+fin%22%5D"
    open_page(page, f"#p=forked.png&q={words}&q=fish:parts%3Dhead")
    assert page.find_element("id", "narrowed").is_displayed()
    said = text(page, "narrowed")
    assert said.startswith("Narrowed down to ")
    assert sorted(said.removeprefix("Narrowed down to ").split(":")[0].split(" or ")) == ["a forked caudal fin", "a forked tail fin"]
    page.find_element("id", "add").click()  # A question that is still to be typed.
    assert text(page, "call").startswith("Ask something")
    assert not page.find_element("id", "narrowed").is_displayed()
    page.find_elements("css selector", ".tab button")[2].click()
    wait(page, "return document.getElementById('call').textContent.startsWith('head is here')")
    assert not page.find_element("id", "narrowed").is_displayed()


def test_the_verdict_on_one_state_does_not_doubt_the_call_of_another(page: Any, tmp_path: Path) -> None:
    """The page said "forked? (absent)" of a forked tail where a rounded one was asked, and "absent? (absent)" of a missing fin."""
    open_page(page, "#p=forked.png&q=fish:caudal_fin_shape%3Drounded")
    assert page.execute_script("return document.querySelector('#trust b').textContent") == "absent"
    assert text(page, "call").startswith("forkedprobability")
    assert "rounded: the target is in the picture with a probability" in text(page, "trust")
    open_page(page, "#p=forked.png&q=%5B%22a+rounded+tail+fin%22%2C%22a+forked+tail+fin%22%5D")
    assert page.execute_script("return document.querySelector('#trust b').textContent") == "not about the prompt"
    assert text(page, "call").startswith("a forked tail fin? (a rounded tail fin: not about the prompt)odds among what was named")
    world = WORLDS["fish"]
    specimens = world.sample(1, FISH["forked"].seed, view="whole", scenes=(FISH["forked"].scene,), traits={"adipose_fin": "absent"})
    Image.fromarray(world.render(specimens, EXAMPLE_SIZE).images[0].permute(1, 2, 0).contiguous().numpy()).save(tmp_path / "finless.png")
    page.find_element("id", "files").send_keys(str(tmp_path / "finless.png"))
    wait(page, "return document.getElementById('place').textContent.includes('finless')")
    open_page(page, page.execute_script("return location.hash").split("&q=")[0] + "&q=fish:adipose_fin")
    assert page.execute_script("return document.querySelector('#trust b').textContent") == "absent"
    assert text(page, "call").startswith("absentprobability")
    assert "adipose fin: the target is in the picture" in text(page, "trust")
    assert page.execute_script("return document.querySelector('.panel.active .title').textContent") == "adipose fin: present?"


def test_a_picture_that_is_written_anew_is_shown_and_asked_anew(page: Any) -> None:
    """Its map stayed that of the old one, over the new one where that was shown."""
    assert page.desk.gallery.entries
    (entry,) = (entry for entry in page.desk.gallery.entries if entry.source == "forked.png")
    file = Path(entry.path)
    old = file.read_bytes()
    fits = "const a = view.panels[0].answer; return a ? [view.image.naturalWidth, a.picture.width, a.picture.height] : null"
    width, *size = view(page, fits)
    assert width == size[0] > size[1]
    try:
        Image.open(io.BytesIO(old)).transpose(Image.Transpose.ROTATE_90).save(file)
        key(page, "\ue014", "\ue012")  # to the next one and back
        wait(page, "return document.getElementById('place').textContent.includes('forked.png')")
        for _ in range(100):
            found = view(page, fits)
            if found and found[0] == found[1] != width:
                break
            time.sleep(0.1)
        assert found == [size[1], size[1], size[0]]
        wait(page, "const i = document.querySelector('#strip [aria-current=true] img'); return i.naturalWidth < i.naturalHeight")
    finally:
        file.write_bytes(old)


def test_a_picture_that_a_search_left_out_is_shown_anew_too(page: Any) -> None:
    """Nothing came after the answer on the new file: no map, and the picture stayed the old one."""
    (entry,) = (entry for entry in page.desk.gallery.entries if entry.source == "forked.png")
    file = Path(entry.path)
    old = file.read_bytes()
    try:
        page.execute_script("const s = document.getElementById('search'); s.value = 'turned'; s.dispatchEvent(new Event('input'))")
        wait(page, "return document.querySelectorAll('#strip button').length == 1")
        Image.open(io.BytesIO(old)).transpose(Image.Transpose.ROTATE_90).save(file)
        page.execute_script("document.getElementById('target').value = 'a head'; document.getElementById('words').requestSubmit()")
        shown = "const p = view.panels[0]; return Boolean(p.map && view.image.naturalWidth < view.image.naturalHeight)"
        for _ in range(100):
            if view(page, shown):
                break
            time.sleep(0.1)
        assert view(page, shown)
        assert text(page, "place").endswith("forked.png")
    finally:
        file.write_bytes(old)


def test_every_file_that_is_not_taken_is_named(page: Any, tmp_path: Path) -> None:
    """Of several files each message took the place of the one before."""
    page.expected_errors = True  # Chromium logs the answers 400.
    files = [tmp_path / name for name in ("empty.png", "notes.jpg", "good.gif")]
    files[0].write_bytes(b"")
    files[1].write_text("no picture")
    Image.new("RGB", (40, 30), (0, 90, 200)).save(files[2], save_all=True, append_images=[Image.new("RGB", (40, 30))])
    page.find_element("id", "files").send_keys("\n".join(map(str, files)))
    wait(page, "return document.getElementById('message').textContent.startsWith('2 of 3 files were not taken.')")
    assert "empty.png: the file is empty" in text(page, "message")
    assert "notes.jpg: the file is not a picture" in text(page, "message")
    wait(page, "return document.getElementById('facts').textContent.includes('first frame of an animated')")


def test_the_threshold_comes_back_without_a_mouse(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.find_element("id", "threshold").send_keys(Keys.ARROW_RIGHT)
    wait(page, "return !document.getElementById('half').hidden")
    page.find_element("id", "half").send_keys(Keys.ENTER)
    wait(page, "return document.getElementById('threshold-out').textContent == 'half of the peak'")
    assert page.switch_to.active_element.get_attribute("id") == "threshold"


def test_an_export_that_fails_says_why(page: Any) -> None:
    page.execute_script("document.getElementById('format').append(new Option('coco', 'coco', true, true))")
    page.expected_errors = True  # Chromium logs the answer 400.
    page.find_element("css selector", "#export button").click()
    wait(page, "return document.getElementById('message').textContent.includes('needs an annotation run')")


def test_next_limits_and_export(page: Any, tmp_path: Path) -> None:
    from concept_cam.evaluation.calibration import read_calls, read_truth

    for number in range(15):
        page.desk.corrections.add(labelled(number))
    open_page(page, FORKED)
    key(page, "a")
    saved(page)
    wait(page, "return !document.getElementById('limits').hidden")
    key(page, "n")
    wait(page, "return !document.getElementById('place').textContent.includes('forked')")
    page.find_element("id", "limits").click()
    wait(page, "return document.getElementById('limits-box').open")
    assert "a forked tail fin" in text(page, "limits-table")
    page.find_element("id", "limits-keep").click()
    wait(page, "return document.getElementById('limits-done').textContent.startsWith('Written')")
    assert (tmp_path / "limits.yaml").is_file()
    page.find_element("css selector", "#limits-box button:not([id])").click()
    page.find_element("css selector", "#export button").click()
    file = page.downloads / "labels.csv"
    deadline = time.monotonic() + 20
    while not file.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert len(rows) == 16
    assert len(read_calls(file)[0]) == len(read_truth(file)) == 16


def labelled(number: int) -> Any:
    from concept_cam.collection.corrections import Correction

    return Correction(
        id=str(number), source=f"{number}.png", character="a forked tail fin | a rounded tail fin", kind="words", verdict="accept",
        called="a forked tail fin",
        probability=0.5 + number / 40, score=0.1,
    )  # fmt: skip


def test_teach_with_clicks(page: Any) -> None:
    key(page, "+")
    for number in range(10):
        drag(page, [(70 + 11 * (number % 5), 108 + 22 * (number // 5))])
    key(page, "-")
    drag(page, [(300, 150)])
    saved(page)
    wait(page, "return !document.getElementById('teach').hidden")
    page.find_element("id", "teach-name").send_keys("fork")
    page.find_element("css selector", "#teach button").click()
    wait(page, "return document.getElementById('badge').textContent.includes('not zero-shot')")
    # The badge comes before the map that it speaks of.
    wait(page, "return document.querySelector('.panel .title').textContent.endsWith('with “fork”, taught, not zero-shot')")
    wait(page, "return document.querySelector('.panel canvas').getAttribute('aria-label').includes('taught, not zero-shot')")
    # The colours hold for every share: neither the words' map nor the taught one is beyond them.
    largest = "const p = view.panels[0]; return Math.max(...p.grid.filter(v => !Number.isNaN(v)).map(Math.abs))"
    for share in (0, 100):
        slide(page, "mix", share)
        time.sleep(0.3)
        assert view(page, largest) <= float(page.find_element("id", "reach").get_attribute("value")) + 1e-4
    wait(page, "return [...document.querySelectorAll('#ledger .name')].some(e => e.textContent == 'taught: fork')")
    peak = view(page, "return view.panels[0].answer.peak")
    assert 60 < peak["x"] < 130
    page.get("about:blank")
    page.desk.taught.forget("fork")


# ------------------------------------------------------------------------------------------------- for everybody's eyes


def axe_source() -> str | None:
    """axe-core's source: the file that AXE_CORE names, else fetched from npm's registry by its client; ``None`` where neither is there."""
    import subprocess
    import tarfile
    import tempfile

    given = os.environ.get("AXE_CORE")
    if given:
        return Path(given).read_text(encoding="utf-8")
    if shutil.which("npm") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["npm", "pack", "axe-core@4", "--silent"], cwd=folder, capture_output=True, text=True, timeout=60)
        if done.returncode:
            return None
        with tarfile.open(Path(folder) / done.stdout.strip().splitlines()[-1]) as archive:
            file = archive.extractfile("package/axe.min.js")
            return None if file is None else file.read().decode("utf-8")


@pytest.fixture(scope="module")
def axe() -> str:
    source = axe_source()
    if source is None:
        pytest.skip("axe-core is not at hand: name its axe.min.js in AXE_CORE, or install npm")
    return source


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_no_serious_finding_of_axe(page: Any, axe: str, theme: str, width: int) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    )
    page.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
    page.execute_script("document.querySelector('details').open = true")
    page.execute_script(axe)  # The driver is not bound by the page's content security policy.
    for prepare in ("", "document.getElementById('help-box').showModal()"):
        page.execute_script(prepare)
        found = page.execute_async_script("const done = arguments[arguments.length - 1]; axe.run().then(done)")
        serious = [
            (item["id"], item["impact"], [node["html"][:120] for node in item["nodes"]])
            for item in found["violations"]
            if item["impact"] in ("serious", "critical", "moderate")
        ]
        assert serious == []
        assert len(found["passes"]) > 20
    wide = page.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (844, 390), (900, 700), (1100, 620), (1920, 1080)])
def test_the_picture_can_be_seen_at_every_size(page: Any, width: int, height: int) -> None:
    open_page(page, FORKED + "&q=fish:parts%3Dhead")
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 900}
    )
    time.sleep(0.3)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    sizes = page.execute_script("return [...document.querySelectorAll('.panel canvas')].map(c => [c.clientWidth, c.clientHeight])")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert len(sizes) == 2
    for across, down in sizes:
        assert across >= min(280, width / 3 - 60)
        assert 200 <= down <= height


def test_the_page_loads_nothing_else(page: Any) -> None:
    html = urllib.request.urlopen(page.url).read().decode()
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    loaded = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert loaded
    assert all(name.startswith((page.url, "blob:")) for name in loaded)
