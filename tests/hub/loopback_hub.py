"""A Hub on loopback: enough of the Hub's HTTP API, in memory, for huggingface_hub's real client.

It knows repositories (public and private), commits, branches, tags, LFS, byte ranges and users with tokens, writes down
every request, and fails on demand: with a status, by dropping the connection, by dropping it half-way through a file,
by sending the client round in a circle, or by never answering. Without Xet, so the client must run with
HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import DatasetCardData, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import yaml_dump
from yaml import YAMLError, safe_load

LFS_ENDINGS = (".safetensors", ".parquet", ".png", ".bin")
LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc0-1.0", "other", "unknown"}


@dataclass
class Repo:
    """One repository: `commits` maps a hash to its files (path -> content), `refs` a branch or tag to a hash."""

    kind: str
    name: str
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.commit("main", {}, "initial commit")

    def commit(self, branch, files, message):
        key = f"{self.kind}{self.name}{branch}{len(self.commits)}"
        commit = hashlib.sha1(key.encode()).hexdigest()
        self.commits[commit] = files
        self.refs[branch] = commit
        self.messages.append(message)
        return commit

    def find(self, revision):
        commit = self.refs.get(revision, revision)
        return commit if commit in self.commits else None

    def files(self, revision="main"):
        return self.commits[self.find(revision)]


@dataclass
class Fault:
    """Fails the next `times` requests that match: with `status` (302 leads back to the same address), by not
    answering (`hang`), or by dropping the connection after `after` bytes."""

    method: str
    path: str
    times: int
    status: int | None = None
    after: int | None = None
    hang: bool = False


def is_lfs(path):
    return path.endswith(LFS_ENDINGS)


def oid_of(path, content):
    """What git calls a file: the sha256 of an LFS object, else the hash of its blob."""
    if is_lfs(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def card_errors(content, kind):
    """What is wrong with the metadata of a README.md."""
    found = REGEX_YAML_BLOCK.search(content)
    try:
        metadata = safe_load(found.group(2)) if found else {}
        data = (ModelCardData if kind == "model" else DatasetCardData)(**metadata)
        yaml_dump(data.to_dict())
    except (YAMLError, ValueError, TypeError, KeyError) as error:
        return [str(error)]
    licence = metadata.get("license")
    errors = [f'"license" must be one of {sorted(LICENSES)}'] if licence and licence not in LICENSES else []
    if licence == "other" and not metadata.get("license_name"):
        errors.append('"license_name" is required when license is other')
    return errors


class LoopbackHub:
    """The server. `url` is what HF_ENDPOINT must be; `users` maps tokens to the namespaces that they may write to."""

    def __init__(self):
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}  # LFS store, by sha256
        self.users = {"hf_writer": {"org", "writer"}, "hf_reader": {"reader"}}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.closed = threading.Event()
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()

    def fail(self, method, path, times=1, status=None, after=None, hang=False):
        """The next `times` requests whose path contains the pattern fail; see `Fault`."""
        self.faults.append(Fault(method, path, times, status, after, hang))

    def model(self, name):
        return self.repos["model", name]

    def count(self, pattern):
        return sum(bool(re.search(pattern, request)) for request in self.requests)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: LoopbackHub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._handle()

    def do_HEAD(self):
        self._handle()

    def do_POST(self):
        self._handle()

    def do_PUT(self):
        self._handle()

    def _handle(self):
        split = urlsplit(self.path)
        self.route, self.query = unquote(split.path), parse_qs(split.query)
        self.body = self._read()
        self.truncate = None
        with self.server_hub.lock:
            self.server_hub.requests.append(f"{self.command} {self.route}")
            fault = next(
                (
                    one
                    for one in self.server_hub.faults
                    if one.times and one.method == self.command and re.search(one.path, self.route)
                ),
                None,
            )
            if fault:
                fault.times -= 1
                if fault.hang:
                    self.server_hub.lock.release()
                    self.server_hub.closed.wait()
                    self.server_hub.lock.acquire()
                if fault.status == 302:
                    return self._send(302, {}, {"Location": self.path})
                if fault.status:
                    return self._send(fault.status, {"error": "told to fail"})
                if fault.after is None:
                    self.close_connection = True
                    return None
                self.truncate = fault.after
            for method, pattern, name in ROUTES:
                found = re.fullmatch(pattern, self.route)
                if method == self.command.replace("HEAD", "GET") and found:
                    return getattr(self, name)(**found.groupdict())
        return self._send(404, {"error": f"no such route: {self.command} {self.route}"})

    def _read(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    # Answers

    def _send(self, status, body, headers=None):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.truncate is not None:
            content, self.close_connection = content[: self.truncate], True
        self.wfile.write(content)

    def _refuse(self, status, code, message):
        self._send(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def _namespaces(self):
        """Where the request's token may write; None without a token."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return self.server_hub.users.get(token, set()) if token else None

    def _repo(self, kind, name, write=False):
        """The repository, or None after an answer has been sent."""
        spaces = self._namespaces()
        if spaces == set():
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        repo = self.server_hub.repos.get((kind.rstrip("s") or "model", name))
        mine = bool(spaces) and name.split("/")[0] in spaces
        if repo is None or (repo.private and not mine):
            return self._refuse(404 if spaces else 401, "RepoNotFound", "Repository not found")
        if write and not mine:
            return self._refuse(403 if spaces else 401, "", "You don't have the rights")
        return repo

    def _at(self, repo, revision):
        """The commit of a revision, or None after an answer has been sent."""
        commit = repo.find(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # Routes

    def whoami(self):
        spaces = self._namespaces()
        if not spaces:
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        return self._send(200, {"name": sorted(spaces)[-1], "type": "user", "orgs": [], "auth": {}})

    def create(self):
        asked = json.loads(self.body)
        spaces = self._namespaces()
        if not spaces:
            return self._refuse(401, "", "Invalid username or password.")
        owner = asked.get("organization") or sorted(spaces)[-1]
        if owner not in spaces:
            return self._refuse(403, "", f"You don't have the rights to create a repository under {owner}")
        kind, name = asked.get("type", "model"), f"{owner}/{asked['name']}"
        prefix = "" if kind == "model" else f"{kind}s/"
        answer = {"url": f"{self.server_hub.url}/{prefix}{name}", "name": name}
        if (kind, name) in self.server_hub.repos:
            return self._send(409, {**answer, "error": "You already created this repo"})
        self.server_hub.repos[kind, name] = Repo(kind, name, asked.get("visibility") == "private")
        return self._send(200, answer)

    def validate(self):
        asked = json.loads(self.body)
        errors = card_errors(asked["content"], asked["repoType"])
        return self._send(400 if errors else 200, {"errors": [{"message": one} for one in errors], "warnings": []})

    def info(self, kind, name, revision="main"):
        if not (repo := self._repo(kind, name)) or not (commit := self._at(repo, revision)):
            return None
        files = [{"rfilename": path} for path in sorted(repo.commits[commit])]
        answer = {"id": name, "sha": commit, "private": repo.private, "siblings": files, "tags": [], "downloads": 0}
        return self._send(200, {**answer, "likes": 0})

    def tree(self, kind, name, revision, path=""):
        if not (repo := self._repo(kind, name)) or not (commit := self._at(repo, revision)):
            return None
        rows = []
        for file, content in sorted(repo.commits[commit].items()):
            row = {"type": "file", "path": file, "size": len(content), "oid": oid_of(file, content)}
            if is_lfs(file):
                row["lfs"] = {"oid": row["oid"], "size": len(content), "pointerSize": 130}
            if not path or file.startswith(f"{path}/"):
                rows.append(row)
        if path and not rows:
            return self._refuse(404, "EntryNotFound", f"{path} does not exist")
        return self._send(200, rows)

    def refs(self, kind, name):
        if repo := self._repo(kind, name):
            branches = [{"name": one, "ref": f"refs/heads/{one}", "targetCommit": at} for one, at in repo.refs.items()]
            self._send(200, {"branches": branches, "tags": [], "converts": []})

    def reference(self, kind, name, what, revision):
        if not (repo := self._repo(kind, name, write=True)):
            return None
        asked = json.loads(self.body)
        new, start = (revision, asked.get("startingPoint", "main")) if what == "branch" else (asked["tag"], revision)
        if new in repo.refs:
            return self._send(409, {"error": f"Reference already exists: {new}"})
        if not (commit := self._at(repo, start)):
            return None
        repo.refs[new] = commit
        return self._send(200, {})

    def preupload(self, kind, name, revision):
        if not (repo := self._repo(kind, name, write=True)) or not (commit := self._at(repo, revision)):
            return None
        present = repo.commits[commit]
        files = [
            {
                "path": path,
                "uploadMode": "lfs" if is_lfs(path) else "regular",
                "shouldIgnore": False,
                "oid": oid_of(path, present[path]) if path in present else None,
            }
            for path in (one["path"] for one in json.loads(self.body)["files"])
        ]
        return self._send(200, {"files": files})

    def lfs_batch(self, kind, name):
        if not self._repo(kind or "", name, write=True):
            return None
        objects = []
        for one in json.loads(self.body)["objects"]:
            if one["oid"] not in self.server_hub.objects:
                one["actions"] = {"upload": {"href": f"{self.server_hub.url}/lfs/{one['oid']}"},
                                  "verify": {"href": f"{self.server_hub.url}/lfs-verify"}}  # fmt: skip
            objects.append(one)
        return self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._send(400, {"error": "wrong content"})
        self.server_hub.objects[oid] = self.body
        return self._send(200, {})

    def lfs_verify(self):
        asked = json.loads(self.body)
        here = self.server_hub.objects.get(asked["oid"])
        return self._send(200 if here is not None and len(here) == asked["size"] else 404, {})

    def commit(self, kind, name, revision):
        if not (repo := self._repo(kind, name, write=True)) or not (parent := self._at(repo, revision)):
            return None
        if revision not in repo.refs:
            return self._send(400, {"error": f"{revision} is no branch"})
        files, message = dict(repo.commits[parent]), ""
        for line in self.body.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.server_hub.objects:
                    return self._send(400, {"error": f"LFS object {value['oid']} was never uploaded"})
                files[value["path"]] = self.server_hub.objects[value["oid"]]
            elif key == "deletedFile":
                files.pop(value["path"])
            else:
                return self._send(400, {"error": f"{key} is not served"})
        commit = repo.commit(revision, files, message)
        prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
        return self._send(
            200, {"commitUrl": f"{self.server_hub.url}/{prefix}{name}/commit/{commit}", "commitOid": commit}
        )

    def resolve(self, kind, name, revision, path):
        if not (repo := self._repo(kind or "", name)) or not (commit := self._at(repo, revision)):
            return None
        content = repo.commits[commit].get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound", f"{path} does not exist")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{oid_of(path, content)}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            return self._send(200, content, headers)
        first, last = int(asked[1]), int(asked[2] or len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self._send(206, content[first : last + 1], headers)


_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
_API = rf"/api/(?P<kind>models|datasets|spaces)/{_NAME}"
ROUTES = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("GET", _API, "info"),
    ("GET", rf"{_API}/revision/(?P<revision>.+)", "info"),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", "tree"),
    ("GET", rf"{_API}/refs", "refs"),
    ("POST", rf"{_API}/(?P<what>branch|tag)/(?P<revision>.+)", "reference"),
    ("POST", rf"{_API}/preupload/(?P<revision>.+)", "preupload"),
    ("POST", rf"{_API}/commit/(?P<revision>.+)", "commit"),
    ("POST", rf"/(?:(?P<kind>datasets|spaces)/)?{_NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
    ("POST", r"/lfs-verify", "lfs_verify"),
    ("GET", rf"/(?:(?P<kind>datasets|spaces)/)?{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)
