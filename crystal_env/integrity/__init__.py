"""What objects and files are, and whether files from elsewhere may be believed.

`digest` tells objects and files apart by their content.
"""
