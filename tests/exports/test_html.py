"""The contact sheet: what is in its files, and what a person sees and does with it in a real browser."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from concept_cam.cli import main
from concept_cam.collection.corrections import Correction, Corrections
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.tables import escaped, unescaped
from concept_cam.exports import export, html
from concept_cam.pictures.again import NOT_SHOWN
from tests.exports.planted import (
    ODD_NAMES,
    SHAPES,
    SIZES,
    Planted,
    digest,
    make_record,
    plant,
    region_columns,
    ring,
    save_picture,
    write_run,
)


@pytest.fixture(scope="module")
def sheet(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(planted.path, "html", tmp_path_factory.mktemp("html") / "sheet")


@pytest.fixture(scope="module")
def single(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(planted.path, "html-file", tmp_path_factory.mktemp("html") / "sheet.html")


def start_of(text: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """The three arguments of SHEET_START."""
    values, position = [], text.index("SHEET_START(") + len("SHEET_START(")
    for _ in range(3):
        value, position = json.JSONDecoder().raw_decode(text, position)
        values.append(value)
        position += 2
    return tuple(values)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line.removesuffix(",")) for line in path.read_text(encoding="utf-8").splitlines()[1:-1]]


# ------------------------------------------------------------------------------------------------------------- the files


def test_data_files(planted: Planted, sheet: Path) -> None:
    about, traits, items = start_of((sheet / "data" / "start.js").read_text(encoding="utf-8"))
    assert (about["pictures"], about["records"]) == (5, len(planted.records))
    assert [trait["name"] for trait in traits] == [
        "caudal_fin_shape",
        "adipose_fin",
        "parts: head",
        "parts: pelvic_fin",
        "standard_length",
    ]
    assert traits[0]["states"] == list(SHAPES)
    assert [item["f"] for item in items] == list(ODD_NAMES)
    assert [(item["h"], item["w"]) for item in items] == list(SIZES)
    rows = rows_of(sheet / traits[0]["src"])
    assert [traits[0]["states"][row["b"]] for row in rows] == [SHAPES[number % 3] for number in range(5)]
    assert [row["c"] for row in rows] == [1, 1, 0, 1, 1]
    assert rows[2]["r"] == "low_probability"
    assert [len(row["o"].split("M")) - 1 for row in rows] == [
        2,
        2,
        2,
        2,
        2,
    ]  # The ring's outer and inner outline.


def test_thumbnails_are_upright_and_carry_nothing_else(planted: Planted, sheet: Path, single: Path) -> None:
    source = Path(planted.record(ODD_NAMES[0], "adipose_fin")["path"])
    assert all(secret in source.read_bytes() for secret in (b"SECRET-OWNER", b"SECRET-DAY", b"SECRET-COMMENT"))
    thumbnails = [path.read_bytes() for path in sorted((sheet / "thumbs").rglob("*.jpg"))]
    inside = [
        base64.b64decode(text) for text in re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", single.read_text(encoding="utf-8"))
    ]
    assert len(thumbnails) == len(inside) == 4
    for data in thumbnails + inside:
        assert b"SECRET" not in data
        assert b"Exif" not in data
        image = Image.open(io.BytesIO(data))
        assert dict(image.getexif()) == {}
        assert set(image.info) <= {
            "jfif",
            "jfif_version",
            "jfif_unit",
            "jfif_density",
            "dpi",
            "quality",
            "progressive",
        }
    upright = np.asarray(Image.open(io.BytesIO(thumbnails[0])).convert("L"), float)
    with Image.open(source) as stored:
        turned = np.asarray(stored.transpose(Image.Transpose.ROTATE_270).convert("L"), float)
    assert upright.shape == SIZES[0] == turned.shape
    assert np.corrcoef(upright.ravel(), turned.ravel())[0, 1] > 0.95


def test_missing_and_exchanged_pictures_have_no_thumbnail(planted: Planted, tmp_path: Path) -> None:
    run = tmp_path / "run"
    records = [{**record, "path": None} for record in planted.records if record["source"] == ODD_NAMES[2]]
    write_run(run, records, ("occurrenceID", "rights", "creator", "species"), parts=1)
    photo = tmp_path / "photos" / ODD_NAMES[2]

    def first_item() -> tuple[dict[str, Any], list[str]]:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            sheet = export(run, "html", tmp_path / "sheet", overwrite=True)
        items = start_of((sheet / "data" / "start.js").read_text(encoding="utf-8"))[2]
        return items[0], [str(warning.message) for warning in said]

    named = f"1 ({ODD_NAMES[2]}); the sheet has empty frames there"
    item, said = first_item()
    assert "t" not in item
    assert item["m"] == "gone"
    assert len(said) == 1
    assert f"cannot be read where they were when they were annotated: {named}" in said[0]
    # Of another size than the run saw; and of the same one, where outlines would fit.
    for size in ((99, 34), SIZES[2]):
        save_picture(photo, size, 3)
        item, said = first_item()
        assert "t" not in item
        assert item["m"] == "changed"
        assert len(said) == 1
        assert f"replaced or changed since they were annotated: {named}" in said[0]
    save_picture(photo, SIZES[2], 2)
    item, said = first_item()
    assert item["t"] == "thumbs/000/000000.jpg"
    assert "m" not in item
    assert said == []


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_pictures_in_archives_are_not_said_to_be_gone(planted: Planted, tmp_path: Path, layout: str) -> None:
    run = tmp_path / "run"
    records = [
        {**record, "path": None if record["source"] in ODD_NAMES[:2] else str(tmp_path / "gone.png")}
        for record in planted.records
        if record["source"] in ODD_NAMES[:3]
    ]
    write_run(run, records, ("occurrenceID", "rights", "creator", "species"), parts=1)
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**info, "input": {"root": None, "layout": layout}}), encoding="utf-8")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        export(run, "html", tmp_path / "sheet")
    gone, archived = (str(warning.message) for warning in said)
    assert f"cannot be read where they were when they were annotated: 1 ({ODD_NAMES[2]});" in gone
    assert archived == "pictures that lie in archives (tar, Parquet) are not shown: 2; the sheet has empty frames there."
    items = start_of((tmp_path / "sheet" / "data" / "start.js").read_text(encoding="utf-8"))[2]
    assert {item["f"]: item["m"] for item in items} == {ODD_NAMES[0]: "archived", ODD_NAMES[1]: "archived", ODD_NAMES[2]: "gone"}


def test_the_console_names_pictures_that_were_replaced_or_deleted(tmp_path: Path) -> None:
    run = plant(tmp_path).path
    save_picture(tmp_path / "photos" / ODD_NAMES[3], SIZES[3], 99)
    (tmp_path / "photos" / ODD_NAMES[2]).unlink()
    for to, output in (("html", "sheet"), ("html-file", "sheet.html")):
        found = CliRunner().invoke(main, ["export", "-q", str(run), "--to", to, "--output", str(tmp_path / output)])
        assert found.exit_code == 0, found.output
        assert f"replaced or changed since they were annotated: 1 ({ODD_NAMES[3]})" in found.stderr
        assert f"cannot be read where they were when they were annotated: 2 ({ODD_NAMES[2]}, {ODD_NAMES[4]})" in found.stderr


def test_large_pictures_are_reduced_with_their_outlines(tmp_path: Path) -> None:
    size = (900, 2400)
    save_picture(tmp_path / "photos" / "big.png", size, 1)
    mask = ring(size, (450, 2000), 300)
    known = digest(tmp_path / "photos" / "big.png")
    record = make_record("big.png", size, "caudal_fin_shape", "shape", "forked", probability=0.9, sha256=known) | region_columns(mask)
    write_run(tmp_path / "run", [record], parts=1)
    sheet = export(tmp_path / "run", "html", tmp_path / "sheet")
    (item,) = start_of((sheet / "data" / "start.js").read_text(encoding="utf-8"))[2]
    assert (item["tw"], item["th"]) == (html.THUMBNAIL, 180)
    with Image.open(sheet / item["t"]) as image:
        assert image.size == (item["tw"], item["th"])
    (row,) = rows_of(sheet / "data" / "trait-0.js")
    points = np.array([[float(number) for number in pair.split(" ")] for pair in row["o"].removeprefix("M").removesuffix("Z").split("L")])
    assert len(points) < 60
    assert np.abs(np.hypot(points[:, 0] - 400, points[:, 1] - 90) - 60).max() < 1


def test_nothing_is_asked_of_any_server(sheet: Path, single: Path) -> None:
    text = (sheet / "index.html").read_text(encoding="utf-8") + single.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "https://example.org/gone%20away.png",
    }
    assert "@import" not in text


def test_single_file_has_a_limit(planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "FILE_PICTURES", 4)
    with pytest.raises(ConfigurationError, match=r"5 pictures.*up to 4.*--to html"):
        export(planted.path, "html-file", tmp_path / "x.html")


# ----------------------------------------------------------------------------------------------------------- the browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1300,900",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as started:
        yield started


@pytest.fixture(params=["folder", "file"])
def page(request: pytest.FixtureRequest, browser: Any, sheet: Path, single: Path) -> Any:
    """The sheet, opened from disk like an attachment."""
    browser.get((sheet / "index.html" if request.param == "folder" else single).as_uri())
    wait(browser, "return document.querySelectorAll('.card').length == 5")
    return browser


def wait(browser: Any, script: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 10).until(lambda driver: driver.execute_script(script))


def choose(browser: Any, name: str, text: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element(By.ID, name)).select_by_visible_text(text)


def cards(browser: Any) -> list[tuple[str, str]]:
    """``(file, call)`` of each card, in order."""
    script = (
        "return [...document.querySelectorAll('.card')].map(c => [c.querySelector('.file').title, c.querySelector('.state "
        "span').textContent])"
    )
    return [tuple(pair) for pair in browser.execute_script(script)]


def chip(browser: Any, name: str) -> Any:
    from selenium.webdriver.common.by import By

    return browser.find_element(By.CSS_SELECTOR, f".chip[data-state='{name}']")


def slide(browser: Any, name: str, value: int) -> None:
    script = "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input', {bubbles: true}))"
    browser.execute_script(script, name, value)


CALLS = [(ODD_NAMES[n], SHAPES[n % 3] + ("?" if n == 2 else "")) for n in range(5)]
"""Planted: the probability rises with the picture's number."""


