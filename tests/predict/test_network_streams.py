"""Cameras in a network, as they speak: RTSP with H.264, and JPEGs that do not end over HTTP."""

import io
import re
import socketserver
import struct
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from clips import moving_dots, write_clip
from dots import DotModel
from poise.predict import frames as frames_room
from poise.predict.completeness import VideoCutError
from poise.predict.frames import frames
from poise.predict.predictor import Predictor
from poise.predict.stream import stream
from poise.predict.video import VideoReader

av = pytest.importorskip("av")
COUNT = 8
CLOCK = 90_000
SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=door\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=framerate:10\r\na=control:track0\r\n"
)


def units(pictures):
    """The NAL units of every frame, with the parameters of the stream before each."""
    height, width = pictures[0].shape[:2]
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = width, height, "yuv420p", 10
    encoder.options = {"tune": "zerolatency", "crf": "10", "x264-params": "keyint=1:repeat-headers=1:annexb=1"}
    packets = [p for picture in pictures for p in encoder.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))]
    packets += encoder.encode(None)
    return [[unit for unit in re.split(b"\0\0\0?\1", bytes(packet)) if unit] for packet in packets]


class RtspCamera(socketserver.StreamRequestHandler):
    """Says what a camera says, then sends its frames between the answers (RFC 2326, RFC 6184)."""

    video = ()

    def handle(self):
        while lines := self.request_lines():
            method = lines[0].split()[0]
            number = next(line for line in lines if line.lower().startswith("cseq"))
            more, body = self.answer(method)
            head = ["RTSP/1.0 200 OK", number, *more, *([f"Content-Length: {len(body)}"] if body else []), "", ""]
            self.wfile.write("\r\n".join(head).encode() + body.encode())
            if method == "PLAY":
                self.play()
                return

    def request_lines(self):
        lines = []
        while (line := self.rfile.readline().decode().strip()) or not lines:
            if not line:
                return lines
            lines.append(line)
        return lines

    def answer(self, method):
        self.server.methods.append(method)
        if method == "OPTIONS":
            return ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"], ""
        if method == "DESCRIBE":
            return ["Content-Type: application/sdp"], SDP
        if method == "SETUP":
            return ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"], ""
        return ["Session: 1"], ""

    def play(self):
        sequence = 0
        for number, parts in enumerate(self.video):
            for unit in parts:
                last = unit is parts[-1]
                rtp = struct.pack(">BBHII", 0x80, 96 | last << 7, sequence, number * CLOCK // 10, 7) + unit
                self.wfile.write(struct.pack(">cBH", b"$", 0, len(rtp)) + rtp)
                sequence += 1


class JpegCamera(socketserver.StreamRequestHandler):
    """A page that is replaced by the next picture for ever; here the connection breaks after a few."""

    video = ()

    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n")
        for picture in self.video:
            data = io.BytesIO()
            Image.fromarray(picture).save(data, "JPEG", quality=95)
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data.getvalue())}\r\n\r\n"
            self.wfile.write(head.encode() + data.getvalue() + b"\r\n")


@contextmanager
def camera(handler, video):
    """Its host and port, and what it was asked."""
    kind = type("Camera", (handler,), {"video": video})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads, server.methods = True, []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", server.methods
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def patient(monkeypatch):
    """Every frame is waited for, however slow the machine is."""
    monkeypatch.setattr(frames_room, "newest", lambda items: items)


def until_it_breaks(source):
    """The frames, and the error behind them; ``rtsp`` ends without one."""
    found = []
    try:
        found.extend(source)
    except VideoCutError as error:
        return found, str(error)
    return found, None


def assert_same(found, pictures):
    assert len(found) == len(pictures)
    for frame, picture in zip(found, pictures, strict=True):
        assert np.abs(frame.image.astype(int) - picture).mean() < 3
    assert (found[0].clip.live, found[0].clip.expected, found[0].clip.path) == (True, None, None)


def test_rtsp(patient):
    pictures = moving_dots(COUNT)
    with camera(RtspCamera, units(pictures)) as (host, asked):
        found = list(frames(f"rtsp://{host}/door"))
    assert asked == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert_same(found, pictures)
    assert [round(f.time, 3) for f in found] == [round(i / 10, 3) for i in range(COUNT)]


def test_people_are_followed_over_rtsp(patient):
    pictures = moving_dots(COUNT)
    with camera(RtspCamera, units(pictures)) as (host, _):
        seen = list(stream(Predictor(DotModel(long_side=128), "cpu"), f"rtsp://{host}/door", track=True))
    assert [poses.ids.tolist() for _, poses in seen] == [[1, 2]] * COUNT


def test_jpegs_that_do_not_end(patient):
    pictures = moving_dots(COUNT)
    with camera(JpegCamera, pictures) as (host, _):
        found, problem = until_it_breaks(frames(f"http://{host}/video"))
    assert_same(found, pictures)
    assert re.search(rf"/video breaks off at \d\.\d s \(frame {COUNT - 1}\): Input/output error", problem)


@pytest.mark.parametrize(("handler", "address"), [(RtspCamera, "rtsp://{}/door"), (JpegCamera, "http://{}/video")])
def test_who_is_too_slow_misses_frames_of_a_camera(monkeypatch, handler, address):
    """The reading thread is at the end before the second frame is asked for: the last one waits, and no other."""
    ended = threading.Event()
    read_all = frames_room._moments

    def watched(reader):
        try:
            yield from read_all(reader)
        finally:
            ended.set()

    monkeypatch.setattr(frames_room, "_moments", watched)
    pictures = moving_dots(COUNT)
    with camera(handler, pictures if handler is JpegCamera else units(pictures)) as (host, _):
        found = frames(address.format(host))
        first = next(found)
        assert ended.wait(30)
        rest, problem = until_it_breaks(found)
    assert (problem is None) == (handler is RtspCamera)
    assert [f.number for f in rest] == ([COUNT - 1] if first.number < COUNT - 1 else [])
    assert first.clip.live


def test_a_video_at_an_address_is_no_camera(tmp_path):
    """Neither with a length nor without one: it is fetched piece by piece, as quickly as it is looked at."""
    path = write_clip(tmp_path / "clip.mkv", moving_dots(COUNT))
    assert not VideoReader(path).pushed

    class Page(JpegCamera):
        def handle(self):
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: video/x-matroska\r\n\r\n" + self.video)

    with camera(Page, path.read_bytes()) as (host, _), VideoReader(f"http://{host}/clip.mkv") as reader:
        assert not reader.pushed
        reader.info = reader.info.__class__(reader.info.rate, None, None, False)
        assert not reader.pushed
        assert len(list(reader)) == COUNT
