"""Pictures of few colours, small enough to be kept beside the code."""

import base64
import struct
import zlib

from playwright.sync_api import Page

#: The most frequent colours stay; every other becomes the nearest of them. Run by the browser, which is fast at it.
_FEW_COLOURS = """
async (content) => {
  const image = new Image();
  image.src = "data:image/png;base64," + content;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height), pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  const pixels = new Uint32Array(pen.getImageData(0, 0, image.width, image.height).data.buffer), counts = new Map();
  for (const each of pixels) counts.set(each, (counts.get(each) || 0) + 1);
  const palette = [...counts].sort((one, other) => other[1] - one[1]).slice(0, 256).map((each) => each[0]);
  const near = new Map(palette.map((each, index) => [each, index])), part = (colour, at) => (colour >> at) & 255;
  const indices = new Uint8Array(pixels.length);
  pixels.forEach((pixel, at) => {
    if (!near.has(pixel)) {
      let best = 0, least = Infinity;
      palette.forEach((each, index) => {
        const off = [0, 8, 16].reduce((sum, shift) => sum + (part(each, shift) - part(pixel, shift)) ** 2, 0);
        if (off < least) { least = off; best = index; }
      });
      near.set(pixel, best);
    }
    indices[at] = near.get(pixel);
  });
  let text = "";
  for (let at = 0; at < indices.length; at += 8192) text += String.fromCharCode(...indices.subarray(at, at + 8192));
  return { width: image.width, height: image.height, palette: palette.map((each) => [0, 8, 16].map((at) => part(each, at))), indices: btoa(text) };
}
"""


def smaller(page: Page, png: bytes) -> bytes:
    """The picture with at most 256 colours, as PNG; `page` is any page of a browser."""
    found = page.evaluate(_FEW_COLOURS, base64.b64encode(png).decode())
    width, height, indices = found["width"], found["height"], base64.b64decode(found["indices"])
    rows = b"".join(b"\0" + indices[at : at + width] for at in range(0, width * height, width))
    palette = bytes(part for colour in found["palette"] for part in colour)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
