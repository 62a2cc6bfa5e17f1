"""Metrics: pure functions of frozen features. One line here adds one to every evaluation."""

from __future__ import annotations

# Name -> "module:function" of a `Banks -> result`. Import paths, so that listing the names loads no torch.
METRICS: dict[str, str] = {
    "knn": "evensphere.metrics.classify:knn",
    "probe": "evensphere.metrics.classify:logistic_probe",
    "probe_paper": "evensphere.metrics.classify:paper_probe",
    "probe_1_shot": "evensphere.metrics.few_shot:one_shot_probe",
    "probe_5_shot": "evensphere.metrics.few_shot:five_shot_probe",
    "head_ce": "evensphere.metrics.heads:ce_head",
    "head_logit_adjusted": "evensphere.metrics.heads:logit_adjusted_head",
    "head_balanced_softmax": "evensphere.metrics.heads:balanced_softmax_head",
    "head_crt": "evensphere.metrics.heads:crt_head",
    "head_tau_norm": "evensphere.metrics.heads:tau_norm_head",
    "clusters": "evensphere.metrics.cluster:cluster_agreement",
    "retrieval": "evensphere.metrics.retrieval:retrieval",
    "geometry": "evensphere.metrics.geometry:class_geometry",
    "signals": "evensphere.metrics.signals:signals",
}

# Metrics whose training features come from images cropped and flipped once, as the paper's probe does.
CROPPED_TRAIN: frozenset[str] = frozenset({"probe_paper"})

# Metrics that need features of several views of each image.
SEVERAL_VIEWS: frozenset[str] = frozenset({"signals"})

# Metrics whose result is no score of classes, and so has no "average" to watch while training.
DESCRIPTIONS: frozenset[str] = frozenset({"geometry", "signals"})
