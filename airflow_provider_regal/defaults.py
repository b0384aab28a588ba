"""The defaults of a connection, for the form that shows them and the code that applies them."""

from typing import Final

HOST: Final = "https://events.regalvoice.com"
# Regal advises 100/s for bulk senders; an account may send 300/s unless Regal raised its limit.
RATE_LIMIT: Final = 100
TIMEOUT_S: Final = 30.0
EVENT_SOURCE: Final = "airflow"
