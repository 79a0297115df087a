"""Peers: independent implementations in PyTorch that emofuse is compared with."""