@pytest.mark.browser
def test_sheet_opens_sorted_and_without_errors(page: Any) -> None:
    assert cards(page) == CALLS
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    loaded = page.execute_script("return [...document.querySelectorAll('.card img')].filter(i => i.loading == 'lazy').length")
    assert loaded == 4
    wait(
        page,
        "return [...document.querySelectorAll('.card img')].every(i => i.complete && i.naturalWidth > 0)",
    )
    assert page.execute_script("return document.querySelector('.missing').textContent") == NOT_SHOWN["gone"]
    # The name with mark-up is text, not elements.
    assert page.execute_script("return document.querySelectorAll('.card b').length") == 0


@pytest.mark.browser
def test_sorting(page: Any) -> None:
    choose(page, "sort", "Surest first")
    assert cards(page) == CALLS[::-1]
    choose(page, "sort", "File name")
    assert [name for name, _ in cards(page)] == page.execute_script(
        "return arguments[0].sort(new Intl.Collator(undefined, {numeric: true}).compare)", list(ODD_NAMES)
    )
    choose(page, "sort", "State")
    assert [state for _, state in cards(page)] == ["forked", "forked", "rounded", "rounded", "truncate?"]


@pytest.mark.browser
def test_filter_by_state(page: Any) -> None:
    from selenium.webdriver import ActionChains

    assert chip(page, "forked").text.split() == ["forked", "2"]
    chip(page, "forked").click()
    assert cards(page) == [CALLS[1], CALLS[2], CALLS[4]]
    assert chip(page, "forked").get_attribute("aria-pressed") == "false"
    chip(page, "not called").click()
    assert cards(page) == [CALLS[1], CALLS[4]]
    chip(page, "forked").click()
    assert cards(page) == [CALLS[0], CALLS[1], CALLS[3], CALLS[4]]
    ActionChains(page).double_click(chip(page, "rounded")).perform()
    assert cards(page) == [CALLS[1], CALLS[4]]


