"""The page in the browser: whom the server answers, and what a person sees, in a real browser where there is one."""

import base64
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager

import cv2
import pytest
import uvicorn

from fer_fast.cli import main
from fer_fast.cli.demo import listening
from fer_fast.serve import pictures
from fer_fast.serve.demo.app import MOST_UPLOAD, Demo
from fer_fast.serve.model import load
from fer_fast.serve.threads import cores
from tiny_model import CLASSES
from untrained import photograph, untrained

REFUSED = "the server responded with a status of 400"  # what the browser notes of an answer the page shows
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("demo") / "run")


class Served:
    """A page that is served on the loopback."""

    def __init__(self, demo):
        self.demo, self.socket = demo, listening(0)
        self.port = self.socket.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(demo.app(), log_level="error"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join()

    def ask(self, method, path, body=None, *, token=True, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if token:
            headers["X-Token"] = self.demo.token
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers


@pytest.fixture
def served(checkpoint, tmp_path):
    with Served(Demo(load(checkpoint, "cpu"), "a <title>", tmp_path / "taught.safetensors")) as running:
        yield running


def png(picture):
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def test_a_photo_gets_names_boxes_and_activation(served):
    status, text, headers = served.ask("POST", "/predict?activation=1", png(photograph(2)))
    answer = json.loads(text)
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert answer["size"] == [620, 360]
    assert [face["found"] for face in answer["faces"]] == [True, True]
    assert len({face["box"][0] // 260 for face in answer["faces"]}) == 2
    for face in answer["faces"]:
        assert face["best"] in CLASSES
        assert sum(score for _, score in face["scores"]) == pytest.approx(1, abs=1e-5)
        assert face["face"].startswith("data:image/png;base64,")
        assert face["activation"] not in (None, face["face"])
    again = json.loads(served.ask("POST", "/predict", png(photograph(2)))[1])
    assert [face["activation"] for face in again["faces"]] == [None, None]


def test_only_its_own_page_is_answered(served):
    photo = png(photograph())
    assert served.ask("POST", "/predict", photo, token=False)[0] == 403
    assert served.ask("POST", "/predict", photo, token=False, **{"X-Token": "guessed"})[0] == 403
    assert served.ask("POST", "/undo", b"", token=False)[0] == 403
    assert served.ask("GET", "/", Host="elsewhere.example")[0] == 400  # a name that was bound to the loopback
    for path in ("/static", "/../pyproject.toml", "/page.js", "/checkpoint.safetensors"):
        assert served.ask("GET", path)[0] == 404
    assert served.ask("GET", "/predict")[0] == 405
    assert "access-control-allow-origin" not in served.ask("OPTIONS", "/predict")[2]
    status, text, headers = served.ask("GET", "/")
    assert status == 200
    assert "a &lt;title&gt;" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)


def test_what_is_sent_is_bounded_and_refused_in_a_line(served):
    for body in (b"", b"no picture", b"\xff\xd8\xff"):
        status, text, _ = served.ask("POST", "/predict", body)
        assert status == 400
        assert "\n" not in json.loads(text)["error"].strip()
    try:
        status = served.ask("POST", "/predict", b"0" * (MOST_UPLOAD + 2**20))[0]
    except (BrokenPipeError, ConnectionResetError):  # it does not wait for the rest
        status = 413
    assert status == 413
    photo = png(photograph())
    for query in (
        "",
        "name=x",
        "name=x&lengths=1",
        f"name=x&lengths={'9' * 5000}",
        f"name=x&lengths={len(photo)},5",
        "name=x&lengths=,",
    ):
        assert served.ask("POST", f"/enrol?{query}", photo)[0] == 400
    assert served.ask("POST", f"/enrol?name=&lengths={len(photo)}", photo)[0] == 400
    assert "photo 1" in served.ask("POST", "/enrol?name=x&lengths=4", b"junk")[1]
    assert "undo" in served.ask("POST", "/undo", b"")[1]  # nothing to take back


def test_a_class_is_enrolled_kept_and_taken_back(served):
    photo = png(photograph())
    status, text, _ = served.ask("POST", f"/enrol?name=contempt&lengths={len(photo)},{len(photo)}", photo * 2)
    assert status == 200, text
    assert json.loads(text)["classes"] == [*CLASSES, "contempt"]
    assert json.loads(text)["enrolled"] == ["contempt"]
    assert load(served.demo.out, "cpu").classes == (*CLASSES, "contempt")
    (face,) = json.loads(served.ask("POST", "/predict", photo)[1])["faces"]
    assert face["label"] == face["best"] == "contempt"
    assert face["cosine"] == pytest.approx(1, abs=1e-4)
    assert json.loads(served.ask("POST", "/undo?name=contempt", b"")[1])["classes"] == list(CLASSES)
    assert load(served.demo.out, "cpu").classes == CLASSES


def test_a_second_page_takes_back_only_what_it_shows(served):
    photo = png(photograph())
    for name in ("one", "two"):
        assert served.ask("POST", f"/enrol?name={name}&lengths={len(photo)}", photo)[0] == 200
    for query in ("?name=one", ""):
        status, text, _ = served.ask("POST", f"/undo{query}", b"")
        assert status == 400
        assert "what was enrolled last is two" in text
    assert json.loads(served.ask("POST", "/undo?name=two", b"")[1])["enrolled"] == ["one"]


def test_the_model_does_not_run_ahead_of_a_file_that_cannot_be_written(served, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    photo, weights = png(photograph()), []
    for query, classes in ((f"enrol?name=one&lengths={len(photo)}", CLASSES), ("undo?name=one", (*CLASSES, "one"))):
        with monkeypatch.context() as disk:
            disk.setattr("fer_fast.written.os.fsync", full)
            status, text, _ = served.ask("POST", f"/{query}", photo)
        assert status == 400
        assert "No space left on device" in text
        assert served.demo.model.classes == classes
        weights.append(served.demo.model.trained.recogniser.classifier.weight)
        assert len(weights[-1]) == len(classes) == served.demo.model.trained.recogniser.classifier.num_classes
        if classes == CLASSES:
            assert served.ask("POST", f"/{query}", photo)[0] == 200
    assert load(served.demo.out, "cpu").classes == (*CLASSES, "one")
    assert served.demo.model.threshold == 0.6


def test_photos_of_a_class_are_not_all_decoded_at_once(served, monkeypatch):
    """A hundred photos of a telephone are gigabytes of pixels."""
    alive, most = set(), []
    original = pictures.decode

    def decoded(data, *, gray):
        image, number = original(data, gray=gray), len(most)
        alive.add(number)
        most.append(len(alive))
        weakref.finalize(image, alive.discard, number)
        return image

    photo, count = png(photograph()), 4 * cores()
    monkeypatch.setattr(pictures, "decode", decoded)
    lengths = ",".join([str(len(photo))] * count)
    assert served.ask("POST", f"/enrol?name=one&lengths={lengths}", photo * count)[0] == 200
    assert len(most) == count
    assert max(most) <= 2 * cores()


def test_a_checkpoint_that_is_there_is_not_replaced_unasked(checkpoint, tmp_path, capsys):
    command = ["demo", "--checkpoint", str(checkpoint), "--no-browser", "--port", "-1", "--out"]
    (tmp_path / "file").touch()
    for out, said in ((checkpoint, "is there already; --force replaces it"), (tmp_path / "file" / "x", "is a file")):
        assert main([*command, str(out)]) == 2
        assert said in capsys.readouterr().err
    assert main([*command, str(checkpoint), "--force"]) == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["-1", "70000", "taken", "1"])
def test_a_port_that_cannot_be_had_is_one_line(checkpoint, capsys, port):
    with listening(0) as taken:
        port = str(taken.getsockname()[1]) if port == "taken" else port
        if port == "1" and _may_bind(1):
            pytest.skip("this user may listen on port 1")
        assert main(["demo", "--checkpoint", str(checkpoint), "--no-browser", "--port", port]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fer-fast: error: --port {port}: ")
    assert error.count("\n") == 1


def _may_bind(port):
    try:
        listening(port).close()
    except ValueError:
        return False
    return True


@contextmanager
def started(checkpoint):
    """The command, and a connection to its page."""
    command = (sys.executable, "-m", "fer_fast", "demo", "--checkpoint", str(checkpoint), "--no-browser", "--port", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())[1])
            yield process, http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        finally:
            process.kill()


def test_the_command_says_where_the_page_is_and_ends_with_ctrl_c(checkpoint):
    with started(checkpoint) as (process, connection):
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "fer-fast: interrupted\n"


def test_an_upload_that_stands_still_does_not_keep_it_from_ending(checkpoint):
    with started(checkpoint) as (process, connection):
        connection.request("GET", "/")
        token = re.search('"token": "([^"]+)"', connection.getresponse().read().decode())[1]
        connection.putrequest("POST", "/predict")
        for header in (("X-Token", token), ("Content-Length", "100")):
            connection.putheader(*header)
        connection.endheaders(b"some")
        time.sleep(0.5)  # until the server waits for the rest
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    sync_api = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no browser is installed")
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    film.write_bytes(cv2.imencode(".jpg", photograph()[..., ::-1])[1].tobytes() * 2)
    flags = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    flags += [f"--use-file-for-fake-video-capture={film}"]
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=BROWSER, args=flags)


@pytest.fixture
def page(browser, served):
    page = browser.new_page()
    said = []
    page.on("console", lambda line: REFUSED in line.text or said.append(line.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"http://127.0.0.1:{served.port}/")
    yield page
    page.close()
    assert said == []
    assert all(url.startswith((f"http://127.0.0.1:{served.port}/", "blob:", "data:")) for url in asked)


def drop(page, path):
    """As from a window of files."""
    content = base64.b64encode(path.read_bytes()).decode()
    dropped = page.evaluate_handle(
        """([name, content]) => {
          const given = new DataTransfer();
          given.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
          return given;
        }""",
        [path.name, content],
    )
    page.dispatch_event("#stage", "drop", {"dataTransfer": dropped})


def test_a_person_drops_a_photo_and_teaches_a_class(page, tmp_path):
    from playwright.sync_api import expect

    photo, other = tmp_path / "two.png", tmp_path / "one.png"
    photo.write_bytes(png(photograph(2)))
    other.write_bytes(png(photograph()))
    drop(page, photo)
    expect(page.locator("#status")).to_have_text("2 faces found")
    expect(page.locator(".face")).to_have_count(2)
    before = page.locator(".face img").first.get_attribute("src")
    page.uncheck("#heat")
    assert page.locator(".face img").first.get_attribute("src") != before
    expect(page.locator("#teach")).to_be_disabled()
    page.locator(".face button").first.click()  # the face itself is one of the photos
    page.set_input_files("#photos", [other])
    expect(page.locator("#tray img")).to_have_count(2)
    page.locator("#tray button").last.click()
    expect(page.locator("#teach")).to_have_text("Enrol 1 photo")
    page.fill("#name", "contempt")
    page.click("#teach")
    expect(page.locator("#taught")).to_have_text(
        "contempt enrolled. contempt is enrolled by 1 photo; about ten make a direction"
    )
    expect(page.locator("#knows")).to_contain_text("anger, contempt; below a cosine of 0.6 a face is unknown")
    expect(page.locator(".face b").first).to_have_text("1 contempt")
    page.click("#undo")
    expect(page.locator("#taught")).to_have_text("contempt taken back")
    expect(page.locator("#knows")).not_to_contain_text("contempt")


def test_a_person_is_told_what_is_wrong(page, tmp_path):
    from playwright.sync_api import expect

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    page.set_input_files("#photo", broken)
    expect(page.locator("#status")).to_contain_text("no image of a kind that is read")
    expect(page.locator("#status")).to_have_class("said wrong")


def test_the_camera_is_watched_and_a_frame_is_kept(page):
    from playwright.sync_api import expect

    page.click("#camera")
    expect(page.locator(".face")).to_have_count(1, timeout=30_000)
    page.click("#snap")
    expect(page.locator("#status")).to_have_text("1 face found", timeout=30_000)
    expect(page.locator("#camera")).to_have_text("Use the camera")
