"""Label Studio in an environment of its own, started from its package on the loopback interface: the whole round trip over its own API.

    LABEL_STUDIO_PYTHON=/path/to/venv/bin/python python -m pytest -m slow tests/serve/test_labelstudio_backend.py

It imports the tasks of an annotation run, lets Label Studio ask this package's backend for predictions by the words of the labelling
configuration, corrects them, exports them as JSON and fits limits to them. Nothing is stubbed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TOKEN = "0123456789abcdef0123456789abcdef01234567"

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="box" toName="image">
    <Label value="tail" prompt="the tail fin of a fish" contrast="the head of a fish|the dorsal fin of a fish"/>
  </RectangleLabels>
  <BrushLabels name="mask" toName="image"><Label value="parts: head"/></BrushLabels>
  <Choices name="caudal_fin_shape" toName="image" choice="single-radio">
    <Choice value="forked" prompt="a forked tail fin"/><Choice value="rounded" prompt="a rounded tail fin"/>
  </Choices>
</View>"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def label_studio(python: str, folder: Path, port: int) -> Iterator[str]:
    """Starts a Label Studio with a user and a token; its data are in ``folder``."""
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "LABEL_STUDIO_PYTHON")},
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_USERNAME": "tester@example.org",
        "LABEL_STUDIO_PASSWORD": "a-password-for-tests",
        "LABEL_STUDIO_USER_TOKEN": TOKEN,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(folder),
        # Label Studio refuses backends, and their webhooks, on the loopback interface unless told.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "false",
        "ML_TIMEOUT_HEALTH": "10",
        "ML_TIMEOUT_SETUP": "20",
        "ML_CONNECTION_TIMEOUT": "10",
    }
    command = [
        str(Path(python).with_name("label-studio")),
        "start",
        "--no-browser",
        "--port",
        str(port),
        "--internal-host",
        "127.0.0.1",
        "--log-level",
        "ERROR",
    ]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 600
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}/health", timeout=5)
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Label Studio did not start:\n{(folder / 'server.log').read_text()[-3000:]}")
                time.sleep(1)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def call(url: str, path: str, data: Any = None, method: str | None = None) -> Any:
    body = None if data is None else json.dumps(data).encode()
    headers = {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(url + path, body, headers, method=method or ("POST" if data is not None else "GET"))
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{path}: {error.code} {error.read()[:1000]!r}") from error
    return json.loads(text) if text else None


def round_trip(python: str, folder: Path) -> dict[str, Any]:
    """Runs it all; returns what was counted."""
    from concept_cam import annotate
    from concept_cam.commands.example import render_fish
    from concept_cam.evaluation.calibration import calibrate, read_calls, read_truth
    from concept_cam.exports import export
    from concept_cam.localizer import Localizer
    from concept_cam.serve import server
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery

    photos, home = folder / "photos", folder / "label-studio"
    photos.mkdir()
    home.mkdir()
    truth = {}
    for number, name in enumerate(("forked", "rounded") * 2):
        pixels = np.ascontiguousarray(render_fish(name)[:, :: -1 if number > 1 else 1])
        Image.fromarray(pixels).save(photos / f"{name}{number}.png")
        truth[f"{name}{number}.png"] = name
    localizer = Localizer.from_pretrained()
    annotate(photos, folder / "run", ["fish:caudal_fin_shape", "fish:parts"], localizer=localizer, workers=0)
    export(folder / "run", "label-studio", folder / "tasks")
    tasks = json.loads((folder / "tasks" / "tasks.json").read_text())
    for task in tasks:
        task.pop("predictions")  # They are to come from the backend.
    desk = Desk(localizer, open_gallery(str(folder / "run")))
    listener, address = server.bind(server.Address("127.0.0.1", 0))
    backend = server.make_server(desk, address)
    thread = threading.Thread(target=backend.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        with label_studio(python, home, free_port()) as url:
            project = call(url, "/api/projects", {"title": "round trip", "label_config": CONFIG})["id"]
            call(url, f"/api/projects/{project}/import", tasks)
            connected = call(url, "/api/ml", {"url": address.url.rstrip("/"), "project": project, "title": "concept-cam"})
            rows = call(url, f"/api/tasks?project={project}&fields=all&page_size=100")["tasks"]
            call(url, f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", {"selectedItems": {"all": True, "excluded": []}})
            predictions = {}
            for row in rows:
                found = call(url, f"/api/predictions?task={row['id']}")
                predictions[row["id"]] = found[0]["result"] if found else []
            for row in rows:
                # A person accepts the places and sets the state that is right.
                kept = [result for result in predictions[row["id"]] if result["type"] != "choices"]
                state = truth[row["data"]["source"]]
                kept.append({"type": "choices", "from_name": "caudal_fin_shape", "to_name": "image", "value": {"choices": [state]}})
                call(url, f"/api/tasks/{row['id']}/annotations", {"result": kept})
            exported = call(url, f"/api/projects/{project}/export?exportType=JSON")
            (folder / "labels.json").write_text(json.dumps(exported))
            version = call(url, "/api/version")["release"]
    finally:
        backend.should_exit = True
        thread.join(10)
        listener.close()
    calls, facts = read_calls(folder / "run")
    labels = read_truth(folder / "labels.json")
    limits = calibrate(calls, labels, 0.5, 0.5, least=1, facts=facts).limits
    called = {row["id"]: [result for result in predictions[row["id"]] if result["type"] == "choices"] for row in rows}
    return {
        "label_studio": version,
        "backend": connected.get("state"),
        "tasks": len(rows),
        "predicted": sum(bool(found) for found in predictions.values()),
        "kinds": sorted({result["type"] for found in predictions.values() for result in found}),
        "right": sum(
            bool(found) and found[0]["value"]["choices"] == [truth[row["data"]["source"]]]
            for row, found in ((row, called[row["id"]]) for row in rows)
        ),
        "labels": len(labels),
        "limits": {name: limit.to_dict() for name, limit in limits.items()},
    }
