"""Downloads, the errors of those that fail, and what the cache keeps of them."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from detectron2.utils.file_io import PathHandler, PathManager
from safetensors.torch import save

from querypose.checkpoint.download import read_at, split_heuristics
from querypose.checkpoint.files import read_checkpoint

TENSORS = {"weight": torch.arange(2000.0)}


def torch_file(**options: object) -> bytes:
    file = io.BytesIO()
    torch.save({"model": TENSORS}, file, **options)
    return file.getvalue()


def pickle_file(protocol: int) -> bytes:
    arrays = {name: value.numpy() for name, value in TENSORS.items()}
    return pickle.dumps({"model": arrays, "__author__": "Caffe2"}, protocol)


FILES = {
    "a.pth": torch_file(),
    "legacy.pth": torch_file(_use_new_zipfile_serialization=False),
    "a.safetensors": save(TENSORS),
    "a.pkl": pickle_file(4),
    "of_python_2.pkl": pickle_file(2),
    "text.pkl": pickle_file(0),
    # Names that servers and caches may give a file.
    "download": torch_file(),
    "blobs/0123abcd": pickle_file(2),
    "content.bin": save(TENSORS),
}


def put(server, name: str, content: bytes) -> str:
    """Puts a file on a server; returns its address."""
    path = server.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return f"{server.address}/{name}"


def load(address: str) -> torch.Tensor:
    content = read_at(address, partial(read_checkpoint, name=address))
    return torch.as_tensor(content["model"]["weight"])


def refusal(error: type[Exception], address: str) -> str:
    """The error message for an address, which is one sentence."""
    with pytest.raises(error) as raised:
        load(address)
    sentence = str(raised.value)
    assert address in sentence
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("name", FILES)
def test_content_tells_the_format(name, server):
    assert torch.equal(load(put(server, name, FILES[name])), TENSORS["weight"])


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_short_is_fetched_anew(name, kept, server):
    content = FILES[name]
    address = put(server, name, content[: int(kept * len(content))])
    sentence = refusal(ValueError, address)
    assert sentence.startswith(f"{address} cannot be read: it is ")
    assert sentence.endswith("; the next try downloads it again.")
    assert "WEIGHTS_ONLY" not in sentence
    assert server.cached() == []
    put(server, name, content)
    assert torch.equal(load(address), TENSORS["weight"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "a web page (HTML or XML)"),
        (b"\xef\xbb\xbf\n <HTML><body>\xe9</body>", "a web page (HTML or XML)"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
        (b'{"error": "rate limit"}', 'text in place of a checkpoint and begins with \'{"error"'),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "text in place of"),
        ("Anmeldung nötig".encode() * 99, "text in place of"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "cut short, damaged or not a checkpoint"),
        (b"\x1f\x8b\x08\x00" + bytes(99), "cut short, damaged or not a checkpoint"),
    ],
    ids=["html", "upper_case", "xml", "json", "git_lfs", "utf_8", "png", "gzip"],
)
@pytest.mark.parametrize("suffix", ["pth", "pkl", "safetensors"])
def test_something_else_in_place_of_a_checkpoint(suffix, content, reason, server):
    address = put(server, f"a.{suffix}", content)
    assert f"{address} cannot be read: it is {reason}" in refusal(ValueError, address)
    assert server.cached() == []


def test_a_local_page_is_named_and_stays(tmp_path):
    path = tmp_path / "page.pth"
    path.write_text("<html>")
    assert refusal(ValueError, str(path)) == (
        f"{path} cannot be read: it is a web page (HTML or XML) in place of a checkpoint."
    )
    assert path.exists()


class RunsCode:
    def __reduce__(self):
        return Path.touch, (Path("it_ran"),)


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_a_download_that_needs_trust_is_kept(suffix, server):
    file = io.BytesIO()
    content = {"model": {}, "extra": RunsCode()}
    (torch.save if suffix == "pth" else pickle.dump)(content, file)
    sentence = refusal(ValueError, put(server, f"a.{suffix}", file.getvalue()))
    assert "cannot be read as weights alone (it holds " in sentence
    assert server.cached() == [f"a.{suffix}"]


@pytest.mark.parametrize("code", [404, 410])
def test_a_file_that_is_not_there(code, server):
    server.answers["/a.pth"] = lambda handler: handler.send_error(code)
    address = f"{server.address}/a.pth"
    sentence = refusal(FileNotFoundError, address)
    assert f"There is no checkpoint file {address}: the server answers {code} " in sentence
    assert server.cached() == []


@pytest.mark.parametrize("code", [401, 403, 429, 500, 503])
def test_a_server_that_refuses(code, server):
    server.answers["/a.pth"] = lambda handler: handler.send_error(code)
    address = f"{server.address}/a.pth"
    assert f"{address} cannot be downloaded: the server answers {code}" in refusal(OSError, address)
    del server.answers["/a.pth"]
    assert torch.equal(load(put(server, "a.pth", FILES["a.pth"])), TENSORS["weight"])


def send_less_than_announced(handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(FILES["a.pth"][:1000])


def send_half_of_a_chunk(handler) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"2000\r\n" + FILES["a.pth"][:1000])
    handler.close_connection = True


def hang_up(handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("answer", [send_less_than_announced, send_half_of_a_chunk, hang_up])
def test_a_connection_that_ends_too_early(answer, server):
    server.answers["/a.pth"] = answer
    address = f"{server.address}/a.pth"
    expected = "cannot be downloaded: the connection ended before the file did; try again."
    assert refusal(OSError, address) == f"{address} {expected}"
    assert server.cached() == []
    del server.answers["/a.pth"]
    assert torch.equal(load(put(server, "a.pth", FILES["a.pth"])), TENSORS["weight"])


def test_an_answer_without_content(server):
    address = put(server, "a.pth", b"")
    assert f"{address} cannot be downloaded: " in refusal(OSError, address)


def test_no_network(server, closed_port):
    address = f"http://127.0.0.1:{closed_port}/a.pth"
    sentence = refusal(ConnectionError, address)
    assert f"{address} cannot be reached (Connection refused): check the network" in sentence


@pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
def test_a_name_that_no_machine_has(scheme, server):
    address = f"{scheme}://weights.invalid/a.pth"
    assert f"{address} cannot be reached (" in refusal(ConnectionError, address)


@pytest.mark.parametrize(
    "address", ["s3x://bucket/a.pth", "HTTPX://host/a.pth", "gs://a/b.pkl?c=1"]
)
def test_a_prefix_that_nobody_registered(address):
    prefix = address.partition("://")[0]
    assert f"no handler for {prefix}:// is registered" in refusal(ValueError, address)


@pytest.mark.parametrize(
    "address",
    [
        "catalog://ImageNetPretrained/nothing",
        "catalog://nothing",
        "http://",
        "http://127.0.0.1/",
        "http://127.0.0.1:port/a.pth",
        "http://[/a.pth",
        "http://127.0.0.1/a b.pth",
    ],
)
def test_addresses_that_make_no_sense(address, server):
    assert f"{address} cannot be " in refusal((OSError, ValueError), address)


class Storage(PathHandler):
    """A local storage under a prefix of a user's project."""

    def __init__(self, folder: Path, error: Exception | None = None) -> None:
        super().__init__()
        self.folder, self.error = folder, error

    def _get_supported_prefixes(self) -> list[str]:
        return ["storage://"]

    def _get_local_path(self, path: str, force: bool = False, **_: object) -> str:
        if self.error:
            raise self.error
        return str(self.folder / path.removeprefix("storage://"))


