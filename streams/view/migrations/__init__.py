"""Migrations of the view, applied by `streams.view.database.Database.migrate`."""
