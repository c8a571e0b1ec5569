"""Building blocks of networks: backbones, pyramids, towers, sampling, folding of batch norm."""
