"""Bundles: one file that carries any number of images across an air gap."""
