"""What a name costs before any work: a fresh interpreter each."""


def timeraw_import_galdiff():
    return "import galdiff"


def timeraw_import_cli():
    return "import galdiff.cli"