@pytest.mark.browser
def test_filter_by_confidence_and_name(page: Any) -> None:
    from selenium.webdriver.common.by import By

    slide(page, "low", 60)
    assert cards(page) == CALLS[2:]
    slide(page, "high", 80)
    assert cards(page) == CALLS[2:4]
    assert page.find_element(By.ID, "range").text == "60–80 %"
    search = page.find_element(By.ID, "search")
    search.send_keys("A B")
    assert cards(page) == [CALLS[2]]
    search.send_keys("nothing like it")
    assert cards(page) == []
    assert "Nothing matches" in page.find_element(By.ID, "message").text
    page.find_element(By.ID, "reset").click()
    assert cards(page) == CALLS


@pytest.mark.browser
def test_filter_by_trait(page: Any) -> None:
    choose(page, "trait", "parts: head")
    wait(page, "return document.querySelector('.state span').textContent == 'head'")
    assert [state for _, state in cards(page)] == ["head"] * 5
    choose(page, "trait", "parts: pelvic fin")
    wait(page, "return document.querySelector('.state span').textContent == 'pelvic fin?'")
    choose(page, "trait", "standard_length")
    wait(page, "return document.querySelector('.state span').textContent.includes('40 px')")
    choose(page, "sort", "Largest first")
    assert [state for _, state in cards(page)] == ["40 px"] * 4 + ["not measured"]
    choose(page, "trait", "All of them")
    wait(page, "return document.querySelectorAll('.card').length == 25")
    assert {name for name, _ in cards(page)} == set(ODD_NAMES)


