"""Make-believe: stands in for the hospital. Imports `stream.wire` and the readers in `model.datasets`."""
