"""The API, with workers that follow a script."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from pathlib import Path

import pytest

from serving import Program, ScriptedWorker, serving


@pytest.fixture
def worker():
    return ScriptedWorker()


@pytest.fixture
def served(tmp_path, worker):
    with serving(tmp_path / "data", [worker]) as served:
        yield served


@pytest.fixture
def client(served):
    with served.client() as client:
        yield client


PROVENANCE = {"outcome": "nothing", "summary": "It says nothing."}


def submit(client, text="real", name="clip.mp4", **options):
    """Submits a file and returns the judgement."""
    answer = client.post("/v1/judgements", files={"file": (name, text)}, **options)
    answer.raise_for_status()
    return answer.json()


def ended(client, judgement):
    """The judgement once it has ended."""
    until = time.monotonic() + 20.0
    while True:
        found = client.get(f"/v1/judgements/{judgement['id']}").json()
        if found["state"] not in ("queued", "running"):
            return found
        assert time.monotonic() < until, found
        time.sleep(0.02)


def state_is(client, judgement, state):
    """Waits until a judgement is in a state."""
    until = time.monotonic() + 20.0
    while client.get(f"/v1/judgements/{judgement['id']}").json()["state"] != state:
        assert time.monotonic() < until
        time.sleep(0.02)


def problem(answer):
    """Status and name of a problem; it has every member that the standard asks for."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["title"] and body["detail"]
    return answer.status_code, body["type"].removeprefix("/problems/")


