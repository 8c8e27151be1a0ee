"""Conditions and question trees, as data."""
