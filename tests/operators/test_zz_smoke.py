import json, sqlite3
from tests.operators.opt_ins import *
from tests.operators.ways import context
from airflow_provider_regal.testing import Sandbox
def test_smoke(tmp_path, monkeypatch, caplog):
  caplog.set_level("INFO")
  with Sandbox() as regal:
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection())
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", str(tmp_path / "runs"))
    rows=[consent(100), consent(101), consent(102, False), consent(106, False, timestamp=None)]
    for n in range(3):
        here=context(); here["ti"].run_id=f"r{n}"
        RegalOptInSyncOperator(task_id="opt_ins",rows=rows,initial="send").execute(here)
        print(here["ti"].report)
        for r in sqlite3.connect(tmp_path/"runs/ledger.db").execute("select * from regal_ledger").fetchall(): print(r)
