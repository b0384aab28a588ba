"""What the command line runs beside the sandbox: the doctor, and redelivery."""