@pytest.mark.browser
def test_keyboard_and_detail(page: Any) -> None:
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    def press(*keys: str) -> None:
        ActionChains(page).send_keys(*keys).perform()

    focused = "return document.activeElement.dataset.position"
    press(Keys.ARROW_RIGHT)
    press(Keys.ARROW_RIGHT)
    assert page.execute_script(focused) == "1"
    press(Keys.ENTER)
    dialog = page.find_element(By.ID, "detail")
    assert dialog.is_displayed()
    assert page.find_element(By.ID, "detail-title").text == "caudal fin shape: rounded"
    odds = page.find_element(By.CLASS_NAME, "odds").text.split("\n")
    assert odds[:2] == ["rounded", "59 %"]
    assert "urn:occ:1" in dialog.text
    press(Keys.ARROW_RIGHT)
    assert page.find_element(By.ID, "detail-title").text == "caudal fin shape: not called (truncate?)"
    assert "the best state's probability is under the limit" in dialog.text
    press(Keys.ESCAPE)
    assert not dialog.is_displayed()
    wait(page, f"{focused} == '2'")
    press("/")
    assert page.execute_script("return document.activeElement.id") == "search"


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1280, 420), (400, 640)])
def test_an_opened_picture_is_seen_and_one_bar_scrolls(page: Any, width: int, height: int) -> None:
    """On a telephone the facts scrolled by themselves, took the focus and pushed the picture out of sight."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.execute_script("document.querySelector('.card').click()")
        assert page.execute_script("return document.getElementById('detail').scrollTop") == 0
        bars = (
            "return ['#detail', '.facts'].map(name => document.querySelector(name)).filter(item => "
            "item.scrollHeight > item.clientHeight && getComputedStyle(item).overflowY === 'auto').length"
        )
        assert page.execute_script(bars) == 1
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.browser
def test_overlay_lies_on_the_region(page: Any) -> None:
    # The planted ring of picture 1, in its own pixels; the drawing and the picture have one frame.
    script = """
        const card = document.querySelectorAll('.card')[1], path = card.querySelector('path.edge'), box = path.getBBox();
        const svg = card.querySelector('svg').getBoundingClientRect(), image = card.querySelector('img').getBoundingClientRect();
        return [box.x, box.y, box.width, box.height, card.querySelector('svg').getAttribute('viewBox'),
                svg.left == image.left && svg.top == image.top && svg.width == image.width && svg.height == image.height];
    """
    *box, frame, same = page.execute_script(script)
    height, width = SIZES[1]
    rows, columns = np.nonzero(ring(SIZES[1], (height / 2, width - 6), 9.0, 3.0))
    expected = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert np.abs(np.array(box) - expected).max() <= 1
    assert frame == f"0 0 {width} {height}"
    assert same


@pytest.mark.browser
def test_pages_of_a_long_run(browser: Any, tmp_path: Path) -> None:
    records = [make_record(f"{n:04d}.jpg", (20, 30), "caudal_fin_shape", "shape", "forked", probability=n / 600) for n in range(600)]
    write_run(tmp_path / "run", records, parts=3)
    browser.get((export(tmp_path / "run", "html", tmp_path / "sheet") / "index.html").as_uri())
    wait(browser, "return document.querySelectorAll('.card').length == 240")
    assert browser.execute_script("return document.getElementById('count').textContent") == "1–240 of 600"
    for _ in range(2):
        browser.execute_script("document.querySelector('[data-step=\"1\"]').click()")
    assert [name for name, _ in cards(browser)] == [f"{n:04d}.jpg" for n in range(480, 600)]
    assert browser.execute_script("return document.querySelector('[data-step=\"1\"]').disabled")
    choose(browser, "sort", "Surest first")  # Sorts the whole run and starts over.
    assert cards(browser)[0][0] == "0599.jpg"


@pytest.mark.browser
def test_page_without_its_folder_says_so(browser: Any, sheet: Path, tmp_path: Path) -> None:
    shutil.copy(sheet / "index.html", tmp_path / "index.html")
    browser.get((tmp_path / "index.html").as_uri())
    wait(browser, "return !document.getElementById('message').hidden")
    assert "send and keep them together" in browser.execute_script("return document.getElementById('message').textContent")


@pytest.mark.browser
def test_specimens_are_shown_apart(browser: Any, tray: Planted, tmp_path: Path) -> None:
    browser.get((export(tray.path, "html", tmp_path / "sheet") / "index.html").as_uri())
    wait(browser, "return document.querySelectorAll('.card').length == 2")
    assert cards(browser) == [("tray 1.png  #0", "silver"), ("tray 1.png  #1", "red")]
    sizes = browser.execute_script("return [...document.querySelectorAll('.card svg')].map(s => s.getAttribute('viewBox'))")
    assert sizes == ["0 0 50 50", "0 0 50 50"]


# ------------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.browser
def test_states_of_an_absent_part_are_no_call_to_be_sure_of(browser: Any, tmp_path: Path) -> None:
    gone = make_record(
        "mug.png", (20, 30), "tail", "shape", "forked", probability=0.97, abstained=True, abstained_because="absent", verdict="doubtful",
        verdict_because="why doubtful.", probabilities={"forked": 0.97, "round": 0.03},
    )  # fmt: skip
    write_run(tmp_path / "run", [gone])
    browser.get((export(tmp_path / "run", "html", tmp_path / "sheet") / "index.html").as_uri())
    wait(browser, "return document.querySelectorAll('.card').length == 1")
    said = browser.execute_script("return document.querySelector('.card .words').innerText")
    assert said.startswith("part not seen"), said
    assert "97" not in said
    title = browser.execute_script("return document.querySelector('.card .state span').title")
    assert title.startswith("the part is not in the picture")


@pytest.mark.browser
def test_several_states_that_are_likely_together_are_named(browser: Any, tmp_path: Path) -> None:
    states = ("forked", "lunate", "slightly_notched", "round", "pointed", "straight")
    records = [
        make_record(
            f"{number}.png", (20, 30), "tail", "shape", likely[0], probability=0.4, abstained=True, abstained_because="low_probability",
            probabilities=dict.fromkeys(states, 1 / 6), likely_states=list(likely), likely_probability=0.95,
        )
        for number, likely in enumerate((states[:3], states[:4], states[1:], states[3:4]))
    ]  # fmt: skip
    write_run(tmp_path / "run", records)
    browser.get((export(tmp_path / "run", "html", tmp_path / "sheet") / "index.html").as_uri())
    wait(browser, "return document.querySelectorAll('.card').length == 4")
    choose(browser, "sort", "File name")
    words, *others = browser.execute_script("return [...document.querySelectorAll('.card .asked')].map(e => e.textContent)")
    assert words == "forked, lunate or slightly notched: 95 %"
    assert others == ["not pointed or straight: 95 %", "not forked: 95 %"]
    browser.execute_script("document.querySelector('.card').click()")
    told = "return [...document.querySelectorAll('#detail tr')].map(e => [...e.children].map(c => c.textContent))"
    assert ["Narrowed down to", words] in browser.execute_script(told)


TOLD: tuple[tuple[str, float, str | None, float | None, float | None, str | None], ...] = (
    ("1 clear.png", 1.0, "clear", 0.97, 0.99, None),
    ("2 absent.png", 1.0, "absent", 0.001, 0.002, "no_host"),
    ("3 absent called.png", 1.0, "absent", 0.02, 0.03, None),
    ("4 off.png", 0.9, "not about the prompt", None, None, None),
    ("5 doubtful.png", 1.0, "doubtful", 0.4, 0.9, None),
    ("6 unmeasured.png", 0.8, "clear", None, None, None),
    ("7 unread.png", 0.7, None, None, None, None),
)
"""File, probability among contrasts, verdict, confidence, presence, why it was not called."""


def judged(character: str, kind: str, best: str) -> list[dict[str, Any]]:
    return [
        make_record(
            name, (20, 30), character, kind, best, probability=odds, abstained=because is not None, abstained_because=because,
            verdict=verdict, verdict_because=None if verdict is None else f"why {verdict}.", confidence=sure, presence=there,
            **({"probabilities": {best: odds, "present": 1 - odds}} if kind != "part" else {}),
        )
        for name, odds, verdict, sure, there, because in TOLD
    ]  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    records = judged("parts", "part", "head") + judged("adipose_fin", "presence", "absent")
    write_run(folder / "run", sorted(records, key=lambda record: record["source"]))
    return export(folder / "run", "html", folder / "sheet")


def test_what_a_person_said_stands_whatever_the_map_is_worth(told: Path, tmp_path: Path) -> None:
    """The page puts a verdict that finds nothing in place of the call: over a person's word it has no say."""
    run = tmp_path / "run"
    shutil.copytree(told.parent / "run", run)
    for number, (source, verdict, state) in enumerate(
        (
            ("2 absent.png", "accept", ""),
            ("3 absent called.png", "state", "present"),
            ("4 off.png", "reject", ""),
            ("5 doubtful.png", "", ""),
        )
    ):
        Corrections(run / "corrections.sqlite").add(
            Correction(
                id=str(number), source=source, pack="fish", character="adipose_fin", verdict=verdict, state=state, called="absent"
            )
        )  # fmt: skip
    made = export(run, "html", tmp_path / "sheet")
    _, traits, items = start_of((made / "data" / "start.js").read_text(encoding="utf-8"))
    names = {number: item["f"] for number, item in enumerate(items)}
    trait = next(trait for trait in traits if trait["name"] == "adipose_fin")
    rows = {names[row["i"]]: row for row in rows_of(made / trait["src"])}
    said = {name: (row["c"], trait["states"][row["b"]], "v" in row, "z" in row, "y" in row, row.get("d")) for name, row in rows.items()}
    assert said["2 absent.png"] == (1, "absent", False, False, False, "accept")
    assert said["3 absent called.png"] == (1, "present", False, False, False, "state")
    assert said["4 off.png"] == (0, "absent", False, False, False, "reject")
    assert said["5 doubtful.png"][:5] == said["1 clear.png"][:5] == (1, "absent", True, True, True)


