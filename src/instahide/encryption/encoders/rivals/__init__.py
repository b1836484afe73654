"""Encoders of other papers, to compare InstaHide with."""
