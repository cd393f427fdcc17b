"""What runs a flow: the thin rim between a pure step and Kafka."""
