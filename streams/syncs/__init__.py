"""What upstream apps have commanded, and what became of it, in the memory of a process."""
