"""Edits of picture files by a model: holes filled, pictures remade and enlarged."""
