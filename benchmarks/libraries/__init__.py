"""The environment as it comes, trained by the libraries that people use: a short script for each."""
