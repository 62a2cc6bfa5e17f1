"""Methods whose layers and queues were made for millions of images, cut to a few hundred digits."""

from __future__ import annotations

SETTINGS: dict[str, list[str]] = {
    "moco": ["method.queue_size=1024", "method.momentum=0.99"],
    "byol": ["method.hidden_dim=256"],
    "simsiam": ["method.embedding_dim=128", "method.hidden_dim=128", "method.predictor_dim=32"],
    "moco-v3": ["method.hidden_dim=256"],
    "nnclr": ["method.queue_size=1024", "method.hidden_dim=256", "method.predictor_dim=256"],
}
