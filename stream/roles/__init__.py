"""The processes of a ward, one module each."""
