"""A run's encoder for the programs of others, and what it makes of images; all of it checked before it is said to be
done."""
