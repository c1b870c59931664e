"""Exports: one room per format."""
