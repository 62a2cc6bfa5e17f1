"""What a run or a collection of images looks like to somebody who has no labels."""