@pytest.fixture
def register(monkeypatch) -> Callable[[PathHandler], None]:
    monkeypatch.setattr(PathManager, "_path_handlers", PathManager._path_handlers.copy())
    return PathManager.register_handler


def test_a_projects_own_files_are_named_and_never_removed(register, server, tmp_path):
    register(Storage(tmp_path))
    path = tmp_path / "a.pth"
    path.write_bytes(FILES["a.pth"][:1000])
    sentence = refusal(ValueError, "storage://a.pth")
    assert sentence.startswith("storage://a.pth cannot be read: ")
    assert sentence.endswith(f"; it was read from {path}.")
    assert path.exists()
    assert refusal(FileNotFoundError, "storage://b.pth")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyError("a.pth"), ValueError),
        (RuntimeError("no such\nbucket."), ValueError),
        (PermissionError(13, "Permission denied"), OSError),
        (FileNotFoundError(2, "No such file", "a.pth"), FileNotFoundError),
        (NotImplementedError(), (OSError, ValueError)),
    ],
)
def test_whatever_a_handler_raises_is_one_sentence(error, expected, register, tmp_path):
    register(Storage(tmp_path, error))
    refusal(expected, "storage://a.pth")


def test_a_copy_that_another_process_found_damaged_and_removed(server):
    """This process, too, reports what is wrong with the file."""
    address = put(server, "a.pth", b"<html>")
    seen = []

    def read(path: str) -> None:
        seen.append(path)
        if len(seen) == 1:
            os.unlink(path)
        read_checkpoint(path, name=address)

    with pytest.raises(ValueError, match="a web page"):
        read_at(address, read)
    assert server.requests == ["/a.pth", "/a.pth"]


def test_a_file_is_downloaded_once(server):
    address = put(server, "a.pth", FILES["a.pth"])
    for _ in range(2):
        load(address)
    assert server.requests == ["/a.pth"]
    assert server.cached() == ["a.pth"]


def test_of_several_processes_one_downloads(server):
    server.answers["/a.pth"] = slowly
    address = put(server, "a.pth", FILES["a.pth"])
    processes = multiprocessing.get_context("fork")
    sizes = processes.Queue()

    def fetch() -> None:
        sizes.put(read_at(address, os.path.getsize))

    started = [processes.Process(target=fetch) for _ in range(3)]
    for process in started:
        process.start()
    assert [sizes.get(timeout=60) for _ in started] == [len(FILES["a.pth"])] * 3
    for process in started:
        process.join()
    assert server.requests == ["/a.pth"]


def slowly(handler) -> None:
    """Answers so late that the other processes ask while the first one still downloads."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(FILES["a.pth"])))
    handler.end_headers()
    time.sleep(0.5)
    handler.wfile.write(FILES["a.pth"])


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a.pth", ("a.pth", False)),
        ("a.pth?matching_heuristics=True", ("a.pth", True)),
        ("a.pth?matching_heuristics=False", ("a.pth", False)),
        ("http://a/b?c=d", ("http://a/b?c=d", False)),
        ("http://a/b?c=d&matching_heuristics=True", ("http://a/b?c=d", True)),
    ],
)
def test_detectron2s_query_is_split_off(address, expected):
    assert split_heuristics(address) == expected