def test_a_file_is_queued_judged_and_found_again(client):
    text = "fake"
    answer = client.post("/v1/judgements", files={"file": ("a b.mp4", text)})
    assert answer.status_code == 202
    judgement = answer.json()
    assert answer.headers["location"] == judgement["links"]["self"]
    done = ended(client, judgement)
    assert done["state"] == "done"
    assert done["verdict"]["label"] == "fake"
    assert done["name"] == "a b.mp4"
    assert done["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert done["bytes"] == len(text)
    assert done["submitted_at"] <= done["started_at"] <= done["finished_at"]
    assert done["finished_at"].endswith("Z")
    assert done["media_kept"]


def test_a_raw_body_is_a_file_too(client):
    answer = client.post("/v1/judgements?name=../x/clip.webm", content=b"real")
    assert answer.status_code == 202
    assert ended(client, answer.json())["name"] == "clip.webm"


def test_prefer_waits_for_the_verdict(client):
    answer = client.post(
        "/v1/judgements", files={"file": ("c.mp4", "real")}, headers={"Prefer": "wait=20"}
    )
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.json()["state"] == "done"


def test_prefer_waits_no_longer_than_it_says(client):
    begun_s = time.monotonic()
    answer = client.post("/v1/judgements", content=b"wait", headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert 0.9 < time.monotonic() - begun_s < 8.0
    client.delete(answer.json()["links"]["self"])


def test_the_same_file_is_judged_once(client, worker):
    first = ended(client, submit(client, name="one.mp4"))
    second = client.post("/v1/judgements", files={"file": ("two.mp4", "real")})
    assert second.status_code == 200
    assert second.json() == first
    again = submit(client, name="two.mp4", params={"again": "true"})
    assert again["id"] != first["id"]
    ended(client, again)
    assert worker.judged == ["one.mp4", "two.mp4"]


def test_the_same_file_from_many_clients_at_once_is_judged_once(served, worker):
    ids = []

    def send():
        with served.client() as client:
            ids.append(submit(client, text="real same")["id"])

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1
    with served.client() as client:
        ended(client, {"id": ids[0]})
        assert len(client.get("/v1/judgements").json()["judgements"]) == 1
    assert len(worker.judged) == 1
    assert len(list(served.service.settings.media.iterdir())) == 1


class ReadingWorker(ScriptedWorker):
    """A worker that reads provenance too: of what it judges, and of what it cannot."""

    async def judge(self, path, name, report):
        def add(message):
            record = message.get("record", {})
            if record.get("record") == "verdict":
                record["provenance"] = PROVENANCE
            report(message)

        answer = await super().judge(path, name, add)
        if "failed" in answer:
            answer["failed"]["provenance"] = PROVENANCE
        return answer


def test_provenance_is_a_field_beside_the_verdict_and_beside_the_error(tmp_path, client):
    with serving(tmp_path, [ReadingWorker()]) as served, served.client() as own:
        judged, failed = (ended(own, submit(own, text)) for text in ("real", "fail"))
        assert judged["provenance"] == judged["verdict"]["provenance"] == PROVENANCE
        assert failed["state"] == "failed"
        assert failed["provenance"] == PROVENANCE
        assert set(failed["error"]) == {"type", "title", "detail"}
        described = own.get("/openapi.json").json()["components"]["schemas"]["JudgementModel"]
        assert "origin" in described["properties"]["provenance"]["description"]
    assert ended(client, submit(client))["provenance"] is None


def test_what_failed_is_judged_again_when_it_is_sent_again(client, worker):
    failed = ended(client, submit(client, text="fail"))
    assert failed["state"] == "failed"
    assert failed["error"]["type"] == "/problems/not-judged"
    assert failed["error"]["detail"] == "clip.mp4: not a film; send one"
    assert submit(client, text="fail")["id"] != failed["id"]


def test_the_queue_keeps_its_order_and_says_so(served, client, worker):
    first = submit(client, text="wait", name="0.mp4")
    state_is(client, first, "running")
    others = [submit(client, text=f"real {n}", name=f"{n}.mp4") for n in range(1, 6)]
    assert [other["position"] for other in others] == [1, 2, 3, 4, 5]
    served.call(worker.release.set)
    for other in others:
        ended(client, other)
    assert worker.judged == [f"{n}.mp4" for n in range(6)]


def test_progress_says_what_is_left(client):
    running = submit(client, text="wait")
    state_is(client, running, "running")
    progress = client.get(running["links"]["self"]).json()["progress"]
    assert (progress["done_s"], progress["total_s"]) == (0.5, 1.0)
    assert progress["left_s"] >= 0.0
    client.delete(running["links"]["self"])


def test_cancelling_what_waits_and_what_runs(client, worker):
    running = submit(client, text="wait", name="running.mp4")
    state_is(client, running, "running")
    waiting = submit(client, text="real", name="waiting.mp4")
    for judgement in (waiting, running):
        answer = client.post(f"{judgement['links']['self']}/cancel")
        assert answer.status_code == 200
        assert answer.json()["state"] == "cancelled"
        again = client.post(f"{judgement['links']['self']}/cancel")
        assert problem(again) == (409, "already-finished")
    assert worker.judged == ["running.mp4"]
    assert ended(client, submit(client, text="real next"))["state"] == "done"


def test_deleting_removes_the_record_the_file_and_the_results(served, client):
    done = ended(client, submit(client))
    assert client.delete(done["links"]["self"]).status_code == 204
    assert problem(client.get(done["links"]["self"])) == (404, "not-found")
    assert not list(served.service.settings.media.iterdir())
    assert not list(served.service.settings.results.iterdir())


def test_deleting_what_runs_stops_it(served, client):
    running = submit(client, text="wait")
    state_is(client, running, "running")
    assert client.delete(running["links"]["self"]).status_code == 204
    assert ended(client, submit(client, text="real next"))["state"] == "done"
    left = {path.name.partition(".")[0] for path in served.service.settings.results.iterdir()}
    assert running["id"] not in left


def test_notes_and_search(client):
    names = ("Interview 100%.mp4", "speech.mp4", "other_speech.mov")
    made = [ended(client, submit(client, text=f"fake {n}", name=n)) for n in names]
    note = client.patch(made[1]["links"]["self"], json={"note": "From the Mayor's office"})
    assert note.json()["note"] == "From the Mayor's office"

    def found(**query):
        answer = client.get("/v1/judgements", params=query).json()
        return [judgement["name"] for judgement in answer["judgements"]]

    assert found() == list(reversed(names))
    assert found(q="SPEECH") == ["other_speech.mov", "speech.mp4"]
    assert found(q="mayor speech") == ["speech.mp4"]
    assert found(q="100%") == ["Interview 100%.mp4"]
    assert found(q="r_s") == ["other_speech.mov"]  # no pattern
    assert found(q=made[0]["sha256"][:12]) == ["Interview 100%.mp4"]
    assert found(label="fake", state="done", limit=1) == ["other_speech.mov"]
    assert found(label="real") == []
    assert problem(client.get("/v1/judgements?label=maybe")) == (422, "invalid")


def test_pages_of_the_list_follow_each_other(client):
    made = [submit(client, text=f"real {n}", name=f"{n}.mp4") for n in range(7)]
    seen, before = [], None
    for _ in range(4):
        page = client.get(
            "/v1/judgements", params={"limit": 3} | ({"before": before} if before else {})
        )
        seen += [one["id"] for one in page.json()["judgements"]]
        before = page.json()["next"]
        if before is None:
            break
    assert seen == [one["id"] for one in reversed(made)]


def events(client, path, headers=None):
    """Events of a stream until it ends: name, data and id."""
    found = []
    with client.stream("GET", path, headers=headers) as answer:
        if answer.status_code == 204:
            return None
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            if line and not line.startswith(":"):
                key, _, value = line.partition(": ")
                event[key] = value
            elif event:
                found.append((event["event"], json.loads(event["data"]), event.get("id")))
                event = {}
    return found


def test_events_tell_of_a_judgement_until_its_end(served, client, worker):
    running = submit(client, text="wait")
    state_is(client, running, "running")
    path = running["links"]["events"]
    threading.Timer(0.3, lambda: served.call(worker.release.set)).start()
    told = events(client, path)
    assert [name for name, _, _ in told] == ["state", "record", "record", "state"]
    assert told[0][1]["state"] == "running"
    assert told[-1][1]["state"] == "done"
    assert [data["record"] for name, data, _ in told if name == "record"] == ["run", "verdict"]
    assert [number for name, _, number in told if name == "record"] == ["1", "2"]
    # Somebody who was cut off goes on; a browser does not come back once there is nothing more.
    later = events(client, path, {"Last-Event-ID": "1"})
    assert [name for name, _, _ in later] == ["state", "record"]
    assert events(client, path, {"Last-Event-ID": "2"}) is None


def test_events_of_all_judgements(served, client, worker):
    told = []

    def listen():
        with served.client() as other, other.stream("GET", "/v1/events") as answer:
            for line in answer.iter_lines():
                told.append(line)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    until = time.monotonic() + 10.0
    while not told:
        assert time.monotonic() < until
        time.sleep(0.02)
    judgement = ended(client, submit(client))
    client.delete(judgement["links"]["self"])
    while "event: deleted" not in told:
        assert time.monotonic() < until
        time.sleep(0.02)
    names = [line.removeprefix("event: ") for line in told if line.startswith("event: ")]
    assert names == ["state", "state", "progress", "state", "deleted"]
    served.call(served.service.hub.close)
    thread.join(10.0)
    assert not thread.is_alive()


def test_records_are_not_there_before_the_end(served, client, worker):
    running = submit(client, text="wait")
    state_is(client, running, "running")
    for part in ("records", "report", "evidence"):
        assert problem(client.get(running["links"][part])) == (409, "not-done")
    served.call(worker.release.set)
    done = ended(client, running)
    lines = client.get(done["links"]["records"]).text.splitlines()
    assert [json.loads(line)["record"] for line in lines] == ["run", "verdict"]


def test_a_worker_that_dies_is_tried_three_times(client, worker):
    failed = ended(client, submit(client, text="die"))
    assert failed["state"] == "failed"
    assert failed["error"]["type"] == "/problems/crashed"
    assert "3 times" in failed["error"]["detail"]
    assert worker.judged == ["clip.mp4"] * 3
    assert ended(client, submit(client))["state"] == "done"
    assert "dfd_worker_deaths_total 3.0" in client.get("/metrics").text


def test_refusals_name_value_cause_and_mend(client):
    answer = client.post("/v1/judgements", content=b"")
    assert problem(answer) == (422, "invalid")
    assert "the file is empty" in answer.json()["detail"]
    assert problem(client.post("/v1/judgements", data={"x": "y"})) == (415, "wrong-type")
    answer = client.post("/v1/judgements", files=[("file", ("a", "1")), ("file", ("b", "2"))])
    assert problem(answer) == (400, "bad-request")
    answer = client.post("/v1/judgements", json={"adress": "https://example.org"})
    assert problem(answer) == (422, "invalid")
    cut_off = client.post(
        "/v1/judgements",
        content=b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert problem(cut_off) == (400, "bad-request")
    assert problem(client.get("/v1/judgements/none")) == (404, "not-found")
    assert problem(client.put("/v1/judgements")) == (405, "method-not-allowed")
    assert client.get("/v1/judgements").json()["judgements"] == []


def test_files_that_are_too_large_leave_nothing(tmp_path):
    with serving(tmp_path, [ScriptedWorker()], max_bytes=1000) as served:
        with served.client() as client:
            for form in (
                {"files": {"file": ("a.mp4", b"x" * 200_000)}},
                {"content": b"x" * 1001},
                {"content": (b"x" * 100 for _ in range(11))},  # says no length beforehand
            ):
                assert problem(client.post("/v1/judgements", **form)) == (413, "too-large")
        assert not list(served.service.settings.media.iterdir())


def test_a_full_queue_takes_no_more(tmp_path):
    with serving(tmp_path, [ScriptedWorker()], max_queue=2) as served, served.client() as client:
        running = submit(client, text="wait")
        state_is(client, running, "running")
        for n in range(2):
            submit(client, text=f"real {n}")
        answer = client.post("/v1/judgements", content=b"real more")
        assert problem(answer) == (429, "queue-full")
        assert answer.headers["retry-after"] == "30"
        assert len(list(served.service.settings.media.iterdir())) == 3


def test_what_takes_too_long_is_ended(tmp_path):
    workers = [ScriptedWorker()]
    with serving(tmp_path, workers, max_seconds=0.3) as served, served.client() as client:
        failed = ended(client, submit(client, text="wait"))
    assert failed["state"] == "failed"
    assert failed["error"]["type"] == "/problems/too-slow"


@pytest.mark.parametrize(("keep_days", "kept"), [(0.0, False), (7.0, True)])
def test_originals_are_kept_as_asked(tmp_path, keep_days, kept):
    workers = [ScriptedWorker()]
    with serving(tmp_path, workers, keep_days=keep_days) as served, served.client() as client:
        done = ended(client, submit(client))
        assert done["media_kept"] is kept
        media = client.get(done["links"]["media"])
    assert media.status_code == (200 if kept else 410)
    if not kept:
        assert problem(media) == (410, "media-removed")
        assert not list(served.service.settings.media.iterdir())


def test_old_originals_go_and_results_stay(tmp_path):
    with serving(tmp_path, [ScriptedWorker()]) as served, served.client() as client:
        done = ended(client, submit(client))
    with serving(tmp_path, [ScriptedWorker()], keep_days=1e-6) as served:
        with served.client() as client:
            until = time.monotonic() + 10.0
            while client.get(done["links"]["self"]).json()["media_kept"]:
                assert time.monotonic() < until
                time.sleep(0.05)
            assert client.get(done["links"]["records"]).status_code == 200
        assert not list(served.service.settings.media.iterdir())


def test_parts_of_an_original(client):
    text = "....ftypisom 0123456789"  # as the first bytes of an MP4 are
    done = ended(client, submit(client, text=text))
    media = done["links"]["media"]
    whole = client.get(media)
    assert whole.text == text
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-type"] == "video/mp4"
    part = client.get(media, headers={"Range": "bytes=13-16"})
    assert (part.status_code, part.text) == (206, "0123")
    assert part.headers["content-range"] == "bytes 13-16/23"
    assert client.get(media, headers={"Range": "bytes=99-"}).status_code == 416


def test_an_original_that_is_no_film_is_only_downloaded(client):
    done = ended(client, submit(client, text="real <script>", name="page.html"))
    answer = client.get(done["links"]["media"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_health_and_figures(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "workers": 1}
    ended(client, submit(client, text="fake"))
    figures = client.get("/metrics").text
    assert 'dfd_judgements_total{label="fake",state="done"} 1.0' in figures
    assert "dfd_media_seconds_total 1.0" in figures
    assert "dfd_queue_depth 0.0" in figures
    assert "dfd_received_bytes_total 4.0" in figures
    route = 'dfd_requests_total{method="POST",route="/v1/judgements",status="202"} 1.0'
    assert route in figures


def test_every_problem_has_an_address_and_a_row_in_the_documentation(client):
    from dfd_edge.serve.routes.problems import PROBLEMS

    page = (Path(__file__).resolve().parents[3] / "docs/serve.md").read_text("utf-8")
    listed = re.findall(r"^\| `([a-z-]+)` \| (\d+|-) \| (.+) \|$", page, re.MULTILINE)
    for name, status, title in listed:
        found = client.get(f"/problems/{name}").json()
        assert found["title"] == title
        assert found["status"] == (200 if status == "-" else int(status))
    assert {name for name, _, _ in listed} == set(PROBLEMS)
    assert problem(client.get("/problems/none")) == (404, "not-found")


def test_the_openapi_document_has_every_route(client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]["/v1/judgements"]) == {"get", "post"}
    bodies = document["paths"]["/v1/judgements"]["post"]["requestBody"]["content"]
    assert set(bodies) == {"multipart/form-data", "application/octet-stream", "application/json"}
    one = document["paths"]["/v1/judgements/{id}"]
    assert set(one) == {"get", "patch", "delete"}
    assert "application/problem+json" in one["get"]["responses"]["404"]["content"]


def test_two_services_do_not_share_a_folder(tmp_path, served):
    with pytest.raises(AssertionError) as refused:
        Program(served.service.settings.data)
    assert "in use by another dfd-edge serve (process" in str(refused.value)
