"""Tests of the central station in the browser."""
