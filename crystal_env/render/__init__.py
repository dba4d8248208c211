"""Pictures of crystals: atoms and bonds of a cell, drawn as frames."""
