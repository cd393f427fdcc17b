"""Everything that `rentstream up` needs on one machine: embedded Kafka, child processes, progress report, demo."""
