"""What follows: the dataflow, the shells that run it, and the pure decisions at its core."""
