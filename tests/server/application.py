"""An application that logs numbered lines through the SDK, and says how many of them are in its spool.

``python application.py URL SPOOL RUN PROTOCOL LINES``; without a number of lines it goes on until it is killed.
"""

from __future__ import annotations

import itertools
import sys

from opsloop.structured_logging import BufferedSink, Exporter, Logger, Spool

BURST = 40


def main(url, folder, run, protocol, lines=""):
    """Log in bursts; each number printed is a count of lines that no crash of this process can take back."""
    exporter = Exporter(url, protocol=protocol, spool=Spool(folder, segment_bytes=50_000))
    sink = BufferedSink(exporter)
    log = Logger(sink, service="bot")
    for number in itertools.count() if not lines else range(int(lines)):
        log.info("line", run=run, number=number)
        if (number + 1) % BURST == 0:
            if not sink.flush(20) or sink.failed:
                sys.exit(f"{sink.failed} lines are not in the spool: {sink.last_error}")
            sys.stdout.write(f"{number + 1}\n")
            sys.stdout.flush()
            exporter.flush(0.1)  # not faster than what is spooled can be sent
    if not exporter.flush(120):
        sys.exit(f"the server has not stored everything: {exporter.last_error}")
    sys.stdout.write(f"{exporter.retries} {exporter.rejected}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
