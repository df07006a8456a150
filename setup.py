"""What setup.cfg cannot say: `gaplaw` is all that is installed, and experiments/ is inside it as gaplaw.experiments."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["gaplaw", "gaplaw.*"]), "gaplaw.experiments"],
    package_dir={"gaplaw.experiments": "experiments"},
)
