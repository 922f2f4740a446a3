"""Mirroring as desired state: a file says what should be where, a plan says what that costs."""
