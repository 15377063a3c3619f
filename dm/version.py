"""The one place of the version; read by the build and by ``dm --version``."""

__version__ = "0.1.0"
