"""Configs: data, with sources. Loaded by path with ml_collections.config_flags."""
