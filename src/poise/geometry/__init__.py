"""Pure functions of coordinates: affine maps, boxes, similarity, suppression."""
