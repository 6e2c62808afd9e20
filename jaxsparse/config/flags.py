"""Command-line flags that set a config field back to None."""

from typing import Any

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

NONE = "None"


class _OptionalParser(flags.ArgumentParser):
    """Parses the text "None" as None, and any other text like another parser."""

    def __init__(self, parser: flags.ArgumentParser) -> None:
        """Wraps a parser.

        Args:
          parser: parser of texts other than "None".
        """
        self._parser = parser
        self.syntactic_help = parser.syntactic_help

    def parse(self, argument: Any) -> Any:
        """Parses the text of a flag.

        Args:
          argument: the text.
        """
        return None if argument == NONE else self._parser.parse(argument)

    def flag_type(self) -> str:
        """Returns the name of the type for the help."""
        return self._parser.flag_type()


def allow_none() -> None:
    """Makes `--config.FIELD=None` set a field to None, for fields of every type.

    Call this before the flags of a program are parsed. `config.validate` rejects None
    for fields that must have a value. A tuple is given by one flag, as in
    `--config.model.features="(300, 100)"`; of repeated flags the last one counts.
    """
    parsers = {
        bool: flags.BooleanParser(),
        int: flags.IntegerParser(),
        float: flags.FloatParser(),
        str: flags.ArgumentParser(),
        tuple: tuple_parser.TupleParser(),
    }
    for field_type, parser in parsers.items():
        config_flags.register_flag_parser_for_type(field_type, _OptionalParser(parser))
