"""Tests of the query view."""
