"""The paper's picture in two dimensions: long-tailed clusters on a circle, without GH and with it."""

from evensphere.toy.learn import ARMS, COUNTS, Arm, Outcome, learn
from evensphere.toy.picture import toy_animation, toy_caption, toy_picture

__all__ = ["ARMS", "COUNTS", "Arm", "Outcome", "learn", "toy_animation", "toy_caption", "toy_picture"]