def faces(browser: Any) -> list[tuple[str, str, str, str, float]]:
    """What stands on each card: the file, the first line, its hover, its number, and the bar's length in percent (-1: none)."""
    script = """
        return [...document.querySelectorAll('.card')].map(c => [c.querySelector('.file').title, c.querySelector('.state span').textContent,
          c.querySelector('.state span').title, c.querySelector('.state em').textContent,
          c.querySelector('.track div') ? parseFloat(c.querySelector('.track div').style.width) : -1]);
    """
    return [tuple(face) for face in browser.execute_script(script)]


def open_told(browser: Any, told: Path, trait: str) -> None:
    """Opens the sheet at a trait, once its seven cards stand there."""
    browser.get((told / "index.html").as_uri())
    choose(browser, "trait", trait)
    wait(browser, "return document.querySelectorAll('.card').length == 7")


@pytest.mark.browser
def test_what_stands_first_agrees_with_the_verdict(browser: Any, told: Path) -> None:
    open_told(browser, told, "parts: head")
    choose(browser, "sort", "File name")
    assert faces(browser) == [
        ("1 clear.png", "head", "head", "97 %", 97),
        ("2 absent.png", "absent", "why absent.", "", -1),
        ("3 absent called.png", "absent", "why absent.", "", -1),
        ("4 off.png", "not about the prompt", "why not about the prompt.", "", -1),
        ("5 doubtful.png", "head", "head", "40 %", 40),
        ("6 unmeasured.png", "head", "head", "80 %", 80),
        ("7 unread.png", "head", "head", "70 %", 70),
    ]
    asked = browser.execute_script("return [...document.querySelectorAll('.asked')].map(e => e.textContent)")
    assert asked == ["head?"] * 3
    counts = [chip(browser, name).text.split()[-1] for name in ("found", "not found", "not called")]
    assert counts == ["4", "2", "1"]


