"""Downloads, from a server on this machine that misbehaves in every way that servers do."""

import hashlib
import http.server
import io
import shutil
import socket
import threading
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from galdiff.cli import app
from galdiff.config.data import GZ2Spec, HDF5Spec, IDXSpec
from galdiff.data import download as module
from galdiff.data.download import RECORDS, Record, Remote, download, unzip_images
from galdiff.data.transfer import fetch
from galdiff.errors import DataError, ResourceError
from galdiff.progress import quiet

BODY = np.random.default_rng(0).bytes(300_000)
SHA = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``; how is said by ``server.behavior``."""

    def do_GET(self):
        how, body = self.server.behavior, self.server.files.get(self.path.rsplit("/", 1)[-1])
        self.server.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        if body is None or how.status:
            self.send_error(how.status or 404)
            return
        tag = how.tag or f'"{hashlib.md5(body).hexdigest()}"'
        start, wanted = 0, self.headers.get("Range")
        if wanted and how.ranges and (self.headers.get("If-Range") == tag or how.careless):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if tag != "none":
            self.send_header("ETag", tag)
        if how.length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if how.cuts:
            rest = rest[: how.cuts.pop(0)]
        self.wfile.write(rest)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = {"a.bin": BODY}
        server.requests = []
        server.behavior = SimpleNamespace(status=None, tag=None, ranges=True, careless=False, length=True, cuts=[])
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with quiet():
            yield server
        server.shutdown()
        thread.join()


def get(server, folder, checksum=SHA, waits=()):
    return fetch(f"{server.url}/a.bin", folder / "a.bin", checksum, waits=waits)


def only(folder, *names):
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)


def interrupted(server, folder, at=100_000):
    """A download that broke once, and whose part is kept."""
    server.behavior.cuts = [at]
    with pytest.raises(ResourceError, match="broke after 100,000 of 300,000 bytes"):
        get(server, folder)
    only(folder, "a.bin.part", "a.bin.part.version")
    server.requests.clear()


class TestFetch:
    def test_a_file_arrives_whole_and_is_not_asked_for_again(self, server, tmp_path):
        assert get(server, tmp_path)
        assert get(server, tmp_path)
        assert (tmp_path / "a.bin").read_bytes() == BODY
        assert len(server.requests) == 1
        only(tmp_path, "a.bin")

    def test_a_connection_that_breaks_is_taken_up_at_once(self, server, tmp_path):
        server.behavior.cuts = [1000, 70_000, 0, 5]
        get(server, tmp_path, waits=(0, 0))
        assert (tmp_path / "a.bin").read_bytes() == BODY
        starts = [wanted for _, wanted, _ in server.requests]
        assert starts == [None, "bytes=1000-", "bytes=71000-", "bytes=71000-", "bytes=71005-"]

    def test_the_next_command_goes_on_where_the_last_one_broke(self, server, tmp_path):
        interrupted(server, tmp_path)
        get(server, tmp_path)
        assert (tmp_path / "a.bin").read_bytes() == BODY
        ((_, wanted, condition),) = server.requests
        assert wanted == "bytes=100000-"
        assert condition == f'"{hashlib.md5(BODY).hexdigest()}"'
        only(tmp_path, "a.bin")

    @pytest.mark.parametrize("careless", [False, True])
    def test_a_file_that_changed_meanwhile_starts_anew(self, server, tmp_path, careless):
        interrupted(server, tmp_path)
        other = BODY[::-1]
        server.files["a.bin"] = other
        server.behavior.careless = careless  # sends the part of the new file, whatever If-Range says
        get(server, tmp_path, f"sha256:{hashlib.sha256(other).hexdigest()}", waits=(0,))
        assert (tmp_path / "a.bin").read_bytes() == other

    def test_a_file_that_became_shorter_starts_anew(self, server, tmp_path):
        interrupted(server, tmp_path)
        server.files["a.bin"], server.behavior.careless = b"short", True
        get(server, tmp_path, f"sha256:{hashlib.sha256(b'short').hexdigest()}", waits=(0,))
        assert (tmp_path / "a.bin").read_bytes() == b"short"

    def test_a_server_without_ranges_starts_anew(self, server, tmp_path):
        interrupted(server, tmp_path)
        server.behavior.ranges = False
        get(server, tmp_path)
        assert (tmp_path / "a.bin").read_bytes() == BODY

    @pytest.mark.parametrize("tag", ["none", 'W/"weak"'])
    def test_without_a_way_to_know_the_version_nothing_is_joined(self, server, tmp_path, tag):
        server.behavior.tag = tag
        interrupted(server, tmp_path)
        get(server, tmp_path)
        assert server.requests[0][1] is None
        assert (tmp_path / "a.bin").read_bytes() == BODY

    def test_a_server_that_does_not_say_how_long_it_is(self, server, tmp_path):
        server.behavior.length = False
        get(server, tmp_path)
        assert (tmp_path / "a.bin").read_bytes() == BODY

    @pytest.mark.parametrize(("status", "error"), [(404, DataError), (403, DataError), (503, ResourceError)])
    def test_refusals(self, server, tmp_path, status, error):
        server.behavior.status = status
        with pytest.raises(error, match=str(status)) as caught:
            get(server, tmp_path)
        assert caught.value.where == f"{server.url}/a.bin"
        only(tmp_path)

    def test_another_content_is_refused_and_removed(self, server, tmp_path):
        with pytest.raises(DataError, match="not what was published"):
            get(server, tmp_path, f"md5:{'0' * 32}")
        only(tmp_path)

    def test_without_a_published_checksum_the_first_one_is_kept(self, server, tmp_path):
        assert not get(server, tmp_path, None)
        assert (tmp_path / "a.bin.sha256").read_text() == f"{SHA[7:]}  a.bin\n"
        assert not get(server, tmp_path, None)
        assert len(server.requests) == 1
        (tmp_path / "a.bin").write_bytes(b"spoiled")
        with pytest.raises(DataError, match="not what was first received"):
            get(server, tmp_path, None)

    def test_no_network(self, tmp_path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(ResourceError, match="cannot be downloaded") as caught:
            fetch(f"http://127.0.0.1:{port}/a.bin", tmp_path / "a.bin", SHA, waits=(0,))
        assert "network" in caught.value.remedy

    def test_a_full_disk_is_seen_before_it_is_full(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(ResourceError, match=r"0\.00 GB are needed"):
            get(server, tmp_path)
        only(tmp_path)


def zipped(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(names):
            buffer = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(buffer, format="JPEG")
            archive.writestr(name, buffer.getvalue())
    return path


class TestUnzip:
    @pytest.fixture(autouse=True)
    def _silently(self):
        with quiet():
            yield

    def test_images_come_out_whatever_folder_they_are_in(self, tmp_path):
        archive = zipped(tmp_path / "a.zip", ["images/1.jpg", "images/2.jpg", "__MACOSX/images/._1.jpg", "README.txt"])
        assert unzip_images(archive, tmp_path / "images") == 2
        only(tmp_path / "images", "1.jpg", "2.jpg")

    def test_what_is_there_is_not_written_again(self, tmp_path):
        archive = zipped(tmp_path / "a.zip", ["1.jpg", "2.jpg"])
        unzip_images(archive, tmp_path / "images")
        before = (tmp_path / "images" / "2.jpg").stat().st_mtime_ns
        (tmp_path / "images" / "1.jpg").write_bytes(b"cut")
        unzip_images(archive, tmp_path / "images")
        assert (tmp_path / "images" / "2.jpg").stat().st_mtime_ns == before
        with Image.open(tmp_path / "images" / "1.jpg") as image:
            assert image.size == (8, 8)

    @pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"])
    def test_names_that_lead_outside_are_refused_before_anything_is_written(self, tmp_path, name):
        archive = zipped(tmp_path / "a.zip", ["1.jpg", name])
        with pytest.raises(DataError, match="leads outside"):
            unzip_images(archive, tmp_path / "images")
        only(tmp_path, "a.zip")

    def test_two_of_one_name(self, tmp_path):
        with pytest.raises(DataError, match=r"two images called '1\.jpg'"):
            unzip_images(zipped(tmp_path / "a.zip", ["a/1.jpg", "b/1.jpg"]), tmp_path / "images")

    @pytest.mark.parametrize("damage", ["cut", "flip"])
    def test_a_damaged_archive(self, tmp_path, damage):
        archive = zipped(tmp_path / "a.zip", ["1.jpg"])
        data = bytearray(archive.read_bytes())
        if damage == "flip":
            data[200] ^= 255
        archive.write_bytes(data[:100] if damage == "cut" else data)
        with pytest.raises(DataError, match="cannot be unpacked"):
            unzip_images(archive, tmp_path / "images")
        assert not list(tmp_path.rglob("1.jpg"))


class TestCommand:
    def test_it_says_what_was_verified_and_how_the_result_is_read(self, server, tmp_path, monkeypatch):
        archive = zipped(tmp_path / "images_gz2.zip", ["images/16.jpg"]).read_bytes()
        server.files |= {"images_gz2.zip": archive, "gz2_hart16.csv.gz": b"table"}
        md5 = hashlib.md5(archive).hexdigest()
        files = (
            Remote("images_gz2.zip", "https://nowhere.invalid/images_gz2.zip", f"md5:{md5}"),
            Remote("gz2_hart16.csv.gz", "https://nowhere.invalid/x"),
        )
        record = Record(files=files, section={"kind": "gz2"}, cite="them", images="images_gz2.zip")
        monkeypatch.setitem(RECORDS, "gz2", record)
        out = tmp_path / "out"
        result = CliRunner().invoke(app, ["download", "gz2", str(out), "--base-url", f"{server.url}/mirror/"])
        assert result.exit_code == 0, result.output
        assert "md5 verified" in result.stderr
        assert "no published checksum" in result.stderr
        assert (out / "images" / "16.jpg").is_file()
        assert server.requests[0][0] == "/mirror/images_gz2.zip"
        assert yaml.safe_load(result.stdout) == {"data": {"kind": "gz2", "root": str(out)}}

    def test_the_environment_names_a_mirror(self, server, tmp_path, monkeypatch):
        monkeypatch.setenv(module.BASE_URL, server.url)
        monkeypatch.setitem(RECORDS, "mnist", Record(files=(Remote("a.bin", "x", SHA),), section={}, cite="them"))
        download("mnist", tmp_path / "out")
        assert (tmp_path / "out" / "a.bin").read_bytes() == BODY

    def test_mistakes_are_one_line(self, tmp_path):
        result = CliRunner().invoke(app, ["download", "gz3", str(tmp_path)])
        assert result.exit_code == 2
        assert "no data set is called 'gz3'. Known: gz2," in result.stderr
        result = CliRunner().invoke(app, ["download", "gz2", str(tmp_path), "--base-url", "file:///etc"])
        assert result.exit_code == 2
        assert "no http:// or https:// address" in result.stderr


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_every_record_is_well_formed_and_its_section_is_of_a_catalog_file(name):
    record = RECORDS[name]
    for remote in record.files:
        assert remote.url.startswith("https://")
        assert remote.url.endswith(remote.name)
        if remote.checksum is not None:
            kind, digits = remote.checksum.split(":")
            assert len(bytes.fromhex(digits)) == {"md5": 16, "sha256": 32}[kind]
    spec = {"gz2": GZ2Spec, "hdf5": HDF5Spec, "idx": IDXSpec}[record.section["kind"]]
    spec.model_validate({**record.section, "root": "data"})


def test_checksums_are_those_of_the_real_files(real_data):
    """Three of MNIST's four files are at hand."""
    folder = real_data("mnist")
    checked = [f for f in RECORDS["mnist"].files if (folder / f.name).is_file()]
    assert len(checked) == 3
    for remote in checked:
        assert remote.checksum == f"md5:{hashlib.md5((folder / remote.name).read_bytes()).hexdigest()}"
