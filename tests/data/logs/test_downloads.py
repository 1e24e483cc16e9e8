import hashlib
import http.server
import io
import socketserver
import threading
import zipfile

import pytest

from sr_transformers.data.logs import downloads
from sr_transformers.data.logs.downloads import Download, fetch, parts
from sr_transformers.data.logs.sources import find_log
from sr_transformers.data.prepare import prepare

RATINGS = b"".join(b"%d::%d::%d::%d\n" % (user, item, 3, item) for user in range(1, 6) for item in range(1, 6))


def archive(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return content.getvalue()


ARCHIVE = archive(**{"../../evil.txt": b"out", "/evil.txt": b"out", "ml/ratings.dat": RATINGS})


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `content`, from where it is asked to, and at most `limit` bytes at a time."""

    content, limit, resumes, seen = ARCHIVE, 1 << 30, True, []

    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        self.seen.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.resumes else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if asked and self.resumes else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : start + self.limit])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of one archive and a download of it, called "small", into an empty cache."""

    class Mine(Handler):
        seen = []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mine) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{running.server_address[1]}"
        md5 = hashlib.md5(ARCHIVE).hexdigest()
        names = ("user_id", "item_id", "rating", "timestamp")
        one = Download(f"{url}/small.zip", "ml/ratings.dat", md5, "::", names)
        monkeypatch.setitem(downloads.DOWNLOADS, "small", one)
        plain = Download(f"{url}/plain.csv", None, None, ",", names)
        monkeypatch.setitem(downloads.DOWNLOADS, "plain", plain)
        monkeypatch.setitem(downloads.DOWNLOADS, "gone", Download(f"{url}/missing", None, None, ",", None))
        monkeypatch.setenv(downloads.CACHE_VARIABLE, str(tmp_path / "cache"))
        yield Mine
        running.shutdown()


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_one_file_of_the_archive_is_taken_and_nothing_is_written_elsewhere(server, tmp_path):
    file = fetch("small")
    assert file.read_bytes() == RATINGS
    assert files(tmp_path) == {"cache/small/ratings.dat", "cache/small/ratings.dat.sha256"}
    assert fetch("small") == file
    assert len(server.seen) == 1  # the second time it was there


def test_a_download_goes_on_where_it_broke_off(server, tmp_path):
    server.limit = 100
    with pytest.raises(ConnectionError, match=r"small: .* broke off after 100 bytes; run this again"):
        fetch("small")
    server.limit = 1 << 30
    assert fetch("small").read_bytes() == RATINGS
    assert server.seen == [None, "bytes=100-"]


def test_a_server_that_cannot_resume_begins_anew(server, tmp_path):
    server.limit = 100
    with pytest.raises(ConnectionError, match="broke off"):
        fetch("small")
    server.limit, server.resumes = 1 << 30, False
    assert fetch("small").read_bytes() == RATINGS


def test_a_file_that_was_put_there_by_hand_is_taken(server, tmp_path):
    (tmp_path / "cache" / "small").mkdir(parents=True)
    (tmp_path / "cache" / "small" / "small.zip.part").write_bytes(ARCHIVE)
    assert fetch("small").read_bytes() == RATINGS


def test_what_is_not_what_was_published_is_refused_and_removed(server, tmp_path):
    server.content = ARCHIVE[:-1] + b"!"
    with pytest.raises(ValueError, match=r"small: what http.* sent is not what was published \(MD5 differs\)"):
        fetch("small")
    assert files(tmp_path) == set()


def test_a_file_that_changed_in_the_cache_is_refused(server):
    fetch("plain").write_bytes(b"1,2,3,4\n")
    with pytest.raises(ValueError, match=r"plain.csv is not what was downloaded \(SHA-256 differs\)"):
        fetch("plain")


def test_an_archive_without_the_file_is_refused(server, monkeypatch):
    server.content = archive(other=b"")
    one = downloads.DOWNLOADS["small"]
    monkeypatch.setitem(downloads.DOWNLOADS, "small", Download(one.url, one.member, None, "::", None))
    with pytest.raises(ValueError, match=r"has no ml/ratings.dat that can be taken out of it, or is no zip archive"):
        fetch("small")


