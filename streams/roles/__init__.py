"""The composition roots: web, worker, topics, and all of them in one command."""
