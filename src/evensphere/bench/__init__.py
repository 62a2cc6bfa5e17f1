"""What a training step costs on this machine, and what of it is not the backbone.

subjects    what is timed: the bare backbone, the engine's steps, their parts
clock       subjects in turn, round after round; the machine's own ceiling
operations  what is counted instead of timed: the framework's operations
rows        rounds -> medians with their spread and their ratio to the bare backbone, and JSON lines
run         all of it on one recipe
page        rows -> a table and a few sentences for people
"""

from evensphere.bench.run import bench

__all__ = ["bench"]
