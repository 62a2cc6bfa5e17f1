"""evensphere in tools that people already use (docs/integrations.md).

Each optional package is imported by one file here and needed by no other. Lightly, Accelerate and plain torch need
nothing but `Harmonizer` and `WithIndex`.
"""
