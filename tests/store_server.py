"""A web server on loopback that serves a folder by byte ranges, and fails as a store does where it is told to."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[[str, int], str | None]
"""Of the name of a file and the first byte that is asked for: "error", "refuse", "cut", "stall", "gone",
"deaf" (sends all of it whatever the range), or None."""


class Server:
    """What it was asked for, and what it shall do wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.fault: Fault = lambda name, start: None
        self.asked: list[tuple[str, int]] = []  # name and bytes of each request
        self.together = 0  # the first requests wait until so many do
        self.waiting = self.most_waiting = 0
        self.lock = threading.Condition()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder until the end of the block."""
    server = Server(folder)
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            name = self.path.lstrip("/")
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            with server.lock:
                server.waiting += 1
                server.most_waiting = max(server.most_waiting, server.waiting)
                server.lock.notify_all()
                server.lock.wait_for(lambda: server.waiting >= server.together, timeout=60)
                server.together = 0  # they came, or never will
                server.waiting -= 1
            fault = server.fault(name, int(found[1]) if found else 0)
            path = server.folder / name
            if fault == "gone" or not path.is_file():
                return self.send_error(404)
            if fault in ("error", "refuse"):
                return self.send_error(500 if fault == "error" else 403)
            size = path.stat().st_size
            start, stop = 0, size
            if found and fault != "deaf":
                start, stop = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
            with server.lock:
                server.asked.append((name, stop - start if body else 0))
            self.send_response(206 if found and fault != "deaf" else 200)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Accept-Ranges", "bytes")
            if found:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.end_headers()
            if not body:
                return None
            with path.open("rb") as file:
                file.seek(start)
                piece = file.read(stop - start)
            if fault == "stall":
                self.wfile.write(piece[: len(piece) // 2])
                over.wait(60)
            elif fault == "cut":
                self.wfile.write(piece[: len(piece) // 2])
                self.close_connection = True
                self.connection.close()
            else:
                self.wfile.write(piece)
            return None

        def log_message(self, *arguments: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *arguments: object) -> None:
            pass

    listening = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        over.set()
        listening.shutdown()
        listening.server_close()
        thread.join()
