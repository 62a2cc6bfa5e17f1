"""The report of runs that still go on: this machine's alone, as new as the runs, never broken by them."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from tests.report.fake_runs import Page, make_run, results, serving

from evensphere.errors import InputError
from evensphere.report.live import LivePage, ReportServer


def ask(server: ReportServer, path: str = "/", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def version_of(html: str) -> str:
    found = re.search(r'data-version="(\w+)"', html)
    assert found
    return found[1]


def step_on(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "step", "step": 201, "epoch": 20, "loss": 1.0}) + "\n")


def test_the_page_follows_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with serving(run) as server:
        _, before = ask(server)
        assert ask(server, "/version") == (200, version_of(before))
        assert "not known" in before
        step_on(run)
        assert ask(server, "/version")[1] != version_of(before)
        (run / "eval.json").write_text(json.dumps(results(40)))
        _, after = ask(server)
        assert "The rarest classes score 40.0" in after
        assert ask(server, "/version") == (200, version_of(after))


def test_a_page_is_made_once_while_it_is_good(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with serving(run, every=1000) as server:
        _, before = ask(server)
        step_on(run)
        assert ask(server, "/version")[1] == version_of(before)
        assert ask(server)[1] == before


def test_reading_leaves_the_run_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    with serving(run) as server:
        ask(server)
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


def test_a_run_that_goes_away_leaves_its_last_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with serving(run) as server:
        _, before = ask(server)
        (run / "recipe.json").unlink()
        assert ask(server) == (200, before)


def test_the_live_page_may_ask_its_server_and_nobody_else(tmp_path: Path) -> None:
    with serving(make_run(tmp_path / "run")) as server:
        page = Page(ask(server)[1])
    policy = next(attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None
    assert "connect-src 'self';" in policy
    assert policy.count("sha256-") == len(page.scripts) - 1 == 3


@pytest.mark.parametrize("host", ["evil.invalid", "evil.invalid:80", "127.0.0.1.evil.invalid", ""])
def test_another_name_for_this_machine_is_refused(tmp_path: Path, host: str) -> None:
    with serving(make_run(tmp_path / "run")) as server:
        assert ask(server, host=host)[0] == 403
        assert ask(server, host="localhost:1")[0] == 200


def test_there_is_one_page(tmp_path: Path) -> None:
    with serving(make_run(tmp_path / "run")) as server:
        assert ask(server, "/../recipe.json")[0] == ask(server, "/recipe.json")[0] == 404
        assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_cannot_be_had_is_one_sentence(tmp_path: Path) -> None:
    page = LivePage([make_run(tmp_path / "run")], 10)
    with serving(tmp_path / "run") as server:
        with pytest.raises(InputError, match=r"--port .* cannot be used .* give another one"):
            ReportServer(page, server.server_port)
        with pytest.raises(InputError, match="not between 0 and 65535"):
            ReportServer(page, 70000)


def test_what_is_no_run_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        LivePage([tmp_path], 10)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing on Windows")
def test_the_command(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    command = [sys.executable, "-m", "evensphere", "watch", str(run), "--port", "0"]
    # a shell's background jobs ignore Ctrl-C, and so would what they start
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert found
        with urllib.request.urlopen(found[0]) as answer:
            assert "Did the rare things survive?" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_the_command_refuses_no_time() -> None:
    command = [sys.executable, "-m", "evensphere", "watch", "nowhere", "--every", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "--every 0 was given; give a number of seconds above 0."
