"""Downloads from a server that disconnects, stalls, sends wrong headers and redirects."""

import hashlib
import http.client
import io
import threading

import loopback
import numpy as np
import pytest

from fastfcn_jax.errors import UserError
from fastfcn_jax.weights import fetch

CONTENT = np.random.default_rng(0).bytes(3 << 20)
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()[:8]
OTHER = CONTENT[::-1]


@pytest.fixture
def server(monkeypatch):
    """Serves /a.pth, with no pauses between attempts."""
    monkeypatch.setattr(fetch, "FIRST_PAUSE", 0.0)
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with loopback.serving() as running:
        running.files["/a.pth"] = CONTENT
        yield running


def get(server, path, checksum=CHECKSUM, name="/a.pth"):
    fetch.download(server.address + name, path, checksum=checksum, remedy="REMEDY")


def parts(folder):
    """All files there except for locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_arrives_whole_and_once(server, tmp_path):
    path = tmp_path / "new" / "a.pth"
    get(server, path)
    get(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [("/a.pth", None)]
    assert parts(path.parent) == ["a.pth"]


@pytest.mark.parametrize("checksum", [CHECKSUM, ""])
def test_an_interrupted_transfer_resumes(server, tmp_path, checksum):
    server.breaks = [1 << 20, 1 << 19]
    get(server, tmp_path / "a.pth", checksum)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    ranges = [asked for _, asked in server.asked]
    assert ranges == [None, f"bytes={1 << 20}-", f"bytes={(1 << 20) + (1 << 19)}-"]


def test_a_later_call_resumes_where_an_earlier_one_gave_up(server, tmp_path):
    server.breaks = [1 << 20] + [0] * (fetch.ATTEMPTS - 1)
    with pytest.raises(UserError, match=f"{1 << 20} of {3 << 20} bytes arrived; REMEDY"):
        get(server, tmp_path / "a.pth")
    assert not (tmp_path / "a.pth").exists()
    server.asked.clear()
    get(server, tmp_path / "a.pth")
    assert server.asked == [("/a.pth", f"bytes={1 << 20}-")]
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_starts_over(server, tmp_path):
    """`If-Range` prevents joining the beginning of one file with the end of another."""
    server.breaks = [1 << 20] * fetch.ATTEMPTS
    server.ranges = False
    with pytest.raises(UserError):
        get(server, tmp_path / "a.pth", "")
    server.files["/a.pth"], server.etag, server.ranges = OTHER, '"two"', True
    get(server, tmp_path / "a.pth", "")
    assert (tmp_path / "a.pth").read_bytes() == OTHER


def test_without_a_validator_the_checksum_decides(server, tmp_path):
    server.etag = ""
    (tmp_path / ".a.pth.part").write_bytes(b"the beginning of another file")
    get(server, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["bytes=29-", None]
    # ... and without a checksum, the download starts over.
    server.asked.clear()
    (tmp_path / ".b.pth.part").write_bytes(b"the beginning of another file")
    get(server, tmp_path / "b.pth", "")
    assert (tmp_path / "b.pth").read_bytes() == CONTENT
    assert server.asked == [("/a.pth", None)]


def test_a_server_that_cannot_resume_starts_over(server, tmp_path):
    server.ranges, server.breaks = False, [1 << 20]
    get(server, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


def test_more_on_disk_than_on_the_server(server, tmp_path):
    (tmp_path / ".a.pth.part").write_bytes(CONTENT + b"more")
    get(server, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


def test_a_stalled_connection_is_given_up_and_resumed(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "STALL_SECONDS", 0.5)
    server.stalls = [2 << 20]
    get(server, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert len(server.asked) > 1


def test_wrong_content_lengths(server, tmp_path):
    server.lengths = [5 << 20] * fetch.ATTEMPTS
    server.ranges = False
    with pytest.raises(UserError, match=f"{3 << 20} of {5 << 20} bytes arrived"):
        get(server, tmp_path / "a.pth")
    server.lengths = [1 << 20, 1 << 20]  # too short: detected by the checksum, not by the length
    with pytest.raises(UserError, match="another file"):
        get(server, tmp_path / "b.pth")
    assert not (tmp_path / "a.pth").exists()
    assert not (tmp_path / "b.pth").exists()


def test_a_file_with_another_checksum_is_not_kept(server, tmp_path):
    server.files["/a.pth"] = b"<!DOCTYPE html><p>Quota exceeded"
    with pytest.raises(UserError) as caught:
        get(server, tmp_path / "a.pth")
    assert f"not with {CHECKSUM[7:]}, it is a web page; nothing is kept" in str(caught.value)
    assert parts(tmp_path) == []
    assert len(server.asked) == 1


def test_busy_servers_are_retried_and_refusals_are_not(server, tmp_path):
    server.statuses = [503, 429]
    get(server, tmp_path / "a.pth")
    assert len(server.asked) == 3
    server.asked.clear()
    with pytest.raises(UserError, match=r"the server answers 404 Not Found; REMEDY"):
        get(server, tmp_path / "b.pth", name="/b.pth")
    assert len(server.asked) == 1


def test_redirects_are_followed_but_not_in_circles(server, tmp_path):
    server.redirects = {"/old": f"{server.address}/a.pth", "/round": f"{server.address}/round"}
    get(server, tmp_path / "a.pth", name="/old")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    with pytest.raises(UserError, match="the server answers 302") as caught:
        get(server, tmp_path / "b.pth", name="/round")
    assert "\n" not in str(caught.value)
    server.redirects["/file"] = "file:///etc/passwd"
    with pytest.raises(UserError, match="file:///etc/passwd' is not allowed"):
        get(server, tmp_path / "b.pth", name="/file")


def test_no_redirect_leaves_an_encrypted_connection():
    redirects = fetch._Redirects()
    request = fetch.urllib.request.Request("https://a.example/x")
    answer = (io.BytesIO(), 302, "", http.client.HTTPMessage())
    with pytest.raises(fetch._UnreachableError, match="not encrypted"):
        redirects.redirect_request(request, *answer, "http://a.example/x")
    kept = redirects.redirect_request(request, *answer, "https://b.example/x")
    assert kept is not None
    assert kept.full_url == "https://b.example/x"


def test_without_a_network_one_sentence_says_what_to_do(server, tmp_path):
    address = loopback.unused_address()
    with pytest.raises(UserError, match=r"cannot be reached \(Connection refused\); REMEDY"):
        fetch.download(f"{address}/a.pth", tmp_path / "a.pth", remedy="REMEDY")
    with pytest.raises(UserError, match="has to start with https://"):
        fetch.download("ftp://a.example/a.pth", tmp_path / "a.pth")


def test_the_proxy_of_the_environment_is_asked(server, tmp_path, monkeypatch):
    """A proxy is asked for full URLs; this one serves one such file."""
    server.files["http://weights.example/a.pth"] = CONTENT
    monkeypatch.setenv("http_proxy", server.address)
    fetch.download("http://weights.example/a.pth", tmp_path / "a.pth", checksum=CHECKSUM)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


def test_two_at_once_fetch_once(server, tmp_path):
    """Locks on two open files also exclude each other within one process."""
    threads = [threading.Thread(target=get, args=(server, tmp_path / "a.pth")) for _ in range(2)]
    with fetch.locked(tmp_path / "a.pth"):
        for thread in threads:
            thread.start()
        assert not server.asked
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        get(server, tmp_path / "file" / "a.pth")
