"""What was measured of signals (benchmarks/results/signals.jsonl) says: two sections of docs/results.md."""

from __future__ import annotations

SIGNALS_FILE = "signals.jsonl"