@pytest.mark.parametrize(("place", "value"), [(8, 77), (6, 1), (60, 255)], ids=["compression", "password", "content"])
def test_an_archive_that_cannot_be_unpacked_is_refused(server, monkeypatch, tmp_path, place, value):
    whole = bytearray(archive(**{"ml/ratings.dat": RATINGS}))
    whole[place] = value
    central = whole.index(b"PK\x01\x02")
    if place < 60:  # both headers of the file say so
        whole[central + place + 2] = value
    server.content = bytes(whole)
    one = downloads.DOWNLOADS["small"]
    monkeypatch.setitem(downloads.DOWNLOADS, "small", Download(one.url, one.member, None, "::", None))
    with pytest.raises(
        ValueError, match=r"small.zip.part has no ml/ratings.dat that can be taken out of it, .*remove it"
    ):
        fetch("small")
    assert files(tmp_path / "cache") == {"small/small.zip.part"}


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x01garbage, no protocol\n" * 9,
        b"",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * (1 << 20) + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a number\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: x\r\n" * 1000 + b"\r\n",
    ],
    ids=["garbage", "nothing", "a long header", "chunks", "many headers"],
)
def test_what_answers_without_speaking_http_is_named(tmp_path, monkeypatch, answer):
    class Other(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1 << 16)
            self.request.sendall(answer)

    monkeypatch.setenv(downloads.CACHE_VARIABLE, str(tmp_path / "cache"))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        one = Download(f"http://127.0.0.1:{running.server_address[1]}/a.csv", None, None, ",", None)
        monkeypatch.setitem(downloads.DOWNLOADS, "small", one)
        with pytest.raises(ConnectionError, match=r"small: cannot reach http://127.0.0.1:\d+/a.csv"):
            fetch("small")
        running.shutdown()


def test_without_a_network_it_says_so_and_what_to_do(server, monkeypatch, tmp_path):
    one = Download("http://127.0.0.1:9/small.zip", None, None, ",", None)
    monkeypatch.setitem(downloads.DOWNLOADS, "small", one)
    with pytest.raises(ConnectionError, match=r"small: cannot reach http://127.0.0.1:9.* put the file there yourself"):
        fetch("small")
    with pytest.raises(ConnectionError, match=r"gone: http.*/missing answered 404"):
        fetch("gone")


def test_a_download_is_prepared_by_its_name(server, tmp_path):
    data = prepare("small", tmp_path / "data", min_rating=1)
    assert (len(data), data.manifest["counts"]["interactions"]) == (5, 25)
    assert data.histories["user_id"][0] == "1"
    source = data.manifest["source"]
    assert (source["name"], source["files"][0]["sha256"]) == ("small", hashlib.sha256(RATINGS).hexdigest())


def test_amazon_domains_are_mixed_and_each_file_is_one(server, tmp_path, monkeypatch):
    server.content = b"".join(b"i%d,u%d,5,%d\n" % (item, user, item) for user in range(3) for item in range(4))
    for domain in ("Software", "Books"):
        monkeypatch.setitem(downloads.DOWNLOADS, f"amazon-2018/{domain}", downloads.DOWNLOADS["plain"])
    monkeypatch.setattr(downloads, "DOWNLOADS", {
        name: Download(one.url, None, None, ",", ("item_id", "user_id", "rating", "timestamp"))
        for name, one in downloads.DOWNLOADS.items()
    })  # fmt: skip
    data = prepare("amazon-2018/Software+Books", tmp_path / "data")
    assert data.domain_names == ["Books", "Software"]
    assert data.domains(0, 8).tolist() == [1, 0] * 4  # ties keep the order of the files
    with pytest.raises(ValueError, match="amazon-2018/Hats: no such domain; there are AMAZON_FASHION"):
        parts("amazon-2018/Hats")


def test_names_are_those_of_the_readme_of_the_sets():
    assert downloads.names() == (
        "movielens-100k", "movielens-1m", "movielens-20m", "amazon-2018/DOMAIN[+DOMAIN...]",
    )  # fmt: skip
    assert len(downloads.AMAZON_DOMAINS) == 29
    assert parts("elsewhere.csv") == []


def test_downloads_say_how_their_files_are_written(monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "fetch", lambda name: tmp_path / "ratings.dat")
    log = find_log("movielens-1m")
    assert (log.separator, log.names) == ("::", ("user_id", "item_id", "rating", "timestamp"))
    assert dict(find_log("movielens-20m").columns) == {"user_id": "userId", "item_id": "movieId"}
