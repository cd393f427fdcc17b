"""The way in: what the outside POSTs to us, answered only once it is durable."""
