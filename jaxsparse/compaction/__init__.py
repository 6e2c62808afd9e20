"""Compaction."""

from jaxsparse.compaction.compact import Compacted, Report, compact

__all__ = ("Compacted", "Report", "compact")
