"""What is measured and shown: metrics, instruments, consumer lag, probes."""
