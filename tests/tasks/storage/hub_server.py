"""A small local server that answers like the Hugging Face hub: information about a data set, its folders, its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "a" * 40  # the first one


class HubServer(ThreadingHTTPServer):
    """Serves the files of data sets, `repositories[name][path]`, at the newest or the requested commit.

    `requests` lists (command, path) of all requests.
    """

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        self.commits = {COMMIT: repositories}
        self.newest = COMMIT
        self.requests: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def push(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        """Adds a commit of all data sets, which is served from now on to requests that name no commit."""
        self.newest = hashlib.sha1(self.newest.encode()).hexdigest()
        self.commits[self.newest] = repositories

    @property
    def downloads(self) -> list[str]:
        """Paths of the files whose content was requested, in order."""
        got = (path.partition("/resolve/") for command, path in self.requests if command == "GET")
        return [rest.partition("/")[2] for _, resolved, rest in got if resolved]


def files_below(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


class _Answer(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path, _, query = self.path.partition("?")
        path = unquote(path)
        self.server.requests.append((self.command, path))
        commit = next((commit for commit in self.server.commits if commit in path), self.server.newest)
        repositories = self.server.commits[commit]
        name = next((name for name in repositories if f"/datasets/{name}" in path), None)
        if name is None:
            return self._send(404, b"Repository not found", body, {"X-Error-Code": "RepoNotFound"})
        files, rest = repositories[name], path.partition(f"/datasets/{name}")[2]
        if rest.startswith("/tree/"):
            listed = _list(files, rest.removeprefix("/tree/").partition("/")[2], deep="recursive=true" in query)
            return self._send(200, json.dumps(listed).encode(), body, {"Content-Type": "application/json"})
        if rest.startswith("/resolve/"):
            return self._send_file(files.get(rest.removeprefix("/resolve/").partition("/")[2]), commit, body)
        answer = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
        return self._send(200, json.dumps(answer).encode(), body, {"Content-Type": "application/json"})

    def _send_file(self, content: bytes | None, commit: str, body: bool) -> None:
        if content is None:
            return self._send(404, b"Entry not found", body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_git_hash(content)}"'}
        wanted = self.headers.get("Range")
        if not (wanted and body):
            return self._send(200, content, body, headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        return self._send(
            206, part, body, {**headers, "Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"}
        )

    def _send(self, status: int, content: bytes, body: bool, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _git_hash(content: bytes) -> str:
    """The hash that the hub gives for small files."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _list(files: Mapping[str, bytes], folder: str, *, deep: bool) -> list[dict[str, object]]:
    """Files and folders in a folder; with `deep`, also those in its subfolders."""
    prefix = f"{folder}/" if folder else ""
    listed: dict[str, dict[str, object]] = {}
    for path, content in files.items():
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if deep else min(2, len(parts))):
            inner = prefix + "/".join(parts[:depth])
            listed[inner] = {"type": "directory", "path": inner, "oid": "0" * 40}
        if deep or len(parts) == 1:
            listed[path] = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
            }
    return list(listed.values())
