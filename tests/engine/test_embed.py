"""Features: one look at each image, the same as evaluation's, of arrays, files and streams; weights from files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.source import ArraySource, Batch, Pixels, Source, UnreadableImage
from evensphere.data.stream import Sample, Stream
from evensphere.engine.embed import embed, readable_again, timm_encoder, timm_view_options
from evensphere.engine.evaluate import features_of
from evensphere.errors import InputError

VIEWS = Views(4, scale=(0.3, 1.0), flip=0.5, jitter=(0.2, 0.0, 0.0, 0.0), gray=0.0, mean=(0.0,), std=(1.0,))


class Files(Source):
    """Images of two sizes, every fifth of which cannot be read."""

    name, channels, image_size, class_names = "files", 1, None, None

    def __len__(self) -> int:
        return 12

    def read(self, i: int) -> Pixels:
        if i % 5 == 4:
            raise UnreadableImage("torn")
        return torch.full((1, 4 + i % 2 * 2, 6), 20 * i, dtype=torch.uint8)

    def location(self, i: int) -> str:
        return f"{i}.png"

    def labels(self) -> None:
        return None


class Pgm(Stream):
    """Grey images of 4 x 4 in two shards."""

    def read_shard(self, k: int) -> Iterator[Sample]:
        for i in range(5):
            level = 10 * (5 * k + i)
            yield Sample(f"{k}/{i}", b"P5 4 4 255\n" + bytes([level]) * 16)


def test_features_are_evaluations_and_views_are_trainings() -> None:
    images = torch.randint(0, 256, (20, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    source, encoder = ArraySource("squares", images), nn.Flatten()
    encoder.weight = nn.Parameter(torch.ones(()))  # whose device is asked for
    found = embed(source, encoder, VIEWS, augmented=2)
    assert torch.equal(found.features, features_of(encoder, source, VIEWS)[0])
    seen = VIEWS(Batch(images, torch.arange(20)), epoch=0)
    assert all(torch.equal(mine, view.flatten(1)) for mine, view in zip(found.augmented, seen, strict=True))
    assert found.locations == [f"squares[{i}]" for i in range(20)]


def test_what_cannot_be_read_is_left_out_and_everything_else_is_seen_once() -> None:
    seen: dict[int, tuple[int, ...]] = {}
    found = embed(Files(), nn.Flatten(), VIEWS, augmented=2, see=lambda i, image: seen.update({i: tuple(image.shape)}))
    kept = [i for i in range(12) if i % 5 != 4]
    assert found.index.tolist() == kept == sorted(seen)
    assert found.locations == [f"{i}.png" for i in kept]
    assert torch.allclose(found.features[:, 0], torch.tensor(kept) * 20 / 255)
    assert found.augmented[1].shape == (len(kept), 16)


def test_a_stream_is_read_in_a_row_and_some_of_it_again() -> None:
    stream = Pgm("shards", ["a", "b"], samples=10, channels=1, shuffle_buffer=4)
    found = embed(stream, nn.Flatten(), VIEWS)
    assert found.index.tolist() == list(range(10))
    levels = (found.features[:, 0] * 25.5).round()
    assert sorted(levels.tolist()) == list(range(10))
    again = readable_again(stream, [7, 2])
    for i in (7, 2):
        assert again.location(i) == found.locations[i]
        assert float(again.read(i)[0, 0, 0]) == 10 * float(levels[i])


def test_nothing_readable_is_an_error() -> None:
    class Torn(Files):
        def read(self, i: int) -> Pixels:
            raise UnreadableImage("torn")

    with pytest.raises(InputError, match="No image of files can be read"):
        embed(Torn(), nn.Flatten(), VIEWS)


class TestTimm:
    NAME = "resnet10t"  # small

    def weights(self) -> dict[str, Tensor]:
        import timm

        torch.manual_seed(0)
        state: dict[str, Tensor] = timm.create_model(self.NAME, num_classes=3).state_dict()
        return state

    def test_weights_come_from_either_format_and_lose_their_wrapping(self, tmp_path: Path) -> None:
        state = self.weights()
        save_file(state, tmp_path / "plain.safetensors")
        torch.save(
            {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "w.pt"
        )
        encoders = [timm_encoder(self.NAME, tmp_path / file) for file in ("plain.safetensors", "w.pt")]
        for encoder in encoders:
            assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())
            assert not [key for key in encoder.state_dict() if key.startswith("fc")]
        wanted = timm_view_options(self.NAME)
        assert (wanted["size"], wanted["mean"]) == (176, [0.485, 0.456, 0.406])

    def test_wrong_weights_are_refused_in_a_sentence(self, tmp_path: Path) -> None:
        state = self.weights()
        first, *_ = state
        save_file({key: value for key, value in state.items() if key != first}, tmp_path / "less.safetensors")
        with pytest.raises(InputError, match=f"lacks 1 of the .* weights of {self.NAME}, the first being {first}"):
            timm_encoder(self.NAME, tmp_path / "less.safetensors")
        save_file(state | {first: torch.zeros(2)}, tmp_path / "other.safetensors")
        with pytest.raises(InputError, match="does not fit"):
            timm_encoder(self.NAME, tmp_path / "other.safetensors")

    def test_nothing_is_unpickled(self, tmp_path: Path) -> None:
        torch.save({"state_dict": Path("anything")}, tmp_path / "bad.pt")
        for file in ("bad.pt", "absent.pt"):
            with pytest.raises(InputError, match="cannot be read"):
                timm_encoder(self.NAME, tmp_path / file)