@pytest.mark.browser
def test_the_verdict_sorts_and_filters(browser: Any, told: Path) -> None:
    open_told(browser, told, "parts: head")
    choose(browser, "sort", "Most trusted first")
    assert [face[0][0] for face in faces(browser)] == ["1", "6", "5", "4", "3", "2", "7"]
    choose(browser, "sort", "Least sure first")
    assert {face[0][0] for face in faces(browser)[:3]} == {"2", "3", "4"}
    slide(browser, "low", 30)
    choose(browser, "sort", "File name")
    assert [face[0][0] for face in faces(browser)] == ["1", "5", "6", "7"]
    slide(browser, "low", 0)
    choose(browser, "verdict", "absent")
    assert [face[0][0] for face in faces(browser)] == ["2", "3"]


@pytest.mark.browser
def test_a_state_that_bears_a_verdicts_name_is_told_from_it(browser: Any, told: Path) -> None:
    open_told(browser, told, "adipose fin")
    choose(browser, "sort", "File name")
    assert [face[1] for face in faces(browser)] == [
        "absent", "verdict: absent", "verdict: absent", "not about the prompt", "absent", "absent", "absent",
    ]  # fmt: skip
    # Of a state the number is that among the named states: where it is clear it is the call's, not the peak's.
    assert [face[3] for face in faces(browser)] == ["100 %", "", "", "", "100 %", "80 %", "70 %"]
    browser.execute_script("document.querySelectorAll('.card')[1].click()")
    dialog = browser.find_element("id", "detail").text
    assert browser.find_element("id", "detail-title").text == "adipose fin: verdict: absent (absent?)"
    assert "Which of the named states, if it is any of them" in dialog
    assert "In the picture 0 %" in dialog.replace("\n", " ")


