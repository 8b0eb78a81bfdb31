"""Rows of a store and the nouns that they hold. Pure; all implementations of `ports.Store` with SQL share them.

Values that are JSON are ASCII JSON in text columns: metadata may have lone surrogates, which are not valid UTF-8.
"""
