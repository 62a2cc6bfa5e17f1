"""The report of runs that still go on: served on this machine alone, loaded anew by the browser when they have moved.

A page is made when a browser asks for one, at most once every few seconds, whoever asks. The server reads the run
folders and writes nothing, so it may be started, stopped and started again beside any training.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from evensphere.errors import InputError
from evensphere.report.page import render_page
from evensphere.report.record import read_runs
from evensphere.rundir import RunDir

LOOPBACK = "127.0.0.1"
_NAMES = (LOOPBACK, "localhost")  # what a browser may call this machine; any other name is somebody's DNS trick
_TEXT, _HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"


class LivePage:
    """The page of some run folders, as they are now.

    every: seconds that a page is good for, however much the runs move; above 0.
    """

    def __init__(self, runs: Sequence[Path], every: float) -> None:
        self._runs, self.every = list(runs), every
        self._lock = threading.Lock()
        self._made, self._version, self._page = 0.0, "", ""
        self.page()  # what is wrong with the folders is said at once

    def version(self) -> str:
        """What `page` would be, in a word: another one when the runs have moved and the last page is old enough."""
        with self._lock:
            return self._version if self._is_fresh() else self._state()

    def page(self) -> str:
        """The page. Where the runs cannot be read just now, the last one that could be."""
        with self._lock:
            if not self._is_fresh() and (state := self._state()) != self._version:
                try:
                    self._page = render_page(read_runs(self._runs), live=(state, self.every))
                    self._version = state
                except InputError:
                    if not self._page:
                        raise
                self._made = time.monotonic()
            return self._page

    def _is_fresh(self) -> bool:
        return bool(self._page) and time.monotonic() < self._made + self.every

    def _state(self) -> str:
        """A digest of names, sizes and times of everything that a report is made of."""
        digest = hashlib.sha256()
        for run in self._runs:
            ours = RunDir(run)
            for file in sorted(run.glob("*")):
                if file == ours.report_file or file.name.startswith(".") or not file.is_file():
                    continue
                try:
                    status = file.stat()
                except FileNotFoundError:  # half of another file, which is whole by now
                    continue
                digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]


class ReportServer(ThreadingHTTPServer):
    """Serves a LivePage on the loopback address: `/`, and `/version` for its script."""

    daemon_threads = True

    def __init__(self, page: LivePage, port: int) -> None:
        """port: 0 for any that is free. Raises InputError for one that is taken or not allowed."""
        self.live = page
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not between 0 and 65535"
            raise InputError(f"--port {port} cannot be used ({reason}); give another one, or 0 for any.") from error

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").partition(":")[0]
        if host not in _NAMES:
            self._answer(403, "This page is for this machine alone.", _TEXT)
        elif self.path == "/version":
            self._answer(200, self.server.live.version(), _TEXT)
        elif self.path == "/":
            self._answer(200, self.server.live.page(), _HTML)
        else:
            self._answer(404, "There is one page here: /", _TEXT)

    def _answer(self, status: int, text: str, kind: str) -> None:
        body = text.encode(errors="replace")
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        with suppress(ConnectionError):  # the reader has left
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the terminal is the user's."""
