"""Personal data that must not appear anywhere. Not in test files, since Airflow stores the source of DAG files."""

SECRETS = {
    "phone": "(212) 555-0147",
    "e164": "+12125550147",
    "email": "hidden.person@example.com",
    "ip": "203.0.113.77",
    "name": "Zerubbabel",
    "id": "customer-5150",
}
