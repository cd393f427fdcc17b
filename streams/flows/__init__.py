"""One file for each flow, by its name in the topology: what runs the pure core on the records of a topic."""
