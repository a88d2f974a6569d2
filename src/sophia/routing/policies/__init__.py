"""Learned and fixed ways of rating models for a request, all behind one interface."""
