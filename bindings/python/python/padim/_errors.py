"""The exceptions of padim."""


class Error(Exception):
    """Any error of padim."""


class ConfigError(Error, ValueError):
    """A setting is wrong, or the images do not suffice for it."""


class FileError(Error, OSError):
    """The operating system refused to read or write a file."""


class ImageError(Error, ValueError):
    """An image cannot be used: it is damaged, too large, or of an unsupported kind."""


class DetectorFileError(Error, ValueError):
    """A file is not a usable detector."""


class Cancelled(Error):
    """The function for the progress has stopped the work."""
