"""Devices and hosts: meshes, processes, memory, preemption, compiler options."""
