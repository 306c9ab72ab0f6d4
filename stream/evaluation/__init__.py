"""Annotated recordings held against their reference annotations: tables, JSON and a page."""
