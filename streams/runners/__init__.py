"""The runners of flows, between the pure steps and Kafka."""
