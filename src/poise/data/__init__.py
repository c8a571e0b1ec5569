"""Pictures and truth: reading data sets, augmenting them, and turning pictures into the views that networks see."""
