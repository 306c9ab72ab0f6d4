"""From packets to the samples of each bed, in order and accounted for."""
