"""The defaults of a connection, for the form that shows them and the code that applies them."""

from typing import Final

HOST: Final = "https://events.regalvoice.com"
# Regal advises bulk senders 100/s; an account may send 300/s unless Regal raised it.
RATE_LIMIT: Final = 100
TIMEOUT_S: Final = 30.0
EVENT_SOURCE: Final = "airflow"
