"""What bad disks do to files."""


def flip(path, place):
    """Flip a bit of the byte at a place, counted from the end where it is negative."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
