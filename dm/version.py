"""The one place of the version; read by the build and by ``dm --version``."""

VERSION = "0.1.0"
