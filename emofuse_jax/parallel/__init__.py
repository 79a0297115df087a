"""Handles devices and hosts: meshes, processes, memory, preemption and compiler options."""
