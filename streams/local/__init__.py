"""What `rentstream up` adds on one machine: an embedded Kafka, child processes, the demonstration."""
