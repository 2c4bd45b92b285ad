"""How fast the page's server answers: first and following answers over HTTP, and twenty clients at once.

    python examples/benchmarks/serve_latency.py                       # the bundled model
    python examples/benchmarks/serve_latency.py --random ViT-B-16     # the speed of an open_clip architecture; its weights are random
    python examples/benchmarks/serve_latency.py --seconds 60 --clients 20

A first answer encodes the picture. Following answers are questions about pictures that were looked at: what a person does all day. Every
answer of the crowd is compared with the one that the package gives directly, and memory is measured before and after.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from concept_cam.commands.console import above_zero, at_least_one, run_script

QUESTIONS: tuple[dict[str, Any], ...] = (
    {"target": "a forked tail fin", "contrasts": ["a rounded tail fin"], "map": True},
    {"target": "the head of a fish", "contrasts": ["the tail fin of a fish", "the dorsal fin of a fish"], "map": True},
    {"target": "a fish", "map": True},
    {"character": "fish:caudal_fin_shape", "map": True},
    {"target": "a forked tail fin", "contrasts": ["a rounded tail fin"], "gamma": 0.5, "threshold": "otsu"},
)


def random_clip(name: str) -> Any:
    """An open_clip architecture with random weights: as fast as a trained one, and meaningless."""
    import torch

    from concept_cam.backbones.torchvision_compat import import_open_clip
    from concept_cam.core.names import choose
    from concept_cam.localizer import Localizer

    open_clip = import_open_clip()
    choose(name, dict.fromkeys(open_clip.list_models()), "architecture")
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    model = open_clip.create_model(name)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}))
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return Localizer.from_pretrained(f"local-dir:{folder}")


def pictures(folder: Path, count: int) -> None:
    from concept_cam.demo.worlds.fish import world

    for number in range(count):
        made = world.render(world.sample(1, 5000 + number, view="whole"), (768, 1024))
        Image.fromarray(np.asarray(made.images[0].permute(1, 2, 0).contiguous().numpy())).save(folder / f"{number:02d}.jpg", quality=92)


def resident() -> float:
    """Memory of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def told(times: list[float]) -> str:
    ordered = sorted(times)
    return (
        f"median {statistics.median(ordered):.0f} ms, 95th percentile {ordered[int(0.95 * (len(ordered) - 1))]:.0f} ms (n = {len(ordered)})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--random", metavar="ARCHITECTURE", help="an open_clip architecture with random weights, in place of --model")
    parser.add_argument("--pictures", type=at_least_one, default=8)
    parser.add_argument("--answers", type=at_least_one, default=200, help="following answers of one client")
    parser.add_argument("--clients", type=at_least_one, default=20)
    parser.add_argument("--seconds", type=above_zero, default=60)
    options = parser.parse_args()

    import httpx

    from concept_cam.localizer import Localizer
    from concept_cam.serve import server
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery

    with tempfile.TemporaryDirectory() as home:
        pictures(Path(home), options.pictures)
        localizer = random_clip(options.random) if options.random else Localizer.from_pretrained(options.model)
        desk = Desk(localizer, open_gallery(home))
        desk.warm_up()
        listener, address = server.bind(server.Address("127.0.0.1", 0))
        running = server.make_server(desk, address)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        ids = [entry.id for entry in desk.gallery.entries]
        print(f"model {localizer.backbone.name}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, pictures 1024 x 768")
        with httpx.Client(base_url=address.url, timeout=120) as client:

            def ask(id_: str, question: dict[str, Any]) -> tuple[float, float, Any]:
                """Returns milliseconds on the wall, milliseconds on a processor (of this process, client included), and the answer."""
                started, spent = time.perf_counter(), time.process_time()
                answer = client.post("/api/ask", json={"picture": id_, **question})
                took, spent = 1000 * (time.perf_counter() - started), 1000 * (time.process_time() - spent)
                assert answer.status_code == 200, answer.text
                return took, spent, answer.json()

            first = [ask(id_, QUESTIONS[0]) for id_ in ids]
            print(f"first answer per picture: {told([own[0] for own in first])}; on a processor: {told([own[1] for own in first])}")
            for question in QUESTIONS:  # Words that nobody asked for yet go through the text tower once.
                ask(ids[0], question)
            following = [ask(random.choice(ids), random.choice(QUESTIONS)) for _ in range(options.answers)]
            # On a machine that others use, the time on a processor says what an answer costs.
            print(f"following answers: {told([own[0] for own in following])}; on a processor: {told([own[1] for own in following])}")
            for number, question in enumerate(QUESTIONS):
                spent = [ask(random.choice(ids), question)[1] for _ in range(options.answers // 10)]
                print(f"  question {number} ({question.get('target') or question['character']}): on a processor: {told(spent)}")
            expected = {(id_, n): _facts(ask(id_, question)[2]) for id_ in ids for n, question in enumerate(QUESTIONS)}
        before = resident()
        crowd, wrong, busy = _crowd(address.url, ids, expected, options.clients, options.seconds)
        gc.collect()
        print(
            f"{options.clients} clients for {options.seconds:.0f} s: {told(crowd)}, {len(crowd) / options.seconds:.0f} answers/s, {wrong} "
            f"wrong, {busy} busy"
        )
        print(f"memory: {before:.0f} MiB before, {resident():.0f} MiB after; threads {threading.active_count()}")
        running.should_exit = True
        thread.join(10)
        listener.close()


def _facts(answer: dict[str, Any]) -> tuple[Any, ...]:
    """What must not differ between two answers to one question."""
    regions = [region["box"] for region in answer["regions"]]
    maps = answer["map"] and answer["map"]["cosines"]
    return answer["picture"]["id"], answer["question"]["words"], round(answer["score"], 4), regions, maps and hash(maps)


def _crowd(url: str, ids: list[str], expected: dict[Any, Any], clients: int, seconds: float) -> tuple[list[float], int, int]:
    import httpx

    times: list[float] = []
    counts = {"wrong": 0, "busy": 0}
    lock = threading.Lock()
    end = time.monotonic() + seconds

    def one(seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=url, timeout=120) as client:
            while time.monotonic() < end:
                id_, number = chance.choice(ids), chance.randrange(len(QUESTIONS))
                started = time.perf_counter()
                answer = client.post("/api/ask", json={"picture": id_, **QUESTIONS[number]})
                took = 1000 * (time.perf_counter() - started)
                with lock:
                    if answer.status_code == 503:
                        counts["busy"] += 1
                    elif answer.status_code != 200 or _facts(answer.json()) != expected[id_, number]:
                        counts["wrong"] += 1
                    else:
                        times.append(took)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, counts["wrong"], counts["busy"]


if __name__ == "__main__":
    run_script(main)
