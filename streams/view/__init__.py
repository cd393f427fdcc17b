"""The query view: what the topics hold, as SQL tables that can be asked. It may be dropped and rebuilt at any time."""