@pytest.mark.browser
def test_the_saved_list_holds_the_verdict(browser: Any, told: Path) -> None:
    open_told(browser, told, "parts: head")
    choose(browser, "sort", "File name")
    # The list is what the page hands to the browser's download.
    text = browser.execute_async_script("""
        const done = arguments[0], make = URL.createObjectURL;
        URL.createObjectURL = (blob) => { blob.text().then(done); URL.createObjectURL = make; return make(blob); };
        document.getElementById('save').click();
    """)
    first, second, *_ = text.split("\r\n")
    names = "source,specimen,trait,state,called,probability,likely_states,likely_probability,verdict,verdict_because,confidence,presence"
    assert first.replace('"', "") == f"{names},reviewed,reviewed_by"
    assert second.replace('"', "").split(",")[8:] == ["clear", "why clear.", "0.97", "0.99", "", ""]


@pytest.mark.browser
def test_the_saved_list_runs_in_no_spreadsheet(browser: Any, tmp_path: Path) -> None:
    """Names of files and people are other people's text; numbers stay numbers, and the mark says UTF-8."""
    names = ("=1+1.png", "'@een.png", "plain één.png")
    record = judged("parts", "part", "head")[0]
    write_run(
        tmp_path / "run",
        [
            record | {"source": name, "record_key": str(at), "image_key": str(at), "probability": 0.5, "confidence": 1e-7}
            for at, name in enumerate(names)
        ],
    )
    browser.get((export(tmp_path / "run", "html", tmp_path / "sheet") / "index.html").as_uri())
    wait(browser, "return document.querySelectorAll('.card').length == 3")
    raw = browser.execute_async_script("""
        const done = arguments[0], make = URL.createObjectURL;
        URL.createObjectURL = (blob) => {
          blob.arrayBuffer().then((bytes) => done(Array.from(new Uint8Array(bytes)))); URL.createObjectURL = make; return make(blob);
        };
        document.getElementById('save').click();
    """)
    content = bytes(raw)
    assert content.startswith("\ufeff".encode())
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert {row["source"] for row in rows} == {escaped(name) for name in names} == {"'=1+1.png", "''@een.png", "plain één.png"}
    assert {unescaped(row["source"]) for row in rows} == set(names)
    assert {row["confidence"] for row in rows} == {"1e-7"}


