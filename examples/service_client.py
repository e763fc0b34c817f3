"""Has `dfd-edge serve` judge a file: `service_client.py http://127.0.0.1:8333 clip.mp4`."""

import json
import sys
import time
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

service, path = sys.argv[1], Path(sys.argv[2])
headers = {"Prefer": "wait=60", "Content-Length": str(path.stat().st_size)}
with path.open("rb") as file:  # streamed: a film of any size takes no memory here
    request = Request(f"{service}/v1/judgements?name={quote(path.name)}", file, headers)
    request.add_header("Content-Type", "application/octet-stream")
    judgement = json.load(urlopen(request))
while judgement["state"] in ("queued", "running"):
    time.sleep(1.0)
    judgement = json.load(urlopen(service + judgement["links"]["self"]))
print(judgement["state"], judgement["verdict"] or judgement["error"])
