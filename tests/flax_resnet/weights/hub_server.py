"""A hub on loopback, for the hub's real client."""

import contextlib
import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serve(repositories):
    """Serve ``{"OWNER/NAME": {"FILE": bytes}}``; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            owner, _, rest = self.path[1:].partition("/")
            name, _, file = rest.partition("/resolve/main/")
            if not file:
                return self.answer(200)
            files = repositories.get(f"{owner}/{name}")
            if files is None:
                return self.answer(404, {"X-Error-Code": "RepoNotFound"})
            if file not in files:
                return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            etag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
            self.answer(200, {"ETag": etag, "X-Repo-Commit": COMMIT}, files[file])

        do_GET = do_HEAD

        def answer(self, status, headers=None, body=b""):
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def environment(endpoint, home):
    """Return the environment of a process that uses the hub at ``endpoint``."""
    given = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_HUB_CACHE")}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        given.pop(name, None)
        given.pop(name.lower(), None)
    return given | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "TORCH_HOME": str(home)}
