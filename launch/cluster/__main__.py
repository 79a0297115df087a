"""`python -m launch.cluster`."""

from launch.cli import run
from launch.cluster import main

run(main)
