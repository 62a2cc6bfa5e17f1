"""What to do with a collection once its images can be told apart: find what is rare in it, make it flatter."""
