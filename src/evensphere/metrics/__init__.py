"""Metrics: pure functions of frozen features. One line here adds one to every evaluation."""

from __future__ import annotations

# Name -> "module:function" of a `Banks -> result`. Import paths, so that listing the names loads no torch.
METRICS: dict[str, str] = {
    "knn": "evensphere.metrics.classify:knn",
    "probe": "evensphere.metrics.classify:logistic_probe",
    "probe_paper": "evensphere.metrics.classify:paper_probe",
}

# Metrics whose training features come from images cropped and flipped once, as the paper's probe does.
CROPPED_TRAIN: frozenset[str] = frozenset({"probe_paper"})