@pytest.mark.browser
def test_the_slider_hides_nothing_that_a_person_said(browser: Any, told: Path, tmp_path: Path) -> None:
    """A corrected state had the low odds that the model gave it."""
    run = tmp_path / "run"
    shutil.copytree(told.parent / "run", run)
    store = Corrections(run / "corrections.sqlite")
    base = {"pack": "fish", "character": "adipose_fin", "person": "Ada"}
    store.add(Correction(id="1", source="1 clear.png", verdict="state", state="present", called="absent", **base))
    store.add(Correction(id="2", source="2 absent.png", verdict="accept", called="absent", **base))
    open_told(browser, export(run, "html", tmp_path / "sheet"), "adipose fin")
    choose(browser, "sort", "File name")
    assert [face[:2] + face[3:] for face in faces(browser)[:2]] == [
        ("1 clear.png", "present", "", -1),
        ("2 absent.png", "absent", "", -1),
    ]
    said = browser.execute_script("return [...document.querySelectorAll('.card .verdict')].map(e => e.textContent)")
    assert said[:2] == ["corrected by Ada", "accepted by Ada"]
    slide(browser, "low", 100)
    assert [face[0][0] for face in faces(browser)] == ["1", "2", "5"]
    choose(browser, "sort", "Least trusted first")
    assert [face[0][0] for face in faces(browser)] == ["5", "1", "2"]
