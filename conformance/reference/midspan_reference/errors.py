"""Chapter 7: the one way a reader, a decoder or a model loader fails."""


class MidspanError(Exception):
    """An error number of 7.3 and the byte offset of the field at fault."""

    def __init__(self, code, offset, text=""):
        super().__init__(f"error {code} at offset {offset}: {text}")
        self.code = code
        self.offset = offset
        self.text = text
