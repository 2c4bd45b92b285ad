"""Draws the pictures of ``serve.md``: the real page in a real Chromium, over rendered fish. Needs selenium, Chromium and chromedriver.

python examples/make_serve_pictures.py            # writes examples/images/serve.jpg, serve_narrow.jpg, serve_correct.gif
"""

from __future__ import annotations

import io
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from concept_cam.commands.console import run_script

HERE = Path(__file__).parent / "images"
QUESTION = "#p=fish_forked_tail.png&q=%5B%22a+forked+tail+fin%22%2C%22a+rounded+tail+fin%22%2C%22a+square+tail+fin%22%5D"
SEVERAL = "#p=specimen_3.png&q=fish:caudal_fin_shape&q=fish:parts%3Dhead&q=fish:parts%3Ddorsal_fin&q=fish:parts%3Dpectoral_fin"


def fish(folder: Path) -> None:
    from concept_cam.commands import example
    from concept_cam.demo.worlds.fish import world

    for one in example.FISH.values():
        shutil.copy(HERE / f"{one.name}.png", folder)
    for number in range(6):
        made = world.render(world.sample(1, 4000 + number, view="whole"), (384, 512))
        Image.fromarray(np.asarray(made.images[0].permute(1, 2, 0).contiguous().numpy())).save(folder / f"specimen_{number}.png")


def browser(folder: str) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def size(driver: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def show(driver: Any, url: str, theme: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get("about:blank")
    driver.get(url)
    WebDriverWait(driver, 120).until(lambda page: page.execute_script("return document.documentElement.dataset.ready == 'yes'"))
    driver.execute_script("document.documentElement.dataset.theme = arguments[0]; document.getElementById('person').value = 'Ada'", theme)
    time.sleep(1)


def shot(driver: Any) -> Image.Image:
    return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")


def keys(driver: Any, *pressed: str) -> None:
    from selenium.webdriver import ActionChains

    driver.execute_script("document.activeElement.blur()")
    ActionChains(driver).send_keys(*pressed).perform()


def brush(driver: Any, points: list[tuple[float, float]]) -> None:
    """Draws over the picture, in its own pixels (512 x 384)."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    left, top, width, height = driver.execute_script(
        "const b = document.querySelector('.panel canvas').getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
    )
    scale = min(width / 512, height / 384)
    left, top = left + (width - 512 * scale) / 2, top + (height - 384 * scale) / 2
    actions = ActionBuilder(driver, duration=15)
    for number, (x, y) in enumerate(points):
        actions.pointer_action.move_to_location(int(left + x * scale), int(top + y * scale))
        if number == 0:
            actions.pointer_action.pointer_down()
    actions.pointer_action.pointer_up()
    actions.perform()


def main() -> None:
    from concept_cam.localizer import Localizer
    from concept_cam.serve import server
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as profile:
        photos = Path(folder) / "photos"
        photos.mkdir()
        fish(photos)
        desk = Desk(Localizer.from_pretrained(), open_gallery(str(photos)))
        desk.warm_up()
        listener, address = server.bind(server.Address("127.0.0.1", 0))
        running = server.make_server(desk, address)
        threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True).start()
        with browser(profile) as driver:
            size(driver, 1280, 800)
            show(driver, address.url + SEVERAL, "dark")
            save(shot(driver), HERE / "serve.jpg")
            size(driver, 390, 1010)
            show(driver, address.url + QUESTION, "light")
            save(shot(driver), HERE / "serve_narrow.jpg")
            size(driver, 1180, 760)
            show(driver, address.url + QUESTION, "light")
            frames = [shot(driver)]
            keys(driver, "b")
            brush(driver, [(100, 95), (75, 75), (60, 68)])
            time.sleep(0.8)
            frames.append(shot(driver))
            brush(driver, [(100, 140), (75, 155), (60, 162)])
            time.sleep(0.8)
            frames.append(shot(driver))
            keys(driver, "a")
            time.sleep(1)
            frames.append(shot(driver))
            keys(driver, "n")
            time.sleep(6)
            frames.append(shot(driver))
        running.should_exit = True
        small = [frame.resize((886, 570), Image.Resampling.LANCZOS).quantize(128, dither=Image.Dither.NONE) for frame in frames]
        small[0].save(HERE / "serve_correct.gif", save_all=True, append_images=small[1:], duration=1600, loop=0, optimize=True)


def save(image: Image.Image, path: Path) -> None:
    image.save(path, quality=76, optimize=True)


if __name__ == "__main__":
    run_script(main)
