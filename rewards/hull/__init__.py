"""The convex hull of formation energies: sources, file format, lookup and validation."""
