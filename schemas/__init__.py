"""Every record that is on a topic or in a row of a table, its encoding, and the catalogue of topics."""
