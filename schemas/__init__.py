"""What is said: every record that travels on a topic or rests in a table, and the catalogue of topics."""
