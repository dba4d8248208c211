"""Relaxation of crystals with any potential that has forces, batched, with symmetry kept or free."""
