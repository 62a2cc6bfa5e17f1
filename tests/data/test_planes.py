"""TIFF, .npy and 16-bit files: the numbers that were written are the numbers that are read."""

from __future__ import annotations

import builtins
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from evensphere.data.decode import count_channels, decode
from evensphere.data.source import UnreadableImage

RANDOM = np.random.RandomState(0)


def numbers(*shape: int, dtype: Any = np.uint16) -> NDArray[Any]:
    return RANDOM.randint(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def png_of_16_bits(path: Path, values: NDArray[np.uint16]) -> None:
    """Written by hand: Pillow cannot."""
    height, width, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def tiff(**options: Any) -> Callable[[Path, NDArray[Any]], object]:
    return lambda path, values: tifffile.imwrite(path, values, **options)


def planar_tiff(path: Path, values: NDArray[Any]) -> None:
    tifffile.imwrite(path, np.moveaxis(values, 2, 0), planarconfig="separate", photometric="minisblack")


def imagej_tiff(path: Path, values: NDArray[Any]) -> None:
    tifffile.imwrite(path, np.moveaxis(values, 2, 0), imagej=True, metadata={"axes": "CYX"})


def channels_first(path: Path, values: NDArray[Any]) -> None:
    np.save(path, np.ascontiguousarray(np.moveaxis(values, 2, 0)))


KINDS: list[tuple[str, Callable[[Path, Any], object], int]] = [
    ("grey.png", png_of_16_bits, 1),
    ("grey.tif", tiff(), 1),
    ("colour.tif", tiff(photometric="rgb"), 3),
    ("deflated.tif", tiff(photometric="rgb", compression="zlib"), 3),
    ("big_endian.tif", tiff(photometric="rgb", byteorder=">"), 3),
    ("big.tif", tiff(photometric="rgb", bigtiff=True), 3),
    ("alpha.tif", tiff(photometric="rgb"), 4),
    ("four.tif", tiff(photometric="minisblack", planarconfig="contig"), 4),
    ("six.tif", tiff(photometric="minisblack", planarconfig="contig"), 6),
    ("six_planes.tif", planar_tiff, 6),
    ("six_pages.tif", imagej_tiff, 6),
    ("six.npy", np.save, 6),
    ("six_first.npy", channels_first, 6),
    ("grey.npy", np.save, 1),
]


@pytest.mark.parametrize(("name", "write", "channels"), KINDS, ids=[kind[0] for kind in KINDS])
def test_16_bits_are_kept(tmp_path: Path, name: str, write: Callable[[Path, Any], object], channels: int) -> None:
    values = numbers(9, 11, channels)
    write(tmp_path / name, values[..., 0] if name in ("grey.tif", "grey.npy") else values)
    expected = np.moveaxis(values, 2, 0)
    for file in (tmp_path / name, io.BytesIO((tmp_path / name).read_bytes())):
        pixels = decode(file, channels, 16)
        assert pixels.dtype == torch.float32
        assert np.array_equal(pixels.numpy(), expected.astype(np.float32) / np.float32(65535))
    eight = decode(tmp_path / name, channels, 8)
    assert eight.dtype == torch.uint8
    if channels != 3:  # Pillow cuts 16-bit colour off, where it does not round
        assert np.array_equal(eight.numpy(), np.rint(expected / 257).astype(np.uint8))
    assert np.abs(eight.numpy() - expected / 257).max() <= 1


@pytest.mark.parametrize("channels", [4, 6, 13])
@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_any_number_of_channels_of_8_bits(tmp_path: Path, name: str, channels: int) -> None:
    values = numbers(15, 17, channels, dtype=np.uint8)
    if name == "a.npy":
        np.save(tmp_path / name, values)
    else:
        tiff(photometric="minisblack", planarconfig="contig")(tmp_path / name, values)
    assert count_channels(tmp_path / name) == channels
    assert np.array_equal(decode(tmp_path / name, channels).numpy(), np.moveaxis(values, 2, 0))
    other = {6: 13, 13: 6}.get(channels, 6)
    with pytest.raises(UnreadableImage, match=rf"it has {channels} channel\(s\), which cannot be made {other}"):
        decode(tmp_path / name, other)


def test_16_bit_pictures_can_be_converted(tmp_path: Path) -> None:
    """Grey to colour, colour to grey, alpha on white: as for 8 bits, finer."""
    colour, grey = numbers(5, 6, 3), numbers(5, 6, 1)
    tifffile.imwrite(tmp_path / "colour.tif", colour, photometric="rgb")
    png_of_16_bits(tmp_path / "grey.png", grey)
    luminance = colour @ [0.299, 0.587, 0.114]
    assert np.abs(decode(tmp_path / "colour.tif", 1, 16)[0].numpy() * 65535 - luminance).max() < 1
    assert np.array_equal(decode(tmp_path / "grey.png", 3, 16)[2].numpy() * np.float32(65535), grey[..., 0])
    four = decode(tmp_path / "colour.tif", 4, 16)
    assert (four[3] == 1).all()
    assert four[:3].equal(decode(tmp_path / "colour.tif", 3, 16))
    laid = np.concatenate([colour, np.full_like(grey, 65535 // 4)], axis=2)
    tifffile.imwrite(tmp_path / "alpha.tif", laid, photometric="rgb", extrasamples=["unassalpha"])
    opacity = (65535 // 4) / 65535
    expected = colour / 65535 * opacity + 1 - opacity
    assert np.abs(decode(tmp_path / "alpha.tif", 3, 16).permute(1, 2, 0).numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_what_would_be_cut_to_8_bits_is_refused(tmp_path: Path, channels: int) -> None:
    values = numbers(5, 6, channels)
    png_of_16_bits(tmp_path / "a.png", values)
    (tmp_path / "a.ppm").write_bytes(
        b"P6 6 5 1023\n" + (values[..., :1].repeat(3, axis=2) % 1024).astype(">u2").tobytes()
    )
    for name, kind in (("a.png", "PNG"), ("a.ppm", "PPM")):
        with pytest.raises(UnreadableImage, match=f"16-bit colour in a {kind} file is read with 8 bits only"):
            decode(tmp_path / name, 3, 16)
        assert decode(tmp_path / name, 3).shape == (3, 5, 6)


def test_pictures_of_8_bits_are_the_same_at_16(tmp_path: Path) -> None:
    Image.fromarray(numbers(7, 8, 3, dtype=np.uint8)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 3, 16).mul(255).round().byte().equal(decode(tmp_path / "a.png", 3))


def test_alpha_is_kept_in_four_channels(tmp_path: Path) -> None:
    values = numbers(7, 8, 4, dtype=np.uint8)
    Image.fromarray(values, "RGBA").save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", 4).permute(1, 2, 0).numpy(), values)
    Image.fromarray(values[..., :3]).save(tmp_path / "b.png")
    assert (decode(tmp_path / "b.png", 4)[3] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_tiffs_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    values = numbers(4, 7, 3)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    small = Image.fromarray((values // 257).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    small.save(stream, "png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(stream)))
    assert np.array_equal((decode(tmp_path / "a.tif", 3, 16).permute(1, 2, 0).numpy() * 255).astype(int), upright)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((3, 4), np.int32), "int32 numbers have no known range"),
        (np.full((3, 4), 2.0), "outside 0..1"),
        (np.full((3, 4), np.nan), "outside 0..1"),
        (np.zeros(5, np.uint8), r"shape \(5,\) is no image"),
        (np.zeros((2, 3, 4, 5), np.uint8), "is no image"),
        (np.zeros((0, 3), np.uint8), "is no image"),
        (np.array([["a"]]), "no known range"),
        (np.array([[{}]], dtype=object), "Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_are_no_images(tmp_path: Path, values: NDArray[Any], reason: str) -> None:
    np.save(tmp_path / "a.npy", values)
    for channels, bits in ((3, 8), (1, 16)):
        with pytest.raises(UnreadableImage, match=reason):
            decode(tmp_path / "a.npy", channels, bits)


def test_floats_in_range_are_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.linspace(0, 1, 12).reshape(3, 4))
    assert decode(tmp_path / "a.npy", 1, 16).flatten().tolist() == pytest.approx(np.linspace(0, 1, 12).tolist())
    assert decode(tmp_path / "a.npy", 1).flatten().tolist() == np.rint(np.linspace(0, 255, 12)).tolist()


def test_masks_are_black_and_white(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3, dtype=bool))
    assert decode(tmp_path / "a.npy", 1)[0].tolist() == (np.eye(3) * 255).tolist()


def test_bombs_are_refused_by_their_headers(tmp_path: Path) -> None:
    """The files hold nothing but a header that promises much."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (100_000, 100_000)})
    (tmp_path / "a.npy").write_bytes(stream.getvalue())
    page = io.BytesIO()
    tifffile.imwrite(page, numbers(1, 1, 3), photometric="rgb")
    data = bytearray(page.getvalue())
    for tag in (256, 257):  # width and height
        place = data.index(struct.pack("<HHI", tag, 4, 1)) + 8
        data[place : place + 4] = struct.pack("<I", 100_000)
    (tmp_path / "a.tif").write_bytes(data)
    for name in ("a.npy", "a.tif"):
        with pytest.raises(UnreadableImage, match=r"0,000,000,000 numbers.*decompression bomb"):
            decode(tmp_path / name, 3, 16)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("I;16", 1)],
)
def test_headers_tell_the_channels_of_pictures(tmp_path: Path, mode: str, channels: int) -> None:
    Image.new(mode, (3, 2)).save(tmp_path / "a.png")
    assert count_channels(tmp_path / "a.png") == channels
    assert count_channels(io.BytesIO((tmp_path / "a.png").read_bytes())) == channels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("name", "write", "channels"),
    [
        ("pages", imagej_tiff, 4),
        ("three_pages", imagej_tiff, 3),
        ("infrared", tiff(photometric="rgb", planarconfig="contig", extrasamples=["unspecified"]), 4),
        ("six", tiff(photometric="rgb", planarconfig="contig", extrasamples=["unspecified"] * 3), 6),
        ("two", tiff(photometric="minisblack", planarconfig="contig", extrasamples=["unspecified"]), 2),
    ],
)
def test_headers_tell_the_channels_that_pillow_does_not_show(
    tmp_path: Path, name: str, write: Callable[[Path, Any], object], channels: int, dtype: Any
) -> None:
    values = numbers(5, 7, channels, dtype=dtype)
    write(tmp_path / "a.tif", values)
    assert count_channels(tmp_path / "a.tif") == channels
    pixels = decode(tmp_path / "a.tif", channels)
    assert pixels.shape == (channels, 5, 7)
    expected = values if dtype == np.uint8 else (values.astype(int) + 128) // 257
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"ome": True}],
    ids=["plain", "deflated", "ome"],
)
@pytest.mark.parametrize("pages", [1, 2])
def test_colours_in_planes_are_those_in_pixels(
    tmp_path: Path, pages: int, options: dict[str, Any], dtype: Any, bits: int
) -> None:
    values = numbers(pages, 6, 5, 3, dtype=dtype)
    for name, written, config in (("a", np.moveaxis(values, 3, 1), "separate"), ("b", values, "contig")):
        file = tmp_path / f"{name}.tif"
        tifffile.imwrite(file, written if pages > 1 else written[0], photometric="rgb", planarconfig=config, **options)
    if dtype == np.uint16 and bits == 8 and pages > 1 and options == {}:
        assert decode(tmp_path / "a.tif", 3, bits).shape == (3, 6, 5)
    expected = torch.from_numpy(values[0].astype(np.float64)).permute(2, 0, 1) / np.iinfo(dtype).max
    found = decode(tmp_path / "a.tif", 3, bits).double() / (255 if bits == 8 else 1)
    assert torch.allclose(found, expected, atol=0.003)


def test_damage_behind_the_first_page_is_not_looked_at(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue", "green")]
    pages[0].save(whole := tmp_path / "whole.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "cut.tif").write_bytes(whole.read_bytes()[:-40])
    assert count_channels(tmp_path / "cut.tif") == 3
    assert decode(tmp_path / "cut.tif", 3)[:, 0, 0].tolist() == [255, 0, 0]


def test_of_pages_that_are_no_channels_the_first_is_the_picture(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert count_channels(tmp_path / "a.tif") == 3
    assert decode(tmp_path / "a.tif", 3)[:, 0, 0].tolist() == [255, 0, 0]


OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
    'UUID="urn:uuid:{own}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="7" '
    'SizeY="5" SizeC="{channels}" SizeZ="1" SizeT="1">{pages}</Pixels></Image></OME>'
)


def ome_page(path: Path, value: int, own: int, files: list[str]) -> None:
    """One page of an OME image with a channel in each of `files`; none: all are said to be in this one."""
    pages = [
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{c}</UUID></TiffData>'
        for c, name in enumerate(files)
    ]
    description = OME.format(own=own, channels=len(files) or 3, pages="".join(pages) or "<TiffData/>")
    page = np.full((5, 7), value, np.uint8)
    tifffile.imwrite(path, page, description=description, metadata=None, photometric="minisblack")


def test_an_image_does_not_bring_in_other_files(tmp_path: Path) -> None:
    """A channel in each of several files is as many images, whatever their descriptions say of each other."""
    (tmp_path / "images").mkdir()
    names = ["c0.ome.tif", "c1.ome.tif", "../c2.ome.tif"]
    for c, name in enumerate(names):
        ome_page(tmp_path / "images" / name, 50 + c, c, names)
    for c, name in enumerate(names):
        file = tmp_path / "images" / name
        assert count_channels(file) == 1
        for channels, bits in ((1, 8), (3, 8), (1, 16)):
            assert (decode(file, channels, bits).mul(1 if bits == 8 else 255).round() == 50 + c).all()
        with pytest.raises(UnreadableImage, match=r"it has 1 channel\(s\), which cannot be made 2"):
            decode(file, 2)


@pytest.mark.parametrize("version", [0, 3], ids=["mmstack", "ndtiff"])
def test_micro_managers_other_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Its files go on in others that are called alike, or stand beside an index of all."""
    file = tmp_path / "a_MMStack.tif"
    values = numbers(5, 7)
    tifffile.imwrite(file, values, metadata=None, extratags=[(51123, "s", 0, "not so short", True)])
    said = {"MajorVersion": version, "Summary": {"Prefix": "a"}, "IndexMap": []}
    monkeypatch.setattr(tifffile.tifffile, "read_micromanager_metadata", lambda *_: said)
    (tmp_path / "NDTiff.index").write_text("whatever")
    with file.open("rb") as stream, tifffile.TiffFile(stream) as followed:
        assert followed.is_ndtiff if version else followed.is_mmstack
    assert np.array_equal(decode(file, 1, 16)[0].numpy(), values.astype(np.float32) / np.float32(65535))


def test_channels_that_are_missing_are_not_invented(tmp_path: Path) -> None:
    ome_page(tmp_path / "a.ome.tif", 50, 0, [])  # one page, which says that there are three channels
    assert count_channels(tmp_path / "a.ome.tif") == 1
    assert (decode(tmp_path / "a.ome.tif", 3) == 50).all()
    assert (decode(tmp_path / "a.ome.tif", 1) == 50).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}], ids=["imagej", "ome"])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_pages_that_make_no_picture_are_pages_to_turn(
    tmp_path: Path, channels: int, options: dict[str, Any], dtype: Any
) -> None:
    """Of three channels a picture is made, grey too; of two or four the first is shown."""
    values = numbers(channels, 5, 7, dtype=dtype)
    metadata = {"axes": "CYX"}
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", metadata=metadata, **options)
    eight = values if dtype == np.uint8 else (values.astype(int) + 128) // 257
    colour, grey = decode(tmp_path / "a.tif", 3).numpy(), decode(tmp_path / "a.tif", 1)[0].numpy()
    if channels == 3:
        assert np.array_equal(colour, eight)
        assert np.abs(grey - np.tensordot([0.299, 0.587, 0.114], eight, 1)).max() <= 1
    else:
        assert np.array_equal(colour, eight[[0, 0, 0]])
        assert np.array_equal(grey, eight[0])


def test_cmyk_with_another_sample_is_a_picture(tmp_path: Path) -> None:
    values = np.zeros((5, 7, 5), np.uint8)
    values[..., 0] = 255
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="separated", planarconfig="contig", extrasamples=["unspecified"]
    )
    assert count_channels(tmp_path / "a.tif") == 3
    assert decode(tmp_path / "a.tif", 3)[:, 0, 0].tolist() == [0, 255, 255]


def test_headers_of_no_images_say_why(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(UnreadableImage, match="not an image"):
        count_channels(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImage, match="No such file"):
        count_channels(tmp_path / "gone.jpg")


def test_without_tifffile_the_reason_is_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiff(photometric="minisblack", planarconfig="contig")(tmp_path / "a.tif", numbers(4, 5, 6))
    tiff(photometric="rgb", planarconfig="separate")(tmp_path / "deep.tif", numbers(3, 4, 5))
    imagej_tiff(tmp_path / "pages.tif", pages := numbers(4, 5, 3, dtype=np.uint8))
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "tifffile":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnreadableImage, match=r"pip install 'evensphere\[tiff\]'"):
        decode(tmp_path / "a.tif", 6)
    Image.new("RGB", (3, 2)).save(tmp_path / "b.tif")
    assert decode(tmp_path / "b.tif", 3).shape == (3, 2, 3), "a picture needs no more than Pillow"
    assert count_channels(tmp_path / "pages.tif") == 1
    assert np.array_equal(decode(tmp_path / "pages.tif", 1)[0].numpy(), pages[..., 0])
    assert np.array_equal(decode(tmp_path / "pages.tif", 3)[2].numpy(), pages[..., 0])
    with pytest.raises(UnreadableImage, match="needs tifffile"):
        decode(tmp_path / "deep.tif", 3)
